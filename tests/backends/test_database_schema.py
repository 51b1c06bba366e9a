"""Tables in a schema of their own: no statement of any store hangs on the search_path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Rule
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError
from soldier_data.migrations import check, downgrade, upgrade
from soldier_data.postgres.database import Database
from tests.backends.connections import administrator, forget_search_path, granted_role
from tests.cases.case import Case, Domain
from tests.cases.rows import dump_database
from tests.cases.stores import DOMAINS, outcome
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory, RuleFactory

_DOMAINS = [domain for domain in DOMAINS if "postgres" in domain.backends]
_CASES = [
    pytest.param(case, domain, id=f"{domain.contract.__name__}.{case.method}-{number}")
    for domain in _DOMAINS
    for number, case in enumerate(domain.cases)
]

_SCHEMA = {"database_schema": "soldier"}


@pytest.fixture(scope="module")
async def owner(module_empty_database_url: str) -> AsyncIterator[Database]:
    """A database whose tables are in the schema soldier, and where search_path is empty for everybody."""
    await forget_search_path(module_empty_database_url)
    settings = settings_for(module_empty_database_url, **_SCHEMA)
    await upgrade(settings)
    database = Database(settings)
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def bound(owner: Database) -> AsyncIterator[Database]:
    """The same by way of a role that the policies bind and whose own search_path is empty, too."""
    async with granted_role(owner.settings) as url:
        database = Database(settings_for(url, row_level_security=True, **_SCHEMA))
        yield database
        await database.close()


@pytest.mark.parametrize(("case", "domain"), _CASES)
async def test_every_method_works_in_the_schema_with_an_empty_search_path(
    bound: Database, owner: Database, case: Case[Any, Any], domain: Domain[Any, Any], tenant_id: UUID
) -> None:
    store = domain.backends["postgres"](bound)
    own = await domain.seed(store, tenant_id)
    assert await outcome(case, store, own, uuid4()) == case.expected

    url = owner.settings.database_url
    before = await dump_database(url, tenant_id, "soldier")
    assert before
    came_back = await outcome(case, store, own, tenant_id)
    assert came_back is not ConfigurationError
    after = await dump_database(url, tenant_id, "soldier")
    assert not case.reaches or came_back != case.expected or after != before


@pytest.mark.parametrize("domain", _DOMAINS, ids=lambda domain: domain.contract.__name__)
async def test_every_method_works_for_the_owner_who_writes_by_copy(
    owner: Database, domain: Domain[Any, Any]
) -> None:
    store = domain.backends["postgres"](owner)
    for case in domain.cases:
        tenant_id = uuid4()
        own = await domain.seed(store, tenant_id)
        assert await outcome(case, store, own, uuid4()) == case.expected, case.method
        assert await outcome(case, store, own, tenant_id) is not ConfigurationError, case.method


async def test_a_data_layer_says_that_all_is_well_in_the_schema(bound: Database, redis_url: str) -> None:
    settings = bound.settings.model_copy(update={"redis_url": redis_url})
    async with DataLayer.open(settings) as data:
        assert (await data.health()).ok


async def test_two_schemas_of_one_database_are_two_deployments(database_url: str, tenant_id: UUID) -> None:
    first = settings_for(database_url)
    second = settings_for(database_url, database_schema="second")
    agent = AgentFactory(tenant_id=tenant_id, name="first")
    other = agent.model_copy(update={"name": "second"})
    async with DataLayer.open(first) as one, DataLayer.open(second, migrate=True) as two:
        for data, saved in ((one, agent), (two, other)):
            async with data.unit_of_work() as uow:
                await uow.config.save_agent(saved)
        assert await one.config.get_agent(tenant_id, agent.id) == agent
        assert await two.config.get_agent(tenant_id, agent.id) == other

        await downgrade(second, "base")
        assert await one.config.get_agent(tenant_id, agent.id) == agent
        assert (await one.health()).schema_at_head.ok
        with pytest.raises(ConfigurationError, match="SOLDIER_DATABASE_SCHEMA"):
            await two.config.get_agent(tenant_id, agent.id)
        assert not (await two.health()).schema_at_head.ok


async def test_the_extensions_may_be_in_a_schema_of_their_own(
    empty_database_url: str, redis_url: str, tenant_id: UUID
) -> None:
    await forget_search_path(empty_database_url)
    settings = settings_for(
        empty_database_url, redis_url=redis_url, database_schema="soldier", extensions_schema="order"
    )
    agent = AgentFactory(tenant_id=tenant_id)
    rule: Rule = RuleFactory(tenant_id=tenant_id, agent_id=agent.id, embedding=[1.0] * DIMENSIONS)
    async with DataLayer.open(settings, migrate=True) as data:
        await data.config.save_many([agent, rule])
        [(found, _)] = await data.config.vector_search_rules([1.0] * DIMENSIONS, tenant_id, agent.id)
        assert found == rule
    assert await check(settings) is None
    async with administrator(empty_database_url) as connection:
        schemas = await connection.fetch(
            "SELECT DISTINCT extnamespace::regnamespace::text AS it FROM pg_extension WHERE extname <> 'plpgsql'"
        )
    assert [row["it"] for row in schemas] == ['"order"']

    elsewhere = settings.model_copy(update={"extensions_schema": "public"})
    with pytest.raises(
        ConfigurationError, match="is in the schema order, but SOLDIER_EXTENSIONS_SCHEMA is public"
    ):
        await upgrade(elsewhere)
    async with DataLayer.open(elsewhere) as data:
        with pytest.raises(ConfigurationError, match="SOLDIER_EXTENSIONS_SCHEMA"):
            await data.config.vector_search_rules([1.0] * DIMENSIONS, tenant_id, agent.id)
