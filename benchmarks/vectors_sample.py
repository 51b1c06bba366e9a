"""Real embeddings in one large tenant and many small ones, with attributes to filter by.

The vectors are embeddings of utterances with 384 dimensions. Files in one folder:
`utterances_base_f16.npy` (stored vectors in random order), `utterances_queries_f16.npy` (queries),
`ground_truth_full_55000.npz` (`scores`: the cosines of the 100 nearest of all rows, best first).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np

from benchmarks.samples import sentence
from soldier_data.base.models import new_id, utcnow
from soldier_data.memory import Episode

Matrix: TypeAlias = Any
"""A numpy array."""

Search: TypeAlias = Callable[[list[float]], Awaitable[list[UUID]]]
"""Searches a tenant for a vector; returns the ids of the episodes, best first."""

BASE = "utterances_base_f16.npy"
K = 10

_TIE = 1e-6
"""Largest difference of equal scores, the precision of float32."""

_NOISE = 0.1
"""Amount of noise that results in a cosine of 0.995."""

_TOPICS, _CUSTOMERS = 20, 1_000
_MODELS = ("model-a", "model-b")
_CHUNK = 5_000
_START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class Vectors:
    """Stored vectors and queries: float32, normalised, one per row."""

    base: Matrix
    queries: Matrix

    @property
    def dimensions(self) -> int:
        return int(self.base.shape[1])

    @classmethod
    def load(cls, folder: Path, *, stored: int, queries: int) -> Vectors:
        base = np.load(folder / BASE)[:stored]
        return cls(_unit(base), _unit(np.load(folder / "utterances_queries_f16.npy")[:queries]))

    def rotated(self, dimensions: int) -> Vectors:
        """Return the same geometry in more dimensions, by appending zeros and a fixed random rotation."""
        square = np.random.default_rng(2026).standard_normal((dimensions, dimensions))
        rotation = np.linalg.qr(square)[0][: self.dimensions].astype(np.float32)
        return Vectors(_unit(self.base @ rotation), _unit(self.queries @ rotation))

    def near(self, rows: slice, seed: int) -> Matrix:
        """Return vectors close to rows of the base but not equal, since equal vectors share an entry of the index."""
        rows_ = self.base[rows]
        noise = _unit(np.random.default_rng(seed).standard_normal(rows_.shape))
        return _unit(rows_ + _NOISE * noise)

    def repeated(self, count: int) -> Matrix:
        """Return `count` vectors: the base, then midpoints of random pairs of it, which are distributed alike."""
        missing = max(0, count - len(self.base))
        pairs = np.random.default_rng(7).integers(len(self.base), size=(missing, 2))
        return np.concatenate([self.base[:count], _unit(self.base[pairs[:, 0]] + self.base[pairs[:, 1]])])


class Tenant:
    """Episodes of one tenant, each with attributes to filter by.

    Attributes:
        id: Id of the tenant.
        episode_ids: Ids of the episodes, in the order of the vectors.
        number_of: Position of an episode in that order, by its id.
        agents: Agents for filters; `customers` likewise.
    """

    def __init__(self, vectors: Matrix) -> None:
        self.id = new_id()
        self._vectors = vectors
        count = len(vectors)
        self.episode_ids = [new_id() for _ in range(count)]
        self.number_of = {id_: number for number, id_ in enumerate(self.episode_ids)}
        self.agents = [new_id() for _ in range(3)]
        self.customers = [new_id() for _ in range(_CUSTOMERS)]
        random = np.random.default_rng(count)
        self._agent = random.choice(3, size=count, p=(0.6, 0.3, 0.1))
        self._customer = random.integers(_CUSTOMERS, size=count)
        self._model = random.choice(2, size=count, p=(0.8, 0.2))
        # Groups are topics, so that for most queries a filter by group matches only distant rows: the hardest case
        # for an index, which finds close rows first.
        self._topic = np.argmax(vectors @ vectors[:_TOPICS].T, axis=1)
        self._recorded_at = utcnow()

    def chunks(self) -> Iterator[list[Episode]]:
        """Yield the episodes, some thousands at a time, since lists of floats take much more memory than arrays."""
        for start in range(0, len(self._vectors), _CHUNK):
            vectors = self._vectors[start : start + _CHUNK].tolist()
            yield [self._episode(start + number, vector) for number, vector in enumerate(vectors)]

    def scores(self, queries: Matrix) -> Matrix:
        """Return the cosine of each query (row) with each episode (column), computed in float64."""
        wanted = queries.astype(np.float64)
        starts = range(0, len(self._vectors), _CHUNK)
        parts = [wanted @ self._vectors[start : start + _CHUNK].astype(np.float64).T for start in starts]
        return np.concatenate(parts, axis=1)

    def filters(self) -> dict[str, tuple[dict[str, Any], Matrix]]:
        """Return by name the arguments of a search, and the matching rows."""
        everything = np.ones(len(self._vectors), dtype=bool)
        late = 9 * len(self._vectors) // 10
        last_tenth = np.arange(len(self._vectors)) >= late
        customer = np.bincount(self._customer).argmax()
        group = {"group_id": self._group(0)}
        return {
            "no filter": ({}, everything),
            "group of one topic": (group, self._topic == 0),
            "agent with 10 %": ({"agent_id": self.agents[2]}, self._agent == 2),
            "customer with 0.1 %": (
                {"customer_profile_id": self.customers[customer]},
                self._customer == customer,
            ),
            "last tenth by time": ({"occurred_after": _at(late)}, last_tenth),
            "model with 20 %": ({"embedding_model": _MODELS[1]}, self._model == 1),
            "group and agent": (
                group | {"agent_id": self.agents[2]},
                (self._topic == 0) & (self._agent == 2),
            ),
            "agent, model, last tenth": (
                {"agent_id": self.agents[1], "embedding_model": _MODELS[0], "occurred_after": _at(late)},
                (self._agent == 1) & (self._model == 0) & last_tenth,
            ),
        }

    def _episode(self, number: int, vector: list[float]) -> Episode:
        return Episode(
            id=self.episode_ids[number],
            tenant_id=self.id,
            group_id=self._group(self._topic[number]),
            agent_id=self.agents[self._agent[number]],
            customer_profile_id=self.customers[self._customer[number]],
            content=sentence(12),
            source="user",
            occurred_at=_at(number),
            recorded_at=self._recorded_at,
            embedding=vector,
            embedding_model=_MODELS[self._model[number]],
        )

    def _group(self, topic: int) -> str:
        return f"topic {topic}"


def check_scores(folder: Path, scores: Matrix) -> None:
    """Check the scores against the file of known neighbours, which covers all rows of the base."""
    known = np.load(folder / "ground_truth_full_55000.npz")["scores"][: len(scores), :K]
    best = -np.partition(-scores, K, axis=1)[:, :K]
    assert np.allclose(np.sort(best, axis=1)[:, ::-1], known, atol=1e-5), (
        "the scores are not those of the file"
    )


def found_share(scores: Matrix, found: list[int], matching: Matrix) -> tuple[float, bool]:
    """Return the recall of one search, and True if it returned as many rows as exist.

    Args:
        scores: True score of each row.
        found: Positions of the rows that the search returned.
        matching: Mask of the rows that match the filter.
    """
    there = scores[matching]
    wanted = min(K, len(there))
    if not wanted:
        return 1.0, not found
    worst = np.partition(there, len(there) - wanted)[len(there) - wanted]
    hits = sum(bool(matching[number]) and scores[number] >= worst - _TIE for number in found)
    return hits / wanted, len(found) == wanted


@dataclass
class Outcome:
    """Times and recall of searches."""

    seconds: list[float]
    recalls: list[float]
    short: int = 0

    @property
    def recall(self) -> float:
        return sum(self.recalls) / len(self.recalls)

    def add(self, other: Outcome) -> None:
        """Add the searches of `other`."""
        self.seconds += other.seconds
        self.recalls += other.recalls
        self.short += other.short


async def try_searches(search: Search, queries: Any, tenant: Tenant, scores: Any, matching: Any) -> Outcome:
    """Run a search for each of `queries`, whose true scores are the rows of `scores`."""
    outcome = Outcome([], [])
    wanted = queries.tolist()
    for query in wanted[:5]:
        await search(query)
    for query, true in zip(wanted, scores, strict=True):
        started = perf_counter()
        found = await search(query)
        outcome.seconds.append(perf_counter() - started)
        recall, complete = found_share(true, [tenant.number_of[id_] for id_ in found], matching)
        outcome.recalls.append(recall)
        outcome.short += not complete
    return outcome


def _unit(vectors: Matrix) -> Matrix:
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _at(number: int) -> datetime:
    return _START + timedelta(seconds=number)
