"""The SQL of the memory store, one group a table. The graph and what concerns all tables is in `graph.py`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Select,
    Subquery,
    Table,
    Text,
    and_,
    cast,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.expression import all_

from soldier_data.memory.orm import EntityRow, EpisodeRow, RelationshipRow
from soldier_data.memory.search import FUSION_CONSTANT
from soldier_data.postgres.adding import AddedTable
from soldier_data.postgres.missing_embeddings import EmbeddedText
from soldier_data.postgres.orm import EmbeddingVector
from soldier_data.postgres.queries import (
    LIMIT,
    columns_except,
    equals,
    is_living,
    living,
    mark_deleted,
    nearest_first,
    newest_first,
    of_tenant,
    or_own_write,
)
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

_OCCURRED_AT = EPISODES.c.occurred_at

QUERY = param("query", EmbeddingVector())

ONE = literal_column("1", Integer)


def of_group(table: Table) -> ColumnElement[bool]:
    """The living rows of the group, relationships with a dead end included."""
    return and_(living(table), equals(table.c.group_id))


def readable(table: Table) -> ColumnElement[bool]:
    """The living rows of the tenant, relationships only with both of their entities.

    `delete_entity` is one statement and cannot see a relationship that another transaction commits while it waits
    for the entity's lock; asking for the entities here hides that relationship all the same.
    """
    if table is not RELATIONSHIPS:
        return living(table)
    ends = (
        select(ONE).where(living(end), end.c.id == column).exists()
        for end, column in (
            (ENTITIES.alias("from_entity"), RELATIONSHIPS.c.from_entity_id),
            (ENTITIES.alias("to_entity"), RELATIONSHIPS.c.to_entity_id),
        )
    )
    return and_(living(table), *ends)


def columns_of(table: Table) -> list[Column[Any]]:
    """The columns that an entity is built from."""
    return columns_except(table, "write_id", "content_folded")


def _entities(table: Table) -> Select[Any]:
    return select(*columns_of(table)).where(readable(table))


def _get(name: str, table: Table) -> Statement:
    return Statement(f"reading the {name}", _entities(table).where(equals(table.c.id)))


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
        in_tenant=readable(EPISODES),
        anywhere=is_living(EPISODES),
    ),
)


# -- writing ---------------------------------------------------------------------------------------------------


def content_of(table: Table) -> dict[str, Any]:
    """What an update replaces: every column but the key."""
    return {column.name: column_param(column) for column in table.columns if not column.primary_key}


def delete_by_key(table: Table) -> Any:
    """An UPDATE that deletes one row."""
    living_or_own = or_own_write(table, readable(table))
    return mark_deleted(table, and_(has_key(table), living_or_own)).returning(table.c.id)


episodes = AddedTable("episode", "episodes", EPISODES)
entities = AddedTable("entity", "entities", ENTITIES)

delete_episode = Statement("deleting the episode", delete_by_key(EPISODES))
delete_relationship = Statement("deleting the relationship", delete_by_key(RELATIONSHIPS))

update_entity = Statement(
    "updating the entity",
    update(ENTITIES)
    .values(content_of(ENTITIES))
    .where(has_key(ENTITIES), or_own_write(ENTITIES, is_living(ENTITIES)))
    .returning(ENTITIES.c.id),
)


# -- lists -----------------------------------------------------------------------------------------------------


@cache
def get_episodes(*, before: bool) -> Statement:
    """A page of a group's episodes, newest first."""
    statement = _entities(EPISODES).where(equals(EPISODES.c.group_id))
    return Statement(
        "listing the episodes", newest_first(statement, _OCCURRED_AT, before=before).limit(LIMIT)
    )


def _filtered(table: Table, filters: frozenset[str]) -> Select[Any]:
    """The living rows that meet the conditions named in `filters`: columns, or those of `EpisodeFilter`."""
    return select(*columns_of(table)).where(_matching(table, filters))


def _matching(table: Table, filters: Iterable[str]) -> ColumnElement[bool]:
    return and_(readable(table), *(_condition(table, name) for name in sorted(filters)))


def _condition(table: Table, name: str) -> ColumnElement[bool]:
    if name == "occurred_after":
        return table.c.occurred_at >= param(name, DateTime(timezone=True))
    if name == "occurred_before":
        return table.c.occurred_at < param(name, DateTime(timezone=True))
    return equals(table.c[name])


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
    return Statement(f"searching the {table.name}", nearest_first(columns_of(table), found))


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
    return Statement("searching the episodes", newest_first(statement, _OCCURRED_AT).limit(LIMIT))


@cache
def hybrid_search_episodes(
    filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool, indexed: bool
) -> Statement:
    """The episodes that rank best by words and vector together; with `embedding_model`, by vectors of that one."""
    columns = select(EPISODES.c.id, EPISODES.c.occurred_at).where(_matching(EPISODES, filters))
    containing = (
        newest_first(columns.where(_contains_words(indexed=indexed)), _OCCURRED_AT)
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
