"""The five vector searches, told alike: what is stored, and how it is searched for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from soldier_data.config import Agent, InMemoryConfigStore, PostgresConfigStore
from soldier_data.memory import InMemoryMemoryStore, PostgresMemoryStore
from soldier_data.postgres.executor import Executor
from soldier_data.vectors import InMemoryVectorStore, PostgresVectorStore
from tests.conftest import DIMENSIONS
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory
from tests.factories.memory import EntityFactory, EpisodeFactory
from tests.factories.vectors import EmbeddingFactory


@dataclass(frozen=True)
class Searched:
    """Something that has embeddings.

    Attributes:
        table: Its table; `column` has the embedding, and `column` + "_model" the model.
        factory: Makes one.
        in_memory: The store in memory.
        on_postgres: The store on PostgreSQL.
        add: Stores many.
        find: Searches.
    """

    table: str
    column: str
    factory: Any
    in_memory: Callable[..., Any]
    on_postgres: Callable[[Executor], Any]
    add: Callable[[Any, list[Any]], Awaitable[Any]]
    find: Callable[..., Awaitable[list[tuple[Any, float]]]]

    def new(
        self, agent: Agent, embedding: Sequence[float] | None, model: str | None = None, **fields: Any
    ) -> Any:
        """One of the agent's tenant, and of the agent where things have one."""
        given = {"tenant_id": agent.tenant_id, self.column: embedding, f"{self.column}_model": model}
        if "agent_id" in self.factory._meta.model.model_fields:
            given["agent_id"] = agent.id
        return self.factory(**given | fields)

    async def fill(self, store: Any, agent: Agent, entities: list[Any]) -> None:
        """Store the entities, and the agent if they need it."""
        if hasattr(store, "save_agent"):
            await store.save_agent(agent)
        await self.add(store, entities)


async def _add_entities(store: Any, entities: list[Any]) -> None:
    for entity in entities:
        await store.add_entity(entity)


def _of_agent(name: str) -> Callable[..., Any]:
    return lambda store, query, agent, **options: getattr(store, name)(
        query, agent.tenant_id, agent.id, **options
    )


def _of_tenant(name: str) -> Callable[..., Any]:
    return lambda store, query, agent, **options: getattr(store, name)(query, agent.tenant_id, **options)


def _many(name: str) -> Callable[[Any, list[Any]], Awaitable[Any]]:
    return lambda store, entities: getattr(store, name)(entities)


SEARCHED = [
    Searched(
        "rules",
        "embedding",
        RuleFactory,
        InMemoryConfigStore,
        PostgresConfigStore,
        _many("save_many"),
        _of_agent("vector_search_rules"),
    ),
    Searched(
        "scenarios",
        "entry_condition_embedding",
        ScenarioFactory,
        InMemoryConfigStore,
        PostgresConfigStore,
        _many("save_many"),
        _of_agent("vector_search_scenarios"),
    ),
    Searched(
        "episodes",
        "embedding",
        EpisodeFactory,
        InMemoryMemoryStore,
        PostgresMemoryStore,
        _many("add_episodes"),
        _of_tenant("vector_search_episodes"),
    ),
    Searched(
        "entities",
        "embedding",
        EntityFactory,
        InMemoryMemoryStore,
        PostgresMemoryStore,
        _add_entities,
        _of_tenant("vector_search_entities"),
    ),
    Searched(
        "embeddings",
        "embedding",
        EmbeddingFactory,
        InMemoryVectorStore,
        PostgresVectorStore,
        _many("add_embeddings"),
        _of_tenant("search"),
    ),
]


def agent_of(tenant_id: UUID) -> Agent:
    """An agent of the tenant, not stored."""
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    return agent


def direction(*numbers: float) -> list[float]:
    """A vector that begins with `numbers`."""
    return [*numbers, *[0.0] * (DIMENSIONS - len(numbers))]
