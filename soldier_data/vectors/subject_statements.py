"""The SQL that finds, reads and removes the embeddings of a person."""

from __future__ import annotations

from sqlalchemy import and_, delete, select

from soldier_data.postgres.statements import Statement, equals_any
from soldier_data.postgres.subject_scan import Scan, mentions_subject
from soldier_data.vectors.statements import COLUMNS, EMBEDDINGS, OF_TENANT

_FINDING = "looking for the customer's embeddings"

find_by_source = Statement(
    _FINDING, select(EMBEDDINGS.c.id).where(OF_TENANT, equals_any(EMBEDDINGS.c.source_id, "sources"))
)
find_mentions = Scan(_FINDING, EMBEDDINGS, mentions_subject(EMBEDDINGS.c.metadata), EMBEDDINGS.c.id)

_LISTED = and_(OF_TENANT, equals_any(EMBEDDINGS.c.id, "ids"))


def _read(*, with_embeddings: bool) -> Statement:
    columns = [column for column in COLUMNS if with_embeddings or column is not EMBEDDINGS.c.embedding]
    return Statement(
        "reading the customer's embeddings", select(*columns).where(_LISTED).order_by(EMBEDDINGS.c.id)
    )


read = {with_embeddings: _read(with_embeddings=with_embeddings) for with_embeddings in (True, False)}

# In the order of ids, so that two erasures never wait for each other.
lock = Statement(
    "erasing the customer's embeddings",
    select(EMBEDDINGS.c.id).where(_LISTED).order_by(EMBEDDINGS.c.id).with_for_update(),
)
erase = Statement("erasing the customer's embeddings", delete(EMBEDDINGS).where(_LISTED))
