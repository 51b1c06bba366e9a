"""The SQL of the memory store where tables meet: relationships with their ends, traversal, groups, purging."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    delete,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.expression import any_

from soldier_data.base.statements import Statement, column_param, has_key, param
from soldier_data.memory.statements import (
    ENTITIES,
    EPISODES,
    ONE,
    RELATIONSHIPS,
    add_unless_taken,
    columns_of,
    content_of,
    delete_by_key,
    is_living,
    living,
    mark_deleted,
    of_group,
    of_tenant,
    or_own_write,
)


def _living_ends() -> Any:
    """One row if both entities of a relationship live. They stay so until the transaction ends."""
    from_entity, to_entity = ENTITIES.alias("from_entity"), ENTITIES.alias("to_entity")
    return (
        select(from_entity.c.id)
        .select_from(from_entity.join(to_entity, of_tenant(to_entity)))
        .where(
            of_tenant(from_entity),
            from_entity.c.id == column_param(RELATIONSHIPS.c.from_entity_id),
            is_living(from_entity),
            to_entity.c.id == column_param(RELATIONSHIPS.c.to_entity_id),
            is_living(to_entity),
        )
        .with_for_update(read=True)
        .cte("living_ends")
    )


def _exists(found: Any) -> ColumnElement[bool]:
    return select(found.c.id).exists()


def _add_relationship() -> Statement:
    ends = _living_ends()
    values = select(*(column_param(column) for column in RELATIONSHIPS.columns))
    added = add_unless_taken(
        RELATIONSHIPS,
        insert(RELATIONSHIPS).from_select(
            [column.name for column in RELATIONSHIPS.columns], values.where(_exists(ends))
        ),
    ).cte("added")
    return Statement(
        "adding the relationship", select(_exists(ends).label("ends_live"), _exists(added).label("written"))
    )


def _update_relationship() -> Statement:
    ends = _living_ends()
    stored = (
        select(RELATIONSHIPS.c.id)
        .where(has_key(RELATIONSHIPS), or_own_write(RELATIONSHIPS, living(RELATIONSHIPS)))
        .cte("stored")
    )
    updated = (
        update(RELATIONSHIPS)
        .values(content_of(RELATIONSHIPS))
        .where(
            has_key(RELATIONSHIPS),
            or_own_write(RELATIONSHIPS, is_living(RELATIONSHIPS)),
            _exists(stored),
            _exists(ends),
        )
        .returning(RELATIONSHIPS.c.id)
        .cte("updated")
    )
    return Statement(
        "updating the relationship",
        select(
            _exists(stored).label("stored"),
            _exists(ends).label("ends_live"),
            _exists(updated).label("written"),
        ),
    )


def _delete_entity() -> Statement:
    entity = delete_by_key(ENTITIES).cte("entity")
    id_ = column_param(ENTITIES.c.id)
    leads_to_it = or_(RELATIONSHIPS.c.from_entity_id == id_, RELATIONSHIPS.c.to_entity_id == id_)
    its = mark_deleted(
        RELATIONSHIPS, and_(of_tenant(RELATIONSHIPS), leads_to_it, is_living(RELATIONSHIPS), _exists(entity))
    )
    return Statement("deleting the entity", select(entity.c.id).add_cte(its.cte("its_relationships")))


add_relationship = _add_relationship()
update_relationship = _update_relationship()
delete_entity = _delete_entity()


@cache
def traverse(*, relation_types: bool) -> Statement:
    """The entities around others, nearest first.

    Each row of `level` is one step: the entities first reached by it, and all that were reached so far. Those are
    left out of the next step, so that each entity is expanded once, whatever cycles there are.
    """
    starts = (
        select(func.array_agg(ENTITIES.c.id).label("ids"))
        .where(of_group(ENTITIES), ENTITIES.c.id == any_(param("ids", ARRAY(Uuid))))
        .subquery("starts")
    )
    level = (
        select(
            literal_column("0", BigInteger).label("depth"),
            starts.c.ids.label("frontier"),
            starts.c.ids.label("reached"),
        )
        .where(starts.c.ids.is_not(None))
        .cte("level", recursive=True)
    )

    def across(here: ColumnElement[Any], there: ColumnElement[Any]) -> Select[Any]:
        followed = (
            select(there.label("id"))
            .where(of_group(RELATIONSHIPS), here == any_(level.c.frontier))
            .correlate(level)
        )
        if relation_types:
            followed = followed.where(
                RELATIONSHIPS.c.relation_type == any_(param("relation_types", ARRAY(Text)))
            )
        return followed

    ends = RELATIONSHIPS.c
    neighbours = union(
        across(ends.from_entity_id, ends.to_entity_id), across(ends.to_entity_id, ends.from_entity_id)
    ).subquery("neighbours")
    reached = select(func.unnest(level.c.reached).label("id")).correlate(level)
    step = (
        select(func.array_agg(ENTITIES.c.id).label("ids"))
        .where(
            of_group(ENTITIES),
            ENTITIES.c.id.in_(select(neighbours.c.id).except_(reached)),
        )
        .correlate(level)
        .lateral("step")
    )
    level = level.union_all(
        select(level.c.depth + ONE, step.c.ids, level.c.reached + step.c.ids).where(
            level.c.depth < param("depth", BigInteger()), step.c.ids.is_not(None)
        )
    )
    return Statement(
        "traversing the entities",
        select(*columns_of(ENTITIES))
        .join(level, ENTITIES.c.id == any_(level.c.frontier))
        .where(of_tenant(ENTITIES))
        .order_by(level.c.depth, ENTITIES.c.id),
    )


def _of_entities(entities: Any) -> Any:
    """The ids of the relationships from or to `entities`."""
    return (
        select(RELATIONSHIPS.c.id).join(entities, column == entities.c.id).where(of_tenant(RELATIONSHIPS))
        for column in (RELATIONSHIPS.c.from_entity_id, RELATIONSHIPS.c.to_entity_id)
    )


def _how_many(*found: Any) -> Select[Any]:
    counts = [select(func.count()).select_from(one).scalar_subquery() for one in found]
    return select(sum(counts[1:], counts[0]).label("how_many"))


def _delete_by_group() -> Statement:
    """Deletes, and counts what is gone: also what an unanswered attempt of this very call had deleted."""
    episodes = mark_deleted(EPISODES, of_group(EPISODES)).returning(EPISODES.c.id).cte("deleted_episodes")
    entities = mark_deleted(ENTITIES, of_group(ENTITIES)).returning(ENTITIES.c.id).cte("deleted_entities")
    concerned = union(select(RELATIONSHIPS.c.id).where(of_group(RELATIONSHIPS)), *_of_entities(entities))
    relationships = (
        mark_deleted(
            RELATIONSHIPS,
            and_(of_tenant(RELATIONSHIPS), is_living(RELATIONSHIPS), RELATIONSHIPS.c.id.in_(concerned)),
        )
        .returning(RELATIONSHIPS.c.id)
        .cte("deleted_relationships")
    )

    def before(table: Table) -> Any:
        return (
            select(table.c.id)
            .where(
                of_tenant(table),
                table.c.deleted_at == param("now", table.c.deleted_at.type),
                table.c.write_id == column_param(table.c.write_id),
            )
            .subquery(f"{table.name}_before")
        )

    return Statement(
        "deleting the group",
        _how_many(
            episodes,
            entities,
            relationships,
            before(EPISODES),
            before(ENTITIES),
            before(RELATIONSHIPS),
        ),
    )


delete_by_group = _delete_by_group()


def _purge() -> Statement:
    """One statement: the foreign keys are checked at its end, when relationships and entities are both gone."""

    def is_old(table: Table) -> ColumnElement[bool]:
        return and_(of_tenant(table), table.c.deleted_at < param("before", DateTime(timezone=True)))

    old_entities = select(ENTITIES.c.id).where(is_old(ENTITIES)).subquery("old_entities")
    goes = union(select(RELATIONSHIPS.c.id).where(is_old(RELATIONSHIPS)), *_of_entities(old_entities))
    gone = (
        (EPISODES, is_old(EPISODES)),
        (RELATIONSHIPS, and_(of_tenant(RELATIONSHIPS), RELATIONSHIPS.c.id.in_(goes))),
        (ENTITIES, is_old(ENTITIES)),
    )
    purged = (
        delete(table).where(where).returning(table.c.id).cte(f"purged_{table.name}") for table, where in gone
    )
    return Statement("purging deleted rows", _how_many(*purged))


purge_deleted = _purge()
