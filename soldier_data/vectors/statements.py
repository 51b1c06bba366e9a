"""The SQL of the vector store."""

from __future__ import annotations

from functools import cache

from sqlalchemy import BigInteger, Float, and_, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from soldier_data.postgres.statements import Statement, column_param, has_key, param, table_of
from soldier_data.postgres.vector_search import IndexedSearch, nearest
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
def search(
    indexed: IndexedSearch | None, *, source_type: bool, metadata_filter: bool, embedding_model: bool
) -> Statement:
    """The embeddings nearest to a vector, optionally only some."""
    matching = scope = OF_TENANT
    if source_type:
        matching = scope = and_(scope, EMBEDDINGS.c.source_type == column_param(EMBEDDINGS.c.source_type))
    if metadata_filter:
        matching = and_(matching, EMBEDDINGS.c.searched_metadata.contains(param("metadata_filter", JSONB())))
    if embedding_model:
        model = EMBEDDINGS.c.embedding_model
        matching = and_(matching, model == column_param(model))
    found = nearest(EMBEDDINGS.c.embedding, matching, scope, param("limit", BigInteger()), indexed)
    return Statement(
        "searching the embeddings",
        select(*COLUMNS, found.c.distance)
        .join(found, and_(OF_TENANT, EMBEDDINGS.c.id == found.c.id))
        .where(found.c.distance <= param("max_distance", Float(53)))
        .order_by(found.c.distance, EMBEDDINGS.c.id),
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
