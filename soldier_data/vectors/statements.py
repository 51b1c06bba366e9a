"""The SQL of the vector store."""

from __future__ import annotations

from functools import cache

from sqlalchemy import BigInteger, ColumnElement, Float, and_, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from soldier_data.base.orm import EmbeddingVector
from soldier_data.base.statements import Statement, column_param, has_key, param, table_of
from soldier_data.vectors.orm import EmbeddingRow

EMBEDDINGS = table_of(EmbeddingRow)

OF_TENANT = EMBEDDINGS.c.tenant_id == column_param(EMBEDDINGS.c.tenant_id)
COLUMNS = [column for column in EMBEDDINGS.columns if column.name not in ("write_id", "searched_metadata")]
"""The columns that an embedding is built from."""

_OWN_WRITE = EMBEDDINGS.c.write_id == column_param(EMBEDDINGS.c.write_id)


def _add() -> Statement:
    statement = insert(EMBEDDINGS).values(
        {column.name: column_param(column) for column in EMBEDDINGS.columns}
    )
    write_id = statement.excluded.write_id
    # Writing what is there already makes RETURNING report the row that an unanswered attempt of this very call
    # inserted.
    adding = statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"],
        set_={"write_id": write_id},
        where=EMBEDDINGS.c.write_id == write_id,
    ).returning(EMBEDDINGS.c.id)
    return Statement("adding the embedding", adding)


add_embedding = _add()

own_embedding = Statement("adding embeddings", select(EMBEDDINGS.c.id).where(has_key(EMBEDDINGS), _OWN_WRITE))


@cache
def search(*, source_type: bool, metadata_filter: bool) -> Statement:
    """The embeddings nearest to a vector, optionally only some."""
    query = param("query", EmbeddingVector())
    distance: ColumnElement[float] = EMBEDDINGS.c.embedding.cosine_distance(query).label("distance")
    # Only ids are sorted, and the few rows that are wanted are read afterwards.
    statement = select(EMBEDDINGS.c.id, distance).where(OF_TENANT)
    if source_type:
        statement = statement.where(EMBEDDINGS.c.source_type == column_param(EMBEDDINGS.c.source_type))
    if metadata_filter:
        wanted = param("metadata_filter", JSONB())
        statement = statement.where(EMBEDDINGS.c.searched_metadata.contains(wanted))
    # The score is checked outside: there the distance is a column, not computed a second time.
    nearest = (
        statement.order_by(distance, EMBEDDINGS.c.id).limit(param("limit", BigInteger())).subquery("nearest")
    )
    return Statement(
        "searching the embeddings",
        select(*COLUMNS, nearest.c.distance)
        .join(nearest, and_(OF_TENANT, EMBEDDINGS.c.id == nearest.c.id))
        .where(nearest.c.distance <= param("max_distance", Float(53)))
        .order_by(nearest.c.distance, EMBEDDINGS.c.id),
    )


_deleted = (
    delete(EMBEDDINGS)
    .where(OF_TENANT, EMBEDDINGS.c.source_id == column_param(EMBEDDINGS.c.source_id))
    .returning(EMBEDDINGS.c.id)
    .cte("deleted")
)

delete_by_source = Statement(
    "deleting the embeddings of the source", select(func.count().label("how_many")).select_from(_deleted)
)
