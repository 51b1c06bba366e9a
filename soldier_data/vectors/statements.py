"""The SQL of the vector store."""

from __future__ import annotations

from functools import cache

from sqlalchemy import and_, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB

from soldier_data.postgres.adding import AddableTable
from soldier_data.postgres.queries import LIMIT, columns_except, equals, nearest_first, of_tenant
from soldier_data.postgres.statements import Statement, param, table_of
from soldier_data.postgres.vector_search import IndexedSearch, nearest
from soldier_data.vectors.orm import EmbeddingRow

EMBEDDINGS = table_of(EmbeddingRow)

OF_TENANT = of_tenant(EMBEDDINGS)
COLUMNS = columns_except(EMBEDDINGS, "write_id", "searched_metadata")
"""The columns that an `Embedding` is built from."""

embeddings = AddableTable("embedding", "embeddings", EMBEDDINGS)


@cache
def search(
    indexed: IndexedSearch | None, *, source_type: bool, metadata_filter: bool, embedding_model: bool
) -> Statement:
    """The embeddings nearest to the parameter `query`, optionally filtered."""
    matching = scope = OF_TENANT
    if source_type:
        matching = scope = and_(scope, equals(EMBEDDINGS.c.source_type))
    if metadata_filter:
        matching = and_(matching, EMBEDDINGS.c.searched_metadata.contains(param("metadata_filter", JSONB())))
    if embedding_model:
        matching = and_(matching, equals(EMBEDDINGS.c.embedding_model))
    found = nearest(EMBEDDINGS.c.embedding, matching, scope, LIMIT, indexed)
    return Statement("searching the embeddings", nearest_first(COLUMNS, found))


_deleted = (
    delete(EMBEDDINGS)
    .where(OF_TENANT, equals(EMBEDDINGS.c.source_id))
    .returning(EMBEDDINGS.c.id)
    .cte("deleted")
)

delete_by_source = Statement(
    "deleting the embeddings of the source", select(func.count().label("how_many")).select_from(_deleted)
)
