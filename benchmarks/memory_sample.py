"""The operations of the memory store, and the stored data for them."""

from __future__ import annotations

from datetime import timedelta
from itertools import cycle

from benchmarks import samples
from benchmarks.harness import Case
from soldier_data import DataLayer
from soldier_data.base.models import new_id, utcnow
from soldier_data.memory import Entity, Episode, Relationship

GET_EPISODE = "get episode with embedding"
GET_EPISODES = "list 20 episodes of a group with embeddings"
ADD_EPISODE = "add episode with embedding"
VECTOR_SEARCH = "vector search of episodes, exact"
SEARCH_RARE_WORD = "text search of episodes, a rare word"
SEARCH_COMMON_WORD = "text search of episodes, a common word"
HYBRID_SEARCH = "hybrid search of episodes"
TRAVERSE = "traverse, 2 deep"

RARE, COMMON = "zeppelin", "customer"
GROUP = "graph"
LISTED = 20
FOUND = 10

_EPISODES_A_GROUP = 100
_ENTITIES, _NEIGHBOURS = 2_000, 3


class Sample:
    """Stored data for the measurements."""

    def __init__(self, dimensions: int, *, searched: int) -> None:
        self.dimensions = dimensions
        self.tenant_id = new_id()
        self.start = utcnow()
        self.episodes = [
            self._episode(number, vector) for number, vector in enumerate(self.vectors(searched))
        ]
        self.new_vectors = self.vectors(100)
        self.queries = self.vectors(100)
        self.entities = [
            Entity(tenant_id=self.tenant_id, group_id=GROUP, name=f"Person {number}", entity_type="person")
            for number in range(_ENTITIES)
        ]
        self.relationships = [
            Relationship(
                tenant_id=self.tenant_id,
                group_id=GROUP,
                from_entity_id=entity.id,
                # At various distances, the same in every run.
                to_entity_id=self.entities[(number * 7 + step * step * 31 + 1) % _ENTITIES].id,
                relation_type="knows",
            )
            for number, entity in enumerate(self.entities)
            for step in range(_NEIGHBOURS)
        ]

    async def store(self, data: DataLayer) -> None:
        await data.memory.add_episodes(self.episodes)
        async with data.unit_of_work() as uow:
            for entity in self.entities:
                await uow.memory.add_entity(entity)
            for relationship in self.relationships:
                await uow.memory.add_relationship(relationship)

    def vectors(self, count: int) -> list[list[float]]:
        return samples.embeddings(count, self.dimensions)

    def new_episodes(self, vectors: list[list[float]]) -> list[Episode]:
        """Return episodes of a separate tenant."""
        tenant_id = new_id()
        return [
            self._episode(number, vector).model_copy(update={"tenant_id": tenant_id})
            for number, vector in enumerate(vectors)
        ]

    def ours(self, data: DataLayer) -> dict[str, Case]:
        """Return the operations with the store."""
        store, tenant_id = data.memory, self.tenant_id
        read, listed, starts = cycle(self.episodes[:100]), cycle(self.groups()), cycle(self.entities[:100])
        near, nearby, new = cycle(self.queries), cycle(self.queries), cycle(self.vectors(100))
        written: list[Episode] = []

        async def make_episode() -> None:
            written[:] = self.new_episodes([next(new)])

        return {
            GET_EPISODE: Case(lambda: store.get_episode(tenant_id, next(read).id)),
            GET_EPISODES: Case(lambda: store.get_episodes(tenant_id, next(listed), limit=LISTED)),
            VECTOR_SEARCH: Case(
                lambda: store.vector_search_episodes(next(near), tenant_id, limit=FOUND, min_score=-1.0)
            ),
            SEARCH_RARE_WORD: Case(lambda: store.text_search_episodes(RARE, tenant_id, limit=FOUND)),
            SEARCH_COMMON_WORD: Case(lambda: store.text_search_episodes(COMMON, tenant_id, limit=FOUND)),
            HYBRID_SEARCH: Case(
                lambda: store.hybrid_search_episodes(RARE, next(nearby), tenant_id, limit=FOUND)
            ),
            TRAVERSE: Case(lambda: store.traverse_from_entities([next(starts).id], tenant_id, GROUP)),
            # Last, so that the planner's statistics are current during the searches.
            ADD_EPISODE: Case(lambda: store.add_episode(written[0]), make_episode),
        }

    def groups(self) -> list[str]:
        """Return the groups of the episodes."""
        return list(dict.fromkeys(episode.group_id for episode in self.episodes))

    def _episode(self, number: int, vector: list[float]) -> Episode:
        rare = f" {RARE}" if number % 1_000 == 500 else ""
        return Episode(
            tenant_id=self.tenant_id,
            group_id=f"conversation {number // _EPISODES_A_GROUP}",
            content=f"{samples.sentence(30)}{rare}",
            source="user",
            source_metadata={"channel": "webchat", "turn": number},
            occurred_at=self.start + timedelta(seconds=number),
            embedding=vector,
            embedding_model="text-embedding-3-small",
            entity_ids=[new_id()],
        )
