"""Writers that race for one entity, each save on the condition that nobody was faster: none loses the other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import random
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError
from soldier_data.settings import Settings
from tests.cases.kind import Kind
from tests.cases.kinds import KINDS
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory
from tests.reliability.conftest import Counts, Found

COUNTED = [kind for kind in KINDS if kind.counter is not None]


def count_of(kind: Kind, entity: Any) -> int:
    """What the entity's counter says."""
    assert kind.counter is not None
    value = getattr(entity, kind.counter[0])
    return int(value["count"] if isinstance(value, dict) else value)


def set_count(kind: Kind, entity: Any, count: int) -> None:
    """Make the entity's counter say that."""
    assert kind.counter is not None
    field, start = kind.counter
    setattr(entity, field, {"count": count} if isinstance(start, dict) else type(start)(count))


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
    set_count(kind, found, count_of(kind, found) + 1)
    await kind.save(store, found, if_revision=found.revision)


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
        # Sessions in Redis alone take no part in units of work.
        session_durability="postgres" if request.node.callspec.params["increment"] is by_units else "redis",
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

    for kind in COUNTED:
        assert kind.counter is not None
        field, start = kind.counter
        entity = kind.new(tenant_id, agent.id, **{field: start})
        await kind.save(getattr(data, kind.store), entity)
        before, made_before = count_of(kind, entity), made
        await asyncio.gather(*(write(kind, entity) for _ in range(writers)))
        found = await kind.get(getattr(data, kind.store), entity)
        increments = made - made_before
        assert increments >= each, kind
        assert count_of(kind, found) == before + increments, kind
        assert found.revision == 1 + increments, kind
    assert made + refused == writers * each * len(COUNTED)
    report(
        f"{writers} writers x {each} conditional increments of one {', one '.join(map(str, COUNTED))}",
        bar="every one is made, or refused by a ConflictError",
        found=f"{made:,} made, {refused:,} refused, 0 lost",
    )
