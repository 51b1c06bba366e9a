"""The SQL that finds, reads and removes the embeddings of a person."""

from __future__ import annotations

from sqlalchemy import and_, delete, or_, select

from soldier_data.base.statements import Statement, is_one_of, mentions
from soldier_data.vectors.statements import COLUMNS, EMBEDDINGS, OF_TENANT

_THEIRS = and_(OF_TENANT, or_(is_one_of(EMBEDDINGS.c.source_id, "sources"), mentions(EMBEDDINGS.c.metadata)))

read = Statement(
    "reading the customer's embeddings", select(*COLUMNS).where(_THEIRS).order_by(EMBEDDINGS.c.id)
)

erase = Statement(
    "erasing the customer's embeddings", delete(EMBEDDINGS).where(_THEIRS).returning(EMBEDDINGS.c.id)
)
