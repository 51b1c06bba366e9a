"""The SQL of the memory store, one group for each table. `graph.py` has the SQL that spans several tables."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
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
from soldier_data.postgres.adding import AddableTable
from soldier_data.postgres.missing_embeddings import EmbeddedText
from soldier_data.postgres.queries import (
    LIMIT,
    columns_except,
    equals,
    force_custom_plan,
    has_key,
    is_living,
    living,
    mark_deleted,
    nearest_first,
    newest_first,
    of_tenant,
    or_own_write,
)
from soldier_data.postgres.statements import Statement, column_param, param, table_of
from soldier_data.postgres.vector_search import IndexedSearch, nearest

EPISODES = table_of(EpisodeRow)
ENTITIES = table_of(EntityRow)
RELATIONSHIPS = table_of(RelationshipRow)

_OCCURRED_AT = EPISODES.c.occurred_at

ONE = literal_column("1", Integer)


def of_group(table: Table) -> ColumnElement[bool]:
    """The condition for living rows of the group. Entities of a relationship may be deleted."""
    return and_(living(table), equals(table.c.group_id))


def readable(table: Table) -> ColumnElement[bool]:
    """The condition for rows that reads return: they are not deleted, and neither are the entities of a relationship.

    `delete_entity` is a single statement. It does not see a relationship that another transaction commits while it
    waits for the lock of the entity, and leaves it undeleted. The condition on the entities hides that relationship.
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
    """The columns that an item is built from."""
    return columns_except(table, "write_id", "content_folded")


def _filtered(table: Table, filters: Iterable[str]) -> Select[Any]:
    """Readable rows that pass filters, named as columns or as keys of `EpisodeFilter`."""
    return select(*columns_of(table)).where(_matching(table, filters))


def _matching(table: Table, filters: Iterable[str]) -> ColumnElement[bool]:
    return and_(readable(table), *(_condition(table, name) for name in sorted(filters)))


def _condition(table: Table, name: str) -> ColumnElement[bool]:
    if name == "occurred_after":
        return table.c.occurred_at >= param(name, DateTime(timezone=True))
    if name == "occurred_before":
        return table.c.occurred_at < param(name, DateTime(timezone=True))
    return equals(table.c[name])


def _get(name: str, table: Table) -> Statement:
    return Statement(f"reading the {name}", lambda: _filtered(table, ["id"]))


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
    """The values of an update: all columns except the primary key."""
    return {column.name: column_param(column) for column in table.columns if not column.primary_key}


def delete_by_key(table: Table) -> Any:
    """An UPDATE that soft-deletes one row."""
    living_or_own = or_own_write(table, readable(table))
    return mark_deleted(table, and_(has_key(table), living_or_own)).returning(table.c.id)


episodes = AddableTable("episode", "episodes", EPISODES)
entities = AddableTable("entity", "entities", ENTITIES)

delete_episode = Statement("deleting the episode", partial(delete_by_key, EPISODES))
delete_relationship = Statement("deleting the relationship", partial(delete_by_key, RELATIONSHIPS))

update_entity = Statement(
    "updating the entity",
    lambda: (
        update(ENTITIES)
        .values(content_of(ENTITIES))
        .where(has_key(ENTITIES), or_own_write(ENTITIES, is_living(ENTITIES)))
        .returning(ENTITIES.c.id)
    ),
)


# -- lists -----------------------------------------------------------------------------------------------------


@cache
def get_episodes(*, before: bool) -> Statement:
    """One page of a group's episodes, newest first."""
    page = newest_first(_filtered(EPISODES, ["group_id"]), _OCCURRED_AT, before=before)
    return Statement("listing the episodes", page.limit(LIMIT))


@cache
def get_entities(filters: frozenset[str]) -> Statement:
    """The first entities that pass the filters."""
    return Statement(
        "listing the entities",
        _filtered(ENTITIES, filters).order_by(ENTITIES.c.recorded_at, ENTITIES.c.id).limit(LIMIT),
    )


@cache
def get_relationships(filters: frozenset[str]) -> Statement:
    """The relationships that pass the filters."""
    return Statement(
        "listing the relationships",
        _filtered(RELATIONSHIPS, filters).order_by(RELATIONSHIPS.c.recorded_at, RELATIONSHIPS.c.id),
    )


# -- searches --------------------------------------------------------------------------------------------------

# Columns whose rows an index can count, probably the most selective first.
_COUNTED = ("session_id", "customer_profile_id", "group_id")


def _nearest(
    table: Table, filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool
) -> Subquery:
    # An index can count the rows of a session, customer, group or tenant in a period of time.
    counted = [name for name in _COUNTED if name in filters and name in table.c][:1]
    times = [name for name in filters if name.startswith("occurred_")]
    scope = _matching(table, counted + times)
    compared = filters | {"embedding_model"} if embedding_model else filters
    return nearest(table.c.embedding, _matching(table, compared), scope, LIMIT, search)


@cache
def vector_search(
    table: Table, filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool
) -> Statement:
    """The episodes or entities nearest to the parameter `query`, optionally of one embedding model."""
    found = _nearest(table, filters, search, embedding_model=embedding_model)
    return Statement(f"searching the {table.name}", nearest_first(columns_of(table), found))


def _contains_words(*, indexed: bool) -> ColumnElement[bool]:
    """The condition for content with all words. The trigram index finds one of them; the rest is checked afterwards."""
    all_words = EPISODES.c.content_folded.like(all_(param("patterns", ARRAY(Text))))
    if not indexed:
        # The index would be scanned completely; PostgreSQL does not use it for LIKE ALL.
        return all_words
    return and_(EPISODES.c.content_folded.like(param("pattern", Text())), all_words, force_custom_plan())


@cache
def text_search_episodes(filters: frozenset[str], *, indexed: bool) -> Statement:
    """The episodes that contain all words, newest first."""
    statement = _filtered(EPISODES, filters).where(_contains_words(indexed=indexed))
    return Statement("searching the episodes", newest_first(statement, _OCCURRED_AT).limit(LIMIT))


@cache
def hybrid_search_episodes(
    filters: frozenset[str], search: IndexedSearch | None, *, embedding_model: bool, indexed: bool
) -> Statement:
    """The episodes that rank best in text search and vector search combined, optionally of one embedding model."""
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
