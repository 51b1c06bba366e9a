"""Stores of a user's own, put in the place of ours: they take part wherever ours would, or are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError
from soldier_data.postgres.database import Database
from soldier_data.postgres.transaction import Transaction
from soldier_data.runs import InMemoryRunStore, PostgresRunStore, Run
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory
from tests.factories.profiles import CustomerProfileFactory
from tests.factories.runs import RunFactory

Saved = list[UUID]


class CountingRuns(PostgresRunStore):
    """A subclass of ours, with a constructor of its own."""

    def __init__(self, database: Database, saved: Saved) -> None:
        super().__init__(database)
        self._saved = saved

    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        self._saved.append(run.id)
        return await super().save_run(run, if_revision=if_revision)


class CountingRunsInMemory(InMemoryRunStore):
    """The same in memory."""

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self._saved = saved

    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        self._saved.append(run.id)
        return await super().save_run(run, if_revision=if_revision)


class Wrapper:
    """Passes on whatever it is asked for."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class JoiningWrapper(Wrapper):
    """Says how it takes part."""

    def __init__(self, wrapped: Any, saved: Saved) -> None:
        super().__init__(wrapped)
        self._saved = saved

    def join(self, transaction: Transaction) -> JoiningWrapper:
        return JoiningWrapper(self._wrapped.join(transaction), self._saved)

    async def save_run(self, run: Run) -> UUID:
        self._saved.append(run.id)
        saved: UUID = await self._wrapped.save_run(run)
        return saved


class Elsewhere(Wrapper):
    """Takes part by not taking part."""

    def join(self, _transaction: Transaction) -> Elsewhere:
        return self


@pytest.fixture
async def layer(shared_database_url: str) -> AsyncIterator[DataLayer]:
    async with DataLayer.open(settings_for(shared_database_url, session_backend="inmemory")) as data:
        yield data


class Stop(Exception):  # noqa: N818 - raised by this test only.
    pass


@pytest.mark.parametrize("kind", ["subclass", "in memory", "wrapper"])
async def test_a_store_of_ones_own_takes_part_in_units_of_work(
    layer: DataLayer, tenant_id: UUID, kind: str
) -> None:
    saved: Saved = []
    assert layer._database is not None
    stores: dict[str, Any] = {
        "subclass": CountingRuns(layer._database, saved),
        "in memory": CountingRunsInMemory(saved),
        "wrapper": JoiningWrapper(layer.runs, saved),
    }
    layer.runs = stores[kind]
    kept, undone = (RunFactory(tenant_id=tenant_id) for _ in range(2))
    async with layer.unit_of_work() as unit:
        await unit.runs.save_run(kept)
    with pytest.raises(Stop):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as unit:
            await unit.runs.save_run(undone)
            raise Stop
    assert saved == [kept.id, undone.id]
    assert await layer.runs.get_run(tenant_id, kept.id) == kept
    assert await layer.runs.get_run(tenant_id, undone.id) is None


async def test_a_store_that_need_not_commit_with_the_rest_says_so(layer: DataLayer, tenant_id: UUID) -> None:
    store: Any = Elsewhere(InMemoryRunStore())
    layer.runs = store
    run: Run = RunFactory(tenant_id=tenant_id)
    with pytest.raises(Stop):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as unit:
            await unit.runs.save_run(run)
            raise Stop
    assert await layer.runs.get_run(tenant_id, run.id) == run


async def test_a_store_that_does_not_say_how_it_takes_part_is_refused(
    layer: DataLayer, tenant_id: UUID
) -> None:
    store: Any = Wrapper(layer.runs)
    layer.runs = store
    agent = AgentFactory(tenant_id=tenant_id)
    with pytest.raises(ConfigurationError, match=r"assigned to runs, a Wrapper.*join\(transaction\)"):
        async with layer.unit_of_work() as unit:
            await unit.config.save_agent(agent)
    assert await layer.config.get_agent(tenant_id, agent.id) is None
    # Calls outside of units of work need nothing of the kind.
    assert await layer.runs.get_run(tenant_id, agent.id) is None


async def test_a_store_on_another_database_is_refused(
    layer: DataLayer, database_url: str, tenant_id: UUID
) -> None:
    other = Database(settings_for(database_url))
    layer.runs = PostgresRunStore(other)
    with pytest.raises(ConfigurationError, match="PostgresRunStore is not on the data layer's database"):
        async with layer.unit_of_work():
            pass
    async with DataLayer.in_memory(settings_for("postgresql://", embedding_dimensions=DIMENSIONS)) as data:
        data.runs = PostgresRunStore(other)
        with pytest.raises(ConfigurationError, match="PostgresRunStore is not on the data layer's database"):
            async with data.unit_of_work():
                pass
    await other.close()


async def test_exports_and_erasures_use_the_store_that_was_assigned(
    layer: DataLayer, tenant_id: UUID
) -> None:
    saved: Saved = []
    layer.runs = CountingRunsInMemory(saved)
    profile = CustomerProfileFactory(tenant_id=tenant_id)
    await layer.profiles.save(profile)
    run: Run = RunFactory(tenant_id=tenant_id, request_payload={"customer": str(profile.id)})
    await layer.runs.save_run(run)

    assert [found.id for found in (await layer.export_customer(tenant_id, profile.id)).runs] == [run.id]
    report = await layer.erase_customer(tenant_id, profile.id)

    assert report.removed["runs"] == 1
    assert await layer.runs.get_run(tenant_id, run.id) is None
