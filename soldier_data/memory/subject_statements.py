"""The SQL that finds, reads and removes what the memory store holds about a person.

A person's ids stand in JSON documents and in freely chosen group ids too, so that whole tables of the tenant are
looked through. That takes a while where they are large; it is done once in a person's life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Uuid, and_, delete, exists, func, literal_column, or_, select

from soldier_data.base.subjects import DataSubject, ErasedIds, batches
from soldier_data.memory.statements import ENTITIES, EPISODES, RELATIONSHIPS, columns_of
from soldier_data.postgres.database import Executor
from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import Statement, equals_any
from soldier_data.postgres.subject_scan import Scan, mentions_subject
from soldier_data.postgres.transaction import Row, Transaction

_FINDING = "looking for what is remembered of the customer"
_ERASING = "erasing what is remembered of the customer"

_theirs = or_(
    equals_any(EPISODES.c.customer_profile_id, "profile_ids"),
    and_(
        EPISODES.c.customer_profile_id.is_(None),
        or_(
            equals_any(EPISODES.c.session_id, "session_ids"),
            mentions_subject(EPISODES.c.group_id, EPISODES.c.source_metadata),
        ),
    ),
)
_entity_of_episode = func.unnest(EPISODES.c.entity_ids, type_=Uuid()).column_valued("entity_id")

_find_sessions = Scan(
    _FINDING, EPISODES, and_(_theirs, EPISODES.c.session_id.is_not(None)), EPISODES.c.session_id
)
_find_episodes = Scan(_FINDING, EPISODES, _theirs, EPISODES.c.id, EPISODES.c.group_id, EPISODES.c.entity_ids)
_find_sharing = Scan(
    _FINDING,
    EPISODES,
    or_(
        equals_any(EPISODES.c.group_id, "groups"),
        exists(select(literal_column("1")).where(equals_any(_entity_of_episode, "entity_ids"))),
    ),
    EPISODES.c.id,
    EPISODES.c.group_id,
    EPISODES.c.entity_ids,
)
_find_entities = Scan(
    _FINDING,
    ENTITIES,
    or_(
        equals_any(ENTITIES.c.id, "entity_ids"),
        equals_any(ENTITIES.c.group_id, "groups"),
        mentions_subject(ENTITIES.c.group_id, ENTITIES.c.attributes),
    ),
    ENTITIES.c.id,
)
_leads_to_them = or_(
    equals_any(RELATIONSHIPS.c.from_entity_id, "entity_ids"),
    equals_any(RELATIONSHIPS.c.to_entity_id, "entity_ids"),
)
_find_relationships = Scan(
    _FINDING,
    RELATIONSHIPS,
    or_(
        _leads_to_them,
        equals_any(RELATIONSHIPS.c.group_id, "groups"),
        mentions_subject(RELATIONSHIPS.c.group_id, RELATIONSHIPS.c.attributes),
    ),
    RELATIONSHIPS.c.id,
)


def _listed(table: Table) -> ColumnElement[bool]:
    return and_(of_tenant(table), equals_any(table.c.id, "ids"))


def _read(table: Table, *, with_embeddings: bool) -> Statement:
    columns = [column for column in columns_of(table) if with_embeddings or column.name != "embedding"]
    return Statement(
        "reading what is remembered of the customer",
        select(*columns).where(_listed(table)).order_by(table.c.id),
    )


# Relationships first, because they lead to entities; episodes last, because the others are found by them.
_TABLES = {str(table.name): table for table in (RELATIONSHIPS, ENTITIES, EPISODES)}
_read_listed = {
    (name, with_embeddings): _read(table, with_embeddings=with_embeddings)
    for name, table in _TABLES.items()
    for with_embeddings in (True, False)
}
# In the order of ids, so that two erasures never wait for each other. Nobody can relate anything to an entity that is
# locked, so that its relationships are all found.
_lock_listed = {
    name: Statement(_ERASING, select(table.c.id).where(_listed(table)).order_by(table.c.id).with_for_update())
    for name, table in _TABLES.items()
}
_delete_listed = {
    name: Statement(_ERASING, delete(table).where(_listed(table))) for name, table in _TABLES.items()
}
_delete_leading_to = Statement(
    _ERASING,
    delete(RELATIONSHIPS).where(of_tenant(RELATIONSHIPS), _leads_to_them).returning(RELATIONSHIPS.c.id),
)


async def find_sessions(db: Executor, subject: DataSubject) -> list[UUID]:
    """The sessions that the person's episodes are of."""
    return sorted({row["session_id"] for row in await _find_sessions.rows(db, subject.parameters())})


async def find_all(db: Executor, subject: DataSubject) -> dict[str, list[UUID]]:
    """The ids of everything that is the person's, by table."""
    values: dict[str, Any] = subject.parameters()
    episodes = await _find_episodes.rows(db, values)
    groups, mentioned = await _of_theirs_alone(db, subject.tenant_id, episodes)
    values |= {"groups": list(groups), "entity_ids": list(mentioned)}
    entities = [row["id"] for row in await _find_entities.rows(db, values)]
    values["entity_ids"] = entities
    relationships = [row["id"] for row in await _find_relationships.rows(db, values)]
    return {
        "episodes": [row["id"] for row in episodes],
        "entities": entities,
        "relationships": relationships,
    }


async def _of_theirs_alone(db: Executor, tenant_id: UUID, episodes: list[Row]) -> tuple[set[str], set[UUID]]:
    """The groups that only episodes of theirs are in, and the entities that only those mention."""
    own = {row["id"] for row in episodes}
    groups = {row["group_id"] for row in episodes}
    entities = {id_ for row in episodes for id_ in row["entity_ids"]}
    values = {"tenant_id": tenant_id, "groups": list(groups), "entity_ids": list(entities)}
    if not own:
        return groups, entities
    async for page in _find_sharing.pages(db, values):
        for row in page:
            if row["id"] not in own:
                groups.discard(row["group_id"])
                entities.difference_update(row["entity_ids"])
        # What others share is not looked for any further: a group that is everybody's is read to its first page.
        values |= {"groups": list(groups), "entity_ids": list(entities)}
    return groups, entities


async def read(
    db: Executor, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool
) -> list[Row]:
    """The rows of a table with these ids."""
    values = {"tenant_id": tenant_id, "ids": list(ids)}
    rows = await db.fetch_all(_read_listed[table, with_embeddings], values)
    return rows if with_embeddings else [{**row, "embedding": None} for row in rows]


async def erase(db: Executor, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]) -> dict[str, list[UUID]]:
    """Remove what was found, batch by batch; returns the ids of what went, by table."""
    gone = ErasedIds()
    for table in _TABLES:
        gone.add({table: ()})
        for ids in batches(found[table]):
            work = partial(_erase_batch, tenant_id=tenant_id, table=table, ids=ids, gone=gone)
            await db.atomically(work, _ERASING)
    return gone.by_table()


async def _erase_batch(
    transaction: Transaction, *, tenant_id: UUID, table: str, ids: Sequence[UUID], gone: ErasedIds
) -> None:
    values = {"tenant_id": tenant_id, "ids": list(ids), "entity_ids": list(ids)}
    gone.add({table: [row["id"] for row in await transaction.fetch_all(_lock_listed[table], values)]})
    if table == "entities":
        # Those that have come since they were looked for.
        come = await transaction.fetch_all(_delete_leading_to, values)
        gone.add({"relationships": [row["id"] for row in come]})
    await transaction.fetch_all(_delete_listed[table], values)
