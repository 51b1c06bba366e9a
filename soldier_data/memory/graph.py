"""The SQL of the memory store where tables meet: relationships with their ends, traversal, groups, purging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
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
from soldier_data.postgres.purging import AT_A_TIME, oldest
from soldier_data.postgres.queries import (
    LIMIT,
    equals,
    is_living,
    living,
    mark_deleted,
    of_tenant,
    or_own_write,
    unless_taken,
)
from soldier_data.postgres.statements import Statement, column_param, has_key, param


def _living_ends() -> Any:
    """One row if both entities of a relationship live. They stay so until the transaction ends."""
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


def _add_relationship() -> Statement:
    ends = _living_ends()
    values = select(*(column_param(column) for column in RELATIONSHIPS.columns))
    names = [column.name for column in RELATIONSHIPS.columns]
    added = unless_taken(insert(RELATIONSHIPS).from_select(names, values.where(_exists(ends)))).cte("added")
    return Statement(
        "adding the relationship", select(_exists(ends).label("ends_live"), _exists(added).label("written"))
    )


def _update_relationship() -> Statement:
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
    its = mark_deleted(RELATIONSHIPS, and_(living(RELATIONSHIPS), leads_to_it, _exists(entity)))
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


# -- many rows at once -----------------------------------------------------------------------------------------


def _count(found: Any) -> Any:
    return select(func.count()).select_from(found).scalar_subquery()


def _with_related(
    found: Select[Any], entities: Any, condition: Callable[[Any], ColumnElement[bool]]
) -> Select[Any]:
    """The ids `found`, and those of the relationships of `entities` that meet a condition, `ROWS_AT_A_TIME` at most."""
    ends = RELATIONSHIPS.c
    related = [found]
    for end in (ends.from_entity_id, ends.to_entity_id):
        its = _looked_up(end == entities.c.id, ends.id, ends.deleted_at)
        related.append(select(its.c.id).select_from(entities).join(its, true()).where(condition(its)))
    parts = [select(part.limit(AT_A_TIME).subquery()) for part in related]
    return select(union(*parts).subquery()).limit(AT_A_TIME)


def _part_by_part(
    operation: str,
    found: Mapping[Table, Select[Any]],
    change: Callable[[Table, ColumnElement[bool]], Any],
    condition: Callable[[Any], ColumnElement[bool]],
    *counted: Any,
) -> Statement:
    """Changes a part of the rows that there are: column `how_many`, and `more` if some may be left.

    Entities wait until no relationship of theirs is left behind, to which a foreign key binds them.

    Args:
        operation: What the statement does.
        found: The ids of the rows to change, `ROWS_AT_A_TIME` of each table at most.
        change: The UPDATE or DELETE of the rows that meet a condition.
        condition: Which of the relationships of the entities found are changed with these.
        counted: What counts beside the changed rows.
    """
    part = {table: ids.cte(f"part_of_{table.name}") for table, ids in found.items()}
    related = _with_related(found[RELATIONSHIPS], part[ENTITIES], condition)
    part[RELATIONSHIPS] = related.cte("part_of_relationships")
    is_full = {table: _count(ids) == AT_A_TIME for table, ids in part.items()}
    changed = []
    for table, ids in part.items():
        listed = func.array(select(ids.c.id).scalar_subquery(), type_=ARRAY(Uuid))
        where = and_(of_tenant(table), table.c.id == any_(listed), condition(table))
        if table is ENTITIES:
            where = and_(where, ~is_full[RELATIONSHIPS])
        changed.append(change(table, where).returning(table.c.id).cte(f"changed_{table.name}"))
    counts = [_count(rows) for rows in (*changed, *counted)]
    how_many = sum(counts[1:], counts[0])
    return Statement(operation, select(how_many.label("how_many"), or_(*is_full.values()).label("more")))


def _delete_by_group() -> Statement:
    """Deletes, and counts what is gone: also what an unanswered attempt of this very call had deleted."""

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
    return _part_by_part("deleting the group", found, mark_deleted, is_living, *map(before, tables))


delete_by_group = _delete_by_group()


def _purge() -> Statement:
    tables = (EPISODES, RELATIONSHIPS, ENTITIES)

    def removal(table: Table, where: ColumnElement[bool]) -> Any:
        return delete(table).where(where)

    # What is related to an old entity goes with it, old or not.
    return _part_by_part(
        "purging deleted rows", {table: oldest(table) for table in tables}, removal, lambda _: true()
    )


purge_deleted = _purge()
