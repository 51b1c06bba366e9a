"""The SQL of the memory store that spans several tables: relationships with entities, traversal, groups and purging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ClauseElement,
    Column,
    ColumnElement,
    FromClause,
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

from soldier_data.memory.statements import (
    ENTITIES,
    EPISODES,
    ONE,
    RELATIONSHIPS,
    columns_of,
    content_of,
    delete_by_key,
    of_group,
    readable,
)
from soldier_data.postgres.collecting import Insertion
from soldier_data.postgres.purging import AT_A_TIME, oldest
from soldier_data.postgres.queries import (
    LIMIT,
    equals,
    equals_any,
    has_key,
    is_living,
    living,
    mark_deleted,
    of_tenant,
    or_own_write,
    unless_taken,
)
from soldier_data.postgres.statements import Statement, column_param, param


def _living_ends() -> Any:
    """Select and lock both entities of a relationship: one row, or none if one of them is missing or deleted."""
    from_entity, to_entity = ENTITIES.alias("from_entity"), ENTITIES.alias("to_entity")
    return (
        select(from_entity.c.id)
        .select_from(from_entity.join(to_entity, of_tenant(to_entity)))
        .where(
            living(from_entity),
            from_entity.c.id == column_param(RELATIONSHIPS.c.from_entity_id),
            to_entity.c.id == column_param(RELATIONSHIPS.c.to_entity_id),
            is_living(to_entity),
        )
        .with_for_update(read=True)
        .cte("living_ends")
    )


def _exists(found: Any) -> ColumnElement[bool]:
    return select(found.c.id).exists()


def _add_relationship() -> ClauseElement:
    ends = _living_ends()
    values = select(*(column_param(column) for column in RELATIONSHIPS.columns))
    names = [column.name for column in RELATIONSHIPS.columns]
    added = unless_taken(insert(RELATIONSHIPS).from_select(names, values.where(_exists(ends)))).cte("added")
    return select(_exists(ends).label("ends_live"), _exists(added).label("written"))


def _insert_relationships(rows: FromClause, earlier: Mapping[str, CTE]) -> Any:
    """Insert relationships whose entities exist, or are inserted with them."""
    inserted = earlier.get(str(ENTITIES.name))

    def lives(end: ColumnElement[Any]) -> ColumnElement[bool]:
        stored = (
            select(ENTITIES.c.id)
            .where(ENTITIES.c.tenant_id == rows.c.tenant_id, ENTITIES.c.id == end, is_living(ENTITIES))
            .with_for_update(read=True)
            .exists()
        )
        if inserted is None:
            return stored
        return or_(stored, select(inserted.c.id).where(inserted.c.id == end).exists())

    names = [column.name for column in RELATIONSHIPS.columns]
    found = select(*(rows.c[name] for name in names)).where(
        lives(rows.c.from_entity_id), lives(rows.c.to_entity_id)
    )
    return unless_taken(insert(RELATIONSHIPS).from_select(names, found))


def _update_relationship() -> ClauseElement:
    ends = _living_ends()
    stored = (
        select(RELATIONSHIPS.c.id)
        .where(has_key(RELATIONSHIPS), or_own_write(RELATIONSHIPS, readable(RELATIONSHIPS)))
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
    return select(
        _exists(stored).label("stored"),
        _exists(ends).label("ends_live"),
        _exists(updated).label("written"),
    )


def _delete_entity() -> Select[Any]:
    entity = delete_by_key(ENTITIES).cte("entity")
    id_ = column_param(ENTITIES.c.id)
    of_entity = or_(RELATIONSHIPS.c.from_entity_id == id_, RELATIONSHIPS.c.to_entity_id == id_)
    related = mark_deleted(RELATIONSHIPS, and_(living(RELATIONSHIPS), of_entity, _exists(entity)))
    return select(entity.c.id).add_cte(related.cte("deleted_relationships"))


add_relationship = Statement("adding the relationship", _add_relationship)
insertion = Insertion(RELATIONSHIPS, _insert_relationships)
update_relationship = Statement("updating the relationship", _update_relationship)
delete_entity = Statement("deleting the entity", _delete_entity)


@cache
def traverse(*, relation_types: bool, embeddings: bool) -> Statement:
    """Select the entities around others, with their `distance`, unordered.

    Each row of `level` is one step: the entities that it reaches first, and those of the previous step. Since
    relationships are followed in both directions, every neighbour of a step is in the previous step, in the step
    itself, or new. Excluding the first two is enough to visit each entity once, without carrying all visited entities
    along. The caller sorts the result, because sorting rows with documents and vectors here would use temporary files.
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
        found = _by_index(here == from_.c.id, there, ends.group_id, ends.relation_type, ends.deleted_at)
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
    entity = _by_index(ENTITIES.c.id == reached.c.id, *columns)
    return Statement(
        "traversing the entities",
        select(entity, level.c.distance).select_from(level).join(reached, true()).join(entity, true()),
    )


def _elements(ids: ColumnElement[Any], name: str) -> Any:
    """Select the elements of an array of ids, one per row."""
    return func.unnest(ids).table_valued(column("id", Uuid())).render_derived(name=name)


def _by_index(condition: ColumnElement[bool], *columns: Any) -> Any:
    """A lateral subquery of the tenant's rows that an index finds by one condition.

    OFFSET keeps the planner from merging it with other conditions. Without statistics, PostgreSQL would prefer the
    index of the group's rows, and scan all of it in each step.
    """
    rows = select(*columns).where(of_tenant(columns[0].table), condition).offset(literal_column("0"))
    return rows.lateral("found")


def _first_living(ids: ColumnElement[Any], limit: ColumnElement[int]) -> Any:
    """Select the first `limit` of the ids that belong to entities of the group, as an array; NULL if there are none."""
    given = _elements(ids, "given")
    entity = _by_index(ENTITIES.c.id == given.c.id, ENTITIES.c.id, ENTITIES.c.group_id, ENTITIES.c.deleted_at)
    in_group = entity.c.group_id == column_param(ENTITIES.c.group_id)
    living_ids = (
        select(entity.c.id).select_from(given).join(entity, true()).where(is_living(entity), in_group)
    )
    first = living_ids.distinct().order_by(entity.c.id).limit(limit).subquery("first")
    return select(func.array_agg(first.c.id).label("ids"))


# -- changing many rows ----------------------------------------------------------------------------------------


def _count(found: Any) -> Any:
    return select(func.count()).select_from(found).scalar_subquery()


def _with_related(
    found: Select[Any], entities: Any, condition: Callable[[Any], ColumnElement[bool]]
) -> Select[Any]:
    """Select `found` and the ids of matching relationships of `entities`, at most `ROWS_AT_A_TIME`."""
    ends = RELATIONSHIPS.c
    related = [found]
    for end in (ends.from_entity_id, ends.to_entity_id):
        found_by_end = _by_index(end == entities.c.id, ends.id, ends.deleted_at)
        joined = select(found_by_end.c.id).select_from(entities).join(found_by_end, true())
        related.append(joined.where(condition(found_by_end)))
    limited = [select(ids.limit(AT_A_TIME).subquery()) for ids in related]
    return select(union(*limited).subquery()).limit(AT_A_TIME)


def _in_batches(
    found: Mapping[Table, Select[Any]],
    change: Callable[[Table, ColumnElement[bool]], Any],
    condition: Callable[[Any], ColumnElement[bool]],
    *counted: Any,
) -> Select[Any]:
    """A statement that changes one batch of rows: columns `how_many`, and `more` if there may be further batches.

    Entities are changed after all of their relationships, because foreign keys refer to them.

    Args:
        found: By table, a SELECT of the ids to change, at most `ROWS_AT_A_TIME`.
        change: Returns the UPDATE or DELETE of the rows that meet a condition.
        condition: The condition for changing relationships of the entities found.
        counted: Further rows to include in `how_many`.
    """
    batch = {table: ids.cte(f"batch_of_{table.name}") for table, ids in found.items()}
    related = _with_related(found[RELATIONSHIPS], batch[ENTITIES], condition)
    batch[RELATIONSHIPS] = related.cte("batch_of_relationships")
    is_full = {table: _count(ids) == AT_A_TIME for table, ids in batch.items()}
    changed = []
    for table, ids in batch.items():
        listed = func.array(select(ids.c.id).scalar_subquery(), type_=ARRAY(Uuid))
        where = and_(of_tenant(table), table.c.id == any_(listed), condition(table))
        if table is ENTITIES:
            where = and_(where, ~is_full[RELATIONSHIPS])
        changed.append(change(table, where).returning(table.c.id).cte(f"changed_{table.name}"))
    counts = [_count(rows) for rows in (*changed, *counted)]
    how_many = sum(counts[1:], counts[0])
    return select(how_many.label("how_many"), or_(*is_full.values()).label("more"))


def _delete_by_group() -> Select[Any]:
    """The deletion of a group. The count includes rows deleted by an earlier attempt whose reply was lost."""

    def before(table: Table) -> Any:
        return (
            select(table.c.id)
            .where(
                of_tenant(table),
                table.c.deleted_at == param("now", table.c.deleted_at.type),
                equals(table.c.write_id),
            )
            .subquery(f"{table.name}_before")
        )

    tables = (EPISODES, RELATIONSHIPS, ENTITIES)
    found = {table: select(table.c.id).where(of_group(table)).limit(AT_A_TIME) for table in tables}
    return _in_batches(found, mark_deleted, is_living, *map(before, tables))


delete_by_group = Statement("deleting the group", _delete_by_group)


def _purge() -> Select[Any]:
    tables = (EPISODES, RELATIONSHIPS, ENTITIES)

    def removal(table: Table, where: ColumnElement[bool]) -> Any:
        return delete(table).where(where)

    # Relationships of old entities are removed as well, even if they are not deleted.
    return _in_batches({table: oldest(table) for table in tables}, removal, lambda _: true())


purge_deleted = Statement("purging deleted rows", _purge)

erase_relationships = Statement(
    "erasing what is remembered of the customer",
    lambda: (
        delete(RELATIONSHIPS)
        .where(
            of_tenant(RELATIONSHIPS),
            or_(
                equals_any(RELATIONSHIPS.c.from_entity_id, "entity_ids"),
                equals_any(RELATIONSHIPS.c.to_entity_id, "entity_ids"),
            ),
        )
        .returning(RELATIONSHIPS.c.id)
    ),
)
