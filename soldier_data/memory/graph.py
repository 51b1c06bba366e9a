"""The SQL of the memory store where tables meet: relationships with their ends, traversal, groups, purging."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    cast,
    column,
    delete,
    func,
    literal_column,
    or_,
    select,
    true,
    union,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.expression import any_

from soldier_data.base.statements import Statement, column_param, has_key, param
from soldier_data.memory.statements import (
    ENTITIES,
    EPISODES,
    LIMIT,
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
def traverse(*, relation_types: bool, embeddings: bool) -> Statement:
    """The entities around others with their `distance`, in no order.

    Each row of `level` is one step: the entities first reached by it, and those of the step before. Relationships
    are followed both ways, so that what is next to a step is of the step before it, of itself, or new: leaving out
    the first two is enough for each entity to be expanded once, and no step carries all that was reached so far.
    Sorting is left to the caller, who has less to sort: documents and vectors would go to temporary files here.
    """
    starts = _first_living(param("ids", ARRAY(Uuid)), LIMIT).subquery("starts")
    level = (
        select(
            literal_column("0", BigInteger).label("distance"),
            cast(literal_column("'{}'"), ARRAY(Uuid)).label("before"),
            starts.c.ids,
            func.cardinality(starts.c.ids, type_=BigInteger).label("how_many"),
        )
        .where(starts.c.ids.is_not(None))
        .cte("level", recursive=True)
    )

    def across(here: Column[Any], there: Column[Any]) -> Select[Any]:
        from_ = _elements(level.c.ids, "from_")
        found = _looked_up(here == from_.c.id, there, ends.group_id, ends.relation_type, ends.deleted_at)
        followed = and_(is_living(found), found.c.group_id == column_param(RELATIONSHIPS.c.group_id))
        if relation_types:
            wanted = found.c.relation_type == any_(param("relation_types", ARRAY(Text)))
            followed = and_(followed, wanted)
        return select(found.c[there.name].label("id")).select_from(from_).join(found, true()).where(followed)

    ends = RELATIONSHIPS.c
    neighbours = union_all(
        across(ends.from_entity_id, ends.to_entity_id), across(ends.to_entity_id, ends.from_entity_id)
    ).subquery("neighbours")
    known = select(_elements(level.c.before + level.c.ids, "known").c.id)
    ahead = func.array(select(neighbours.c.id).except_(known).scalar_subquery(), type_=ARRAY(Uuid))
    step = _first_living(ahead, LIMIT - level.c.how_many).lateral("step")
    level = level.union_all(
        select(
            level.c.distance + ONE,
            level.c.ids,
            step.c.ids,
            level.c.how_many + func.cardinality(step.c.ids),
        ).where(
            level.c.distance < param("depth", BigInteger()),
            level.c.how_many < LIMIT,
            step.c.ids.is_not(None),
        )
    )
    reached = _elements(level.c.ids, "reached")
    columns = [each for each in columns_of(ENTITIES) if embeddings or each is not ENTITIES.c.embedding]
    entity = _looked_up(ENTITIES.c.id == reached.c.id, *columns)
    return Statement(
        "traversing the entities",
        select(entity, level.c.distance).select_from(level).join(reached, true()).join(entity, true()),
    )


def _elements(ids: ColumnElement[Any], name: str) -> Any:
    """A row for each of the ids."""
    return func.unnest(ids).table_valued(column("id", Uuid())).render_derived(name=name)


def _looked_up(is_wanted: ColumnElement[bool], *columns: Any) -> Any:
    """The rows of the tenant that an index on a condition finds, for each row of what is before.

    The OFFSET keeps all other conditions apart. To PostgreSQL the index of a group's rows looks better as long as it
    has not counted them, and would then be read from end to end for each step.
    """
    rows = select(*columns).where(of_tenant(columns[0].table), is_wanted).offset(literal_column("0"))
    return rows.lateral("found")


def _first_living(ids: ColumnElement[Any], limit: ColumnElement[int]) -> Any:
    """The first `limit` of the ids that the group's entities have, as one array; NULL if there are none."""
    given = _elements(ids, "given")
    entity = _looked_up(
        ENTITIES.c.id == given.c.id, ENTITIES.c.id, ENTITIES.c.group_id, ENTITIES.c.deleted_at
    )
    of_its_group = entity.c.group_id == column_param(ENTITIES.c.group_id)
    living_ids = (
        select(entity.c.id).select_from(given).join(entity, true()).where(is_living(entity), of_its_group)
    )
    first = living_ids.distinct().order_by(entity.c.id).limit(limit).subquery("first")
    return select(func.array_agg(first.c.id).label("ids"))


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
