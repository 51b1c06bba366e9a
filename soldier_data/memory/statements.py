"""The SQL of the memory store, one group a table. The graph and what concerns all tables is in `graph.py`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    Float,
    Integer,
    Select,
    Subquery,
    Table,
    Text,
    and_,
    cast,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.sql.expression import all_

from soldier_data.memory.orm import EntityRow, EpisodeRow, RelationshipRow
from soldier_data.memory.search import FUSION_CONSTANT
from soldier_data.postgres.missing_embeddings import EmbeddedText
from soldier_data.postgres.orm import EmbeddingVector
from soldier_data.postgres.statements import (
    Statement,
    column_param,
    force_custom_plan,
    has_key,
    param,
    table_of,
)
from soldier_data.postgres.vector_search import IndexedSearch, nearest

EPISODES = table_of(EpisodeRow)
ENTITIES = table_of(EntityRow)
RELATIONSHIPS = table_of(RelationshipRow)

LIMIT = param("limit", BigInteger())
QUERY = param("query", EmbeddingVector())

ONE = literal_column("1", Integer)


def of_tenant(table: Any) -> ColumnElement[bool]:
    """The rows of the tenant."""
    condition: ColumnElement[bool] = table.c.tenant_id == column_param(EPISODES.c.tenant_id)
    return condition


def of_group(table: Table) -> ColumnElement[bool]:
    """The living rows of the group, relationships with a dead end included."""
    return and_(of_tenant(table), table.c.group_id == column_param(table.c.group_id), is_living(table))


def is_living(table: Any) -> ColumnElement[bool]:
    """Not deleted."""
    condition: ColumnElement[bool] = table.c.deleted_at.is_(None)
    return condition


def living(table: Table) -> ColumnElement[bool]:
    """The living rows of the tenant, relationships only with both of their entities.

    `delete_entity` is one statement and cannot see a relationship that another transaction commits while it waits
    for the entity's lock; asking for the entities here hides that relationship all the same.
    """
    own = and_(of_tenant(table), is_living(table))
    if table is not RELATIONSHIPS:
        return own
    ends = (
        select(ONE).where(of_tenant(end), end.c.id == column, is_living(end)).exists()
        for end, column in (
            (ENTITIES.alias("from_entity"), RELATIONSHIPS.c.from_entity_id),
            (ENTITIES.alias("to_entity"), RELATIONSHIPS.c.to_entity_id),
        )
    )
    return and_(own, *ends)


def columns_of(table: Table) -> list[ColumnElement[Any]]:
    """The columns that an entity is built from."""
    return [column for column in table.columns if column.name not in ("write_id", "content_folded")]


def _entities(table: Table) -> Select[Any]:
    return select(*columns_of(table)).where(living(table))


def _get(name: str, table: Table) -> Statement:
    return Statement(f"reading the {name}", _entities(table).where(table.c.id == column_param(table.c.id)))


get_episode = _get("episode", EPISODES)
get_entity = _get("entity", ENTITIES)
get_relationship = _get("relationship", RELATIONSHIPS)

embedded_texts = (
    EmbeddedText(
        "episode",
        EPISODES,
        text=EPISODES.c.content,
        embedding=EPISODES.c.embedding,
        model=EPISODES.c.embedding_model,
        in_tenant=living(EPISODES),
        anywhere=is_living(EPISODES),
    ),
)


# -- writing ---------------------------------------------------------------------------------------------------


def or_own_write(table: Table, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """`condition`, or what an unanswered attempt of this very call has written."""
    return or_(condition, table.c.write_id == column_param(table.c.write_id))


def add_unless_taken(table: Table, statement: Insert) -> Any:
    """`statement`, returning no row if the id exists, but for a row of this very call.

    Writing what is there already makes RETURNING report the row that an unanswered attempt inserted.
    """
    write_id = statement.excluded.write_id
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_={"write_id": write_id}, where=table.c.write_id == write_id
    ).returning(table.c.id)


def _add(name: str, table: Table) -> Statement:
    values = {column.name: column_param(column) for column in table.columns}
    return Statement(f"adding the {name}", add_unless_taken(table, insert(table).values(values)))


def content_of(table: Table) -> dict[str, Any]:
    """What an update replaces: every column but the key."""
    return {column.name: column_param(column) for column in table.columns if not column.primary_key}


def mark_deleted(table: Table, where: ColumnElement[bool]) -> Any:
    """An UPDATE that deletes rows as of the parameter `now`."""
    now = param("now", table.c.deleted_at.type)
    return update(table).values(deleted_at=now, write_id=column_param(table.c.write_id)).where(where)


def delete_by_key(table: Table) -> Any:
    """An UPDATE that deletes one row."""
    living_or_own = or_own_write(table, living(table))
    return mark_deleted(table, and_(has_key(table), living_or_own)).returning(table.c.id)


add_episode = _add("episode", EPISODES)
add_entity = _add("entity", ENTITIES)

delete_episode = Statement("deleting the episode", delete_by_key(EPISODES))
delete_relationship = Statement("deleting the relationship", delete_by_key(RELATIONSHIPS))

update_entity = Statement(
    "updating the entity",
    update(ENTITIES)
    .values(content_of(ENTITIES))
    .where(has_key(ENTITIES), or_own_write(ENTITIES, is_living(ENTITIES)))
    .returning(ENTITIES.c.id),
)

own_episode = Statement(
    "adding episodes",
    select(EPISODES.c.id).where(has_key(EPISODES), EPISODES.c.write_id == column_param(EPISODES.c.write_id)),
)


# -- lists -----------------------------------------------------------------------------------------------------


@cache
def get_episodes(*, before: bool) -> Statement:
    """A page of a group's episodes, newest first."""
    statement = _entities(EPISODES).where(EPISODES.c.group_id == column_param(EPISODES.c.group_id))
    if before:
        position = tuple_(
            param("before_at", EPISODES.c.occurred_at.type), param("before_id", EPISODES.c.id.type)
        )
        statement = statement.where(tuple_(EPISODES.c.occurred_at, EPISODES.c.id) < position)
    return Statement("listing the episodes", _newest_first(statement).limit(LIMIT))


def _newest_first(statement: Select[Any]) -> Select[Any]:
    return statement.order_by(EPISODES.c.occurred_at.desc(), EPISODES.c.id.desc())


def _filtered(table: Table, filters: frozenset[str]) -> Select[Any]:
    """The living rows that meet the conditions named in `filters`: columns, or those of `EpisodeFilter`."""
    return select(*columns_of(table)).where(_matching(table, filters))


def _matching(table: Table, filters: Iterable[str]) -> ColumnElement[bool]:
    return and_(living(table), *(_condition(table, name) for name in sorted(filters)))


def _condition(table: Table, name: str) -> ColumnElement[bool]:
    if name == "occurred_after":
        return table.c.occurred_at >= param(name, DateTime(timezone=True))
    if name == "occurred_before":
        return table.c.occurred_at < param(name, DateTime(timezone=True))
    condition: ColumnElement[bool] = table.c[name] == column_param(table.c[name])
    return condition


@cache
def get_entities(filters: frozenset[str]) -> Statement:
    """The first entities that meet the filters."""
    return Statement(
        "listing the entities",
        _filtered(ENTITIES, filters).order_by(ENTITIES.c.recorded_at, ENTITIES.c.id).limit(LIMIT),
    )


@cache
def get_relationships(filters: frozenset[str]) -> Statement:
    """The relationships that meet the filters."""
    return Statement(
        "listing the relationships",
        _filtered(RELATIONSHIPS, filters).order_by(RELATIONSHIPS.c.recorded_at, RELATIONSHIPS.c.id),
    )


# -- searches --------------------------------------------------------------------------------------------------

# Of these columns an index counts rows; the first that is given is likely to leave the fewest.
_COUNTED = ("session_id", "customer_profile_id", "group_id")


def _nearest(
    table: Table, filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool
) -> Subquery:
    # What an index can count: the rows of a session, a customer, a group or the whole tenant, and of a time.
    counted = [name for name in _COUNTED if name in filters and name in table.c][:1]
    times = [name for name in filters if name.startswith("occurred_")]
    scope = _matching(table, counted + times)
    compared = filters | {"embedding_model"} if embedding_model else filters
    return nearest(table.c.embedding, _matching(table, compared), scope, LIMIT, search)


@cache
def vector_search(
    table: Table, filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool
) -> Statement:
    """The episodes or entities nearest to a vector; with `embedding_model`, of those whose vector is by that one."""
    found = _nearest(table, filters, search, embedding_model=embedding_model)
    return Statement(
        f"searching the {table.name}",
        select(*columns_of(table), found.c.distance)
        .join(found, and_(of_tenant(table), table.c.id == found.c.id))
        .where(found.c.distance <= param("max_distance", Float(53)))
        .order_by(found.c.distance, table.c.id),
    )


def _contains_words(*, indexed: bool) -> ColumnElement[bool]:
    """The content contains all words: one by the trigram index, the others are looked for in what that finds."""
    all_words = EPISODES.c.content_folded.like(all_(param("patterns", ARRAY(Text))))
    if not indexed:
        # The index would be read from end to end; PostgreSQL does not use it for LIKE ALL.
        return all_words
    return and_(EPISODES.c.content_folded.like(param("pattern", Text())), all_words, force_custom_plan())


@cache
def text_search_episodes(filters: frozenset[str], *, indexed: bool) -> Statement:
    """The episodes that contain words, newest first."""
    statement = _filtered(EPISODES, filters).where(_contains_words(indexed=indexed))
    return Statement("searching the episodes", _newest_first(statement).limit(LIMIT))


@cache
def hybrid_search_episodes(
    filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool, indexed: bool
) -> Statement:
    """The episodes that rank best by words and vector together; with `embedding_model`, by vectors of that one."""
    columns = select(EPISODES.c.id, EPISODES.c.occurred_at).where(_matching(EPISODES, filters))
    containing = (
        _newest_first(columns.where(_contains_words(indexed=indexed)))
        .limit(param("text_limit", BigInteger()))
        .subquery("containing")
    )
    similar = _nearest(EPISODES, filters, search, embedding_model=embedding_model)
    by_text = _ranked(containing, containing.c.occurred_at.desc(), containing.c.id.desc()).cte("by_text")
    by_vector = _ranked(similar, similar.c.distance, similar.c.id).cte("by_vector")
    score = _fused_score(by_text.c.rank) + _fused_score(by_vector.c.rank)
    fused = (
        select(func.coalesce(by_text.c.id, by_vector.c.id).label("id"), score.label("score"))
        .select_from(by_text.outerjoin(by_vector, by_text.c.id == by_vector.c.id, full=True))
        .order_by(literal_column("score").desc(), literal_column("id"))
        .limit(param("fused_limit", BigInteger()))
        .subquery("fused")
    )
    return Statement(
        "searching the episodes",
        select(*columns_of(EPISODES), fused.c.score)
        .join(fused, EPISODES.c.id == fused.c.id)
        .where(of_tenant(EPISODES))
        .order_by(fused.c.score.desc(), EPISODES.c.id),
    )


def _ranked(found: Any, *order: ColumnElement[Any]) -> Select[Any]:
    return select(found.c.id, func.row_number().over(order_by=order).label("rank"))


def _fused_score(rank: ColumnElement[int]) -> ColumnElement[float]:
    place = cast(literal_column(str(FUSION_CONSTANT), Integer) + rank, Double)
    return func.coalesce(literal_column("1.0::float8", Double) / place, literal_column("0.0::float8", Double))
