"""The semantics of searches: filters, words, fusion of rankings, and graph traversal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.values import check_text
from soldier_data.memory.models import Episode

FUSION_CONSTANT = 60
"""The k of reciprocal rank fusion, as in Cormack, Clarke and Büttcher (SIGIR 2009). It keeps the first ranks of one
ranking from outweighing the whole of the other.
"""

_FEWEST_CANDIDATES = 100

# pg_trgm makes trigrams of letters and digits only.
_INDEXED = re.compile(r"[^\W_]{3}")

_LITERALLY = str.maketrans({character: f"\\{character}" for character in "\\%_"})


def passes(episode: Episode, conditions: Mapping[str, Any]) -> bool:
    """Return True if an episode meets the conditions of an `EpisodeFilter`, none of which is None."""
    after, before = conditions.get("occurred_after"), conditions.get("occurred_before")
    if (after is not None and episode.occurred_at < after) or (
        before is not None and episode.occurred_at >= before
    ):
        return False
    names = conditions.keys() - {"occurred_after", "occurred_before"}
    return all(getattr(episode, name) == conditions[name] for name in names)


def fold(text: str) -> str:
    """Fold the case of a text, by Unicode's rules for caseless matching.

    The database does not do this, because its result would depend on the locale that it was created with.
    """
    return text.casefold()


def words_of(query: str) -> list[str]:
    """Return the folded words of a query, without duplicates.

    Raises:
        ValidationError: The query contains NUL or an unpaired surrogate.
    """
    check_text(query, "query")
    return list(dict.fromkeys(fold(query).split()))


def containing(episodes: Iterable[Episode], query: str) -> list[Episode]:
    """Return the episodes that contain every word of the query, newest first."""
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
    """The number of episodes of each ranking to fuse, for a given limit of the result."""
    return max(limit, _FEWEST_CANDIDATES)


def fuse(rankings: Iterable[Sequence[Episode]], limit: int) -> list[tuple[Episode, float]]:
    """Return the first `limit` episodes by reciprocal rank fusion, with their scores."""
    fused: dict[UUID, tuple[Episode, float]] = {}
    for ranking in rankings:
        for rank, episode in enumerate(ranking[: candidates(limit)], start=1):
            _, score = fused.get(episode.id, (episode, 0.0))
            fused[episode.id] = (episode, score + 1.0 / (FUSION_CONSTANT + rank))
    return sorted(fused.values(), key=lambda item: (-item[1], item[0].id))[:limit]


def walk(
    starts: set[UUID], edges: Iterable[tuple[UUID, UUID]], nodes: set[UUID], depth: int, limit: int
) -> list[UUID]:
    """Return the first `limit` nodes within `depth` edges of the starts, by distance and id."""
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
    """The parameters of a text search: LIKE patterns, with one for the trigram index apart from the others."""
    indexed = max((word for word in words if _INDEXED.search(word)), key=len, default=None)
    patterns: dict[str, Any] = {"patterns": [_pattern(word) for word in words if word != indexed]}
    if indexed is not None:
        patterns |= {"pattern": _pattern(indexed), "force_custom_plan": True}
    return patterns


def _pattern(word: str) -> str:
    return f"%{word.translate(_LITERALLY)}%"
