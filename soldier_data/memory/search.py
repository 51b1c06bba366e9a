"""What a search means: filters, words, rankings and their fusion, and the way through a graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from soldier_data.base.values import check_text
from soldier_data.memory.checks import check_filters
from soldier_data.memory.models import Episode

FUSION_CONSTANT = 60
"""The k of reciprocal-rank fusion, as in Cormack, Clarke and Büttcher (SIGIR 2009): it keeps the first few places
of one ranking from outweighing everything in the other."""

_FEWEST_CANDIDATES = 100

# What pg_trgm makes a trigram of.
_INDEXED = re.compile(r"[^\W_]{3}")

_LITERALLY = str.maketrans({character: f"\\{character}" for character in "\\%_"})


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """Which episodes a search looks at. None means any."""

    group_id: str | None
    agent_id: UUID | None
    customer_profile_id: UUID | None
    session_id: UUID | None
    content_type: str | None
    occurred_after: datetime | None
    occurred_before: datetime | None

    def checked(self) -> dict[str, Any]:
        """The conditions that are set, by name.

        Raises:
            ValidationError: A text or a moment is none that could be stored. Names the parameter.
        """
        return check_filters(**{field.name: getattr(self, field.name) for field in fields(self)})

    def matches(self, episode: Episode) -> bool:
        """Whether the search looks at `episode`."""
        return (
            self.group_id in (None, episode.group_id)
            and self.agent_id in (None, episode.agent_id)
            and self.customer_profile_id in (None, episode.customer_profile_id)
            and self.session_id in (None, episode.session_id)
            and self.content_type in (None, episode.content_type)
            and (self.occurred_after is None or episode.occurred_at >= self.occurred_after)
            and (self.occurred_before is None or episode.occurred_at < self.occurred_before)
        )


def fold(text: str) -> str:
    """`text` without the difference between upper and lower case, by Unicode's rules for caseless matching.

    Done here and not by the database, whose answer depends on the locale that it was created with.
    """
    return text.casefold()


def words_of(query: str) -> list[str]:
    """The words that an episode must contain: what stands between white space, folded, each once.

    Raises:
        ValidationError: `query` holds NUL or half of a surrogate pair.
    """
    check_text(query, "query")
    return list(dict.fromkeys(fold(query).split()))


def containing(episodes: Iterable[Episode], query: str) -> list[Episode]:
    """The episodes that contain every word of `query`, newest first."""
    words = words_of(query)
    if not words:
        return []
    found = []
    for episode in episodes:
        content = fold(episode.content)
        if all(word in content for word in words):
            found.append(episode)
    return sorted(found, key=Episode.position, reverse=True)


def candidates(limit: int) -> int:
    """How many episodes of each ranking are fused when `limit` are wanted."""
    return max(limit, _FEWEST_CANDIDATES)


def fuse(rankings: Iterable[Sequence[Episode]], limit: int) -> list[tuple[Episode, float]]:
    """The episodes that rank best in all rankings together, by reciprocal-rank fusion."""
    fused: dict[UUID, tuple[Episode, float]] = {}
    for ranking in rankings:
        for rank, episode in enumerate(ranking[: candidates(limit)], start=1):
            _, score = fused.get(episode.id, (episode, 0.0))
            fused[episode.id] = (episode, score + 1.0 / (FUSION_CONSTANT + rank))
    return sorted(fused.values(), key=lambda item: (-item[1], item[0].id))[:limit]


def walk(
    starts: set[UUID], edges: Iterable[tuple[UUID, UUID]], nodes: set[UUID], depth: int, limit: int
) -> list[UUID]:
    """The first `limit` nodes that up to `depth` edges lead to, breadth first, inside a distance by id."""
    near: dict[UUID, set[UUID]] = {node: set() for node in nodes}
    for from_, to in edges:
        if from_ in nodes and to in nodes:
            near[from_].add(to)
            near[to].add(from_)
    frontier = starts & nodes if depth >= 1 else set()
    reached = dict.fromkeys(sorted(frontier))
    while frontier and depth >= 1 and len(reached) < limit:
        frontier = {to for node in frontier for to in near[node]} - reached.keys()
        reached |= dict.fromkeys(sorted(frontier))
        depth -= 1
    return list(reached)[:limit]


def patterns_of(words: list[str]) -> dict[str, Any]:
    """The words as the parameters of a text search: one that the trigram index can find apart from the others."""
    indexed = max((word for word in words if _INDEXED.search(word)), key=len, default=None)
    patterns: dict[str, Any] = {"patterns": [_pattern(word) for word in words if word != indexed]}
    if indexed is not None:
        patterns |= {"pattern": _pattern(indexed), "force_custom_plan": True}
    return patterns


def _pattern(word: str) -> str:
    return f"%{word.translate(_LITERALLY)}%"
