"""The operations of the config store, and the stored data for them."""

from __future__ import annotations

from benchmarks import samples
from soldier_data import Agent, DataLayer, Rule
from soldier_data.base.models import new_id

GET_AGENT = "get agent"
GET_RULE = "get rule with embedding"
GET_PLAIN_RULE = "get rule without embedding"
LIST_RULES = "list 100 rules with embeddings"
SAVE_AGENT = "save agent"
SAVE_RULE = "save rule with embedding"
SAVE_NEW_RULE = "save new rule with embedding"
DELETE_RULE = "delete rule"
SEARCH_RULES = "vector search, exact"


class Sample:
    """Stored data for the measurements. Each way of saving has its own entities, so that none waits for locks."""

    def __init__(self, dimensions: int, *, searched: int) -> None:
        self.tenant_id = new_id()
        self.agents = samples.agents(self.tenant_id, 20)
        self.listed, self.plain, self.large, self.written = self.agents[:4]
        self.listed_rules = samples.with_embeddings(self.listed, 100, dimensions)
        self.plain_rules = samples.rules(self.plain, [None] * 100)
        self.large_rules = samples.with_embeddings(self.large, searched, dimensions)
        self.new_vectors = samples.embeddings(100, dimensions)
        self.queries = samples.embeddings(100, dimensions)

    async def store(self, data: DataLayer) -> None:
        await data.config.save_many([*self.agents, *self.listed_rules, *self.plain_rules])
        for start in range(0, len(self.large_rules), 1000):
            await data.config.save_many(self.large_rules[start : start + 1000])

    async def own_agents(self, data: DataLayer) -> list[Agent]:
        """Return some stored agents for one way of saving."""
        made = samples.agents(self.tenant_id, 20)
        await data.config.save_many(made)
        return made

    async def own_rules(self, data: DataLayer) -> list[Rule]:
        """Return some stored rules for one way of saving."""
        made = samples.rules(self.written, [*self.new_vectors[:20]])
        await data.config.save_many(made)
        return made
