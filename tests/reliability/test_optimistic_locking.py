"""Writers that race for one entity, each save on the condition that nobody was faster: none loses the other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import random
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)
from tests.factories.profiles import CustomerProfileFactory
from tests.factories.runs import RunFactory
from tests.factories.sessions import SessionFactory
from tests.reliability.conftest import Counts, Found


@dataclass(frozen=True)
class Kind:
    """A kind of entity that has a revision.

    Attributes:
        store: The attribute of the data layer, or of a unit of work, that keeps it.
        save: The store's method, which takes the entity and `if_revision`.
        get: Reads it again.
        make: The factory, given a tenant_id and an agent_id, which entities that belong to no agent ignore.
        field: Where it counts: an integer, a text, or a document with the key "count".
    """

    store: str
    save: str
    get: Callable[[Any, Any], Awaitable[Any]]
    make: Callable[..., Any]
    field: str

    def count(self, entity: Any) -> int:
        value = getattr(entity, self.field)
        return int(value["count"] if isinstance(value, dict) else value)

    def set_count(self, entity: Any, count: int) -> None:
        kind = type(getattr(entity, self.field))
        setattr(entity, self.field, {"count": count} if kind is dict else kind(count))


def by_id(method: str) -> Callable[[Any, Any], Awaitable[Any]]:
    return lambda store, entity: getattr(store, method)(entity.tenant_id, entity.id)


KINDS = {
    "agent": Kind("config", "save_agent", by_id("get_agent"), AgentFactory, "current_version"),
    "rule": Kind("config", "save_rule", by_id("get_rule"), RuleFactory, "cooldown_turns"),
    "scenario": Kind("config", "save_scenario", by_id("get_scenario"), ScenarioFactory, "version"),
    "template": Kind(
        "config",
        "save_template",
        by_id("get_template"),
        lambda **owner: TemplateFactory(**owner, text="0"),
        "text",
    ),
    "variable": Kind("config", "save_variable", by_id("get_variable"), VariableFactory, "cache_ttl_seconds"),
    "tool activation": Kind(
        "config",
        "save_tool_activation",
        lambda store, entity: store.get_tool_activation(entity.tenant_id, entity.agent_id, entity.tool_id),
        lambda **owner: ToolActivationFactory(**owner, policy_override={"count": 0}),
        "policy_override",
    ),
    "migration plan": Kind(
        "config", "save_migration_plan", by_id("get_migration_plan"), MigrationPlanFactory, "to_version"
    ),
    "profile": Kind(
        "profiles",
        "save",
        by_id("get_by_id"),
        lambda **owner: CustomerProfileFactory(**owner, external_id="0"),
        "external_id",
    ),
    "run": Kind(
        "runs",
        "save_run",
        by_id("get_run"),
        lambda **owner: RunFactory(**owner, error_message="0"),
        "error_message",
    ),
    "session": Kind(
        "sessions",
        "save",
        lambda store, entity: store.get(entity.session_id, tenant_id=entity.tenant_id),
        SessionFactory,
        "turn_count",
    ),
}

Increment: TypeAlias = Callable[[DataLayer, Kind, Any], Awaitable[None]]


async def by_calls(data: DataLayer, kind: Kind, entity: Any) -> None:
    await _increment(getattr(data, kind.store), kind, entity)


async def by_units(data: DataLayer, kind: Kind, entity: Any) -> None:
    async with data.unit_of_work(entity.tenant_id) as uow:
        await _increment(getattr(uow, kind.store), kind, entity)


async def _increment(store: Any, kind: Kind, entity: Any) -> None:
    found = await kind.get(store, entity)
    # In memory too, others come in between.
    await asyncio.sleep(0)
    kind.set_count(found, kind.count(found) + 1)
    await getattr(store, kind.save)(found, if_revision=found.revision)


@pytest.fixture(params=["inmemory", "servers"])
async def data(
    request: pytest.FixtureRequest, shared_database_url: str, redis_url: str
) -> AsyncIterator[DataLayer]:
    if request.param == "inmemory":
        async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as layer:
            yield layer
        return
    settings = settings_for(
        shared_database_url,
        redis_url=redis_url,
        session_key_prefix=f"t{uuid4().hex}",
        # The writers queue up: in the soak some wait for all of the others.
        pool_timeout=60,
    )
    async with DataLayer.open(settings) as layer:
        yield layer


@pytest.mark.parametrize("increment", [by_calls, by_units], ids=["calls", "units_of_work"])
async def test_every_conditional_increment_is_made_or_refused(
    data: DataLayer, tenant_id: UUID, increment: Increment, count: Counts, report: Found
) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    writers, each = count(8, 200), count(3, 10)
    made = refused = 0

    async def write(kind: Kind, entity: Any) -> None:
        nonlocal made, refused
        for _ in range(each):
            # So that some meet nobody. All at once, one of them would win each round.
            await asyncio.sleep(random() * writers / 500)  # noqa: S311 - chance, not secrets.
            try:
                await increment(data, kind, entity)
                made += 1
            except ConflictError:
                refused += 1

    kinds = {name: kind for name, kind in KINDS.items() if increment is by_calls or kind.store != "sessions"}
    for name, kind in kinds.items():
        entity = kind.make(tenant_id=tenant_id, agent_id=agent.id)
        await getattr(getattr(data, kind.store), kind.save)(entity)
        before, made_before = kind.count(entity), made
        await asyncio.gather(*(write(kind, entity) for _ in range(writers)))
        found = await kind.get(getattr(data, kind.store), entity)
        increments = made - made_before
        assert increments >= each, name
        assert kind.count(found) == before + increments, name
        assert found.revision == 1 + increments, name
    assert made + refused == writers * each * len(kinds)
    report(
        f"{writers} writers x {each} conditional increments of one {', one '.join(kinds)}",
        bar="every one is made, or refused by a ConflictError",
        found=f"{made:,} made, {refused:,} refused, 0 lost",
    )
