"""The rules that say which embeddings are a person's."""

from __future__ import annotations

from uuid import UUID

from soldier_data.base.subject_rules import Mentions, SubjectSearch

_SOURCES_AT_ONCE = 5_000


async def find(search: SubjectSearch) -> dict[str, list[UUID]]:
    """The ids of embeddings made from the person's records, or whose metadata mention the person."""
    mentioning = await search.ids("embeddings", Mentions("metadata"))
    sources = search.subject.sources
    made = await search.look_up("embeddings", "source_id", sources, at_once=_SOURCES_AT_ONCE)
    return {"embeddings": sorted({*mentioning, *made})}
