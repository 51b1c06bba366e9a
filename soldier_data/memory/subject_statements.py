"""The SQL that finds, reads and removes what the memory store holds about a person.

A person's ids stand in JSON documents and in freely chosen group ids too, so that whole tables of the tenant are
read. That takes a while where they are large; it is done once in a person's life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, delete, func, or_, select, true

from soldier_data.base.database import Executor
from soldier_data.base.statements import Statement, is_one_of, mentions
from soldier_data.base.subjects import DataSubject
from soldier_data.base.transaction import Row, Transaction, Values
from soldier_data.memory.statements import ENTITIES, EPISODES, RELATIONSHIPS, columns_of, of_tenant

_FINDING = "looking for what is remembered of the customer"


def _is_theirs() -> ColumnElement[bool]:
    named = is_one_of(EPISODES.c.customer_profile_id, "profile_ids")
    meant = or_(
        is_one_of(EPISODES.c.session_id, "session_ids"),
        mentions(EPISODES.c.group_id, EPISODES.c.source_metadata),
    )
    return or_(named, and_(EPISODES.c.customer_profile_id.is_(None), meant))


_THEIRS = and_(of_tenant(EPISODES), _is_theirs().is_(true()))
_OTHERS = and_(of_tenant(EPISODES), _is_theirs().is_not(true()))

_find_sessions = Statement(
    _FINDING,
    select(EPISODES.c.session_id)
    .distinct()
    .where(_THEIRS, EPISODES.c.session_id.is_not(None))
    .order_by(EPISODES.c.session_id),
)
_find_episodes = Statement(
    _FINDING, select(EPISODES.c.id, EPISODES.c.group_id, EPISODES.c.entity_ids).where(_THEIRS)
)
_find_shared_groups = Statement(
    _FINDING, select(EPISODES.c.group_id).distinct().where(_OTHERS, is_one_of(EPISODES.c.group_id, "groups"))
)
_find_shared_entities = Statement(
    _FINDING, select(func.unnest(EPISODES.c.entity_ids).label("id")).distinct().where(_OTHERS)
)
_find_entities = Statement(
    _FINDING,
    select(ENTITIES.c.id).where(
        of_tenant(ENTITIES),
        or_(
            is_one_of(ENTITIES.c.id, "entity_ids"),
            is_one_of(ENTITIES.c.group_id, "groups"),
            mentions(ENTITIES.c.group_id, ENTITIES.c.attributes),
        ),
    ),
)
_find_relationships = Statement(
    _FINDING,
    select(RELATIONSHIPS.c.id).where(
        of_tenant(RELATIONSHIPS),
        or_(
            is_one_of(RELATIONSHIPS.c.from_entity_id, "entity_ids"),
            is_one_of(RELATIONSHIPS.c.to_entity_id, "entity_ids"),
            is_one_of(RELATIONSHIPS.c.group_id, "groups"),
            mentions(RELATIONSHIPS.c.group_id, RELATIONSHIPS.c.attributes),
        ),
    ),
)
# Nobody can relate anything to an entity that is locked, so that its relationships are all found.
_lock_entities = Statement(
    "erasing what is remembered of the customer",
    select(ENTITIES.c.id)
    .where(of_tenant(ENTITIES), is_one_of(ENTITIES.c.id, "ids"))
    .order_by(ENTITIES.c.id)
    .with_for_update(),
)


def _listed(table: Table) -> ColumnElement[bool]:
    return and_(of_tenant(table), is_one_of(table.c.id, "ids"))


_read_listed = {
    str(table.name): Statement(
        "reading what is remembered of the customer",
        select(*columns_of(table)).where(_listed(table)).order_by(table.c.id),
    )
    for table in (EPISODES, ENTITIES, RELATIONSHIPS)
}
# Relationships first, because they lead to entities.
_delete_listed = {
    str(table.name): Statement(
        "erasing what is remembered of the customer", delete(table).where(_listed(table))
    )
    for table in (RELATIONSHIPS, ENTITIES, EPISODES)
}


async def find_sessions(db: Executor, subject: DataSubject) -> list[UUID]:
    """The sessions that the person's episodes are of."""
    return [row["session_id"] for row in await db.fetch_all(_find_sessions, subject.parameters())]


async def find_all(db: Executor, subject: DataSubject, *, lock: bool = False) -> dict[str, list[UUID]]:
    """The ids of everything that is the person's, by table; with `lock`, its entities are locked."""
    values: dict[str, Any] = subject.parameters()
    episodes = await db.fetch_all(_find_episodes, values)
    values["groups"] = list({row["group_id"] for row in episodes})
    values["groups"] = list(
        set(values["groups"]) - {row["group_id"] for row in await db.fetch_all(_find_shared_groups, values)}
    )
    mentioned = {id_ for row in episodes for id_ in row["entity_ids"]}
    if mentioned:
        mentioned -= {row["id"] for row in await db.fetch_all(_find_shared_entities, values)}
    entities = await _ids(db, _find_entities, {**values, "entity_ids": list(mentioned)})
    if lock:
        await db.fetch_all(_lock_entities, {**values, "ids": entities})
    relationships = await _ids(db, _find_relationships, {**values, "entity_ids": entities})
    return {
        "episodes": sorted(row["id"] for row in episodes),
        "entities": entities,
        "relationships": relationships,
    }


async def read(db: Executor, subject: DataSubject, table: str, ids: list[UUID]) -> list[Row]:
    """The rows of a table with these ids."""
    return await db.fetch_all(_read_listed[table], {"tenant_id": subject.tenant_id, "ids": ids})


async def erase(transaction: Transaction, subject: DataSubject) -> Mapping[str, list[UUID]]:
    """Remove what is the person's; returns the ids, by table."""
    found = await find_all(transaction, subject, lock=True)
    for table, statement in _delete_listed.items():
        await transaction.fetch_all(statement, {"tenant_id": subject.tenant_id, "ids": found[table]})
    return found


async def _ids(db: Executor, statement: Statement, values: Values) -> list[UUID]:
    return sorted(row["id"] for row in await db.fetch_all(statement, values))
