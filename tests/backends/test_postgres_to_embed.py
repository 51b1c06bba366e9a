"""Finding what lacks an embedding on PostgreSQL: row-level security, a pooler's mode, round trips, lost replies."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Agent, ConfigStore, PostgresConfigStore, Rule
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ValidationError
from soldier_data.memory import PostgresMemoryStore
from soldier_data.postgres.database import Database
from tests.backends.connections import administrator, bound_role, opened
from tests.backends.round_trips import Proxy
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EpisodeFactory

MODEL = "model-1"
VECTOR = [1.0] * DIMENSIONS


async def _add_rules(store: ConfigStore, tenant_id: UUID, number: int = 1) -> list[Rule]:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    rules: list[Rule] = RuleFactory.build_batch(number, tenant_id=tenant_id, agent_id=agent.id)
    await store.save_many([agent, *rules])
    return rules


async def test_a_bound_role_embeds_one_tenant_and_is_asked_to_name_it(
    database_url: str, tenant_id: UUID
) -> None:
    async with bound_role(database_url) as url, opened(url, row_level_security=True) as config:
        memory = PostgresMemoryStore(config._db)
        await _add_rules(config, tenant_id)
        await memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
        for store in (config, memory):
            with pytest.raises(ValidationError, match="tenant_id"):
                await store.list_to_embed(MODEL)
            with pytest.raises(ValidationError, match="tenant_id"):
                await store.count_to_embed(MODEL)
            texts = await store.list_to_embed(MODEL, tenant_id=tenant_id)
            assert await store.set_embeddings([(text, VECTOR) for text in texts], MODEL) == 1
            assert await store.count_to_embed(MODEL, tenant_id=tenant_id) == 0


@pytest.mark.parametrize("in_unit", [False, True], ids=["call", "unit_of_work"])
@pytest.mark.parametrize("bound", [False, True], ids=["plain", "row_level_security"])
async def test_embeddings_of_several_tenants_are_all_kept_or_none(
    database_url: str, bound: bool, in_unit: bool
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(bound_role(database_url)) if bound else database_url
        settings = settings_for(url, session_backend="inmemory", row_level_security=bound, retry_budget=0)
        data = await stack.enter_async_context(DataLayer.open(settings))
        connection = await stack.enter_async_context(administrator(database_url))
        tenants = [uuid4() for _ in range(3)]
        rules = [rule for tenant_id in tenants for rule in await _add_rules(data.config, tenant_id, 2)]
        texts = [
            text
            for tenant_id in tenants
            for text in await data.config.list_to_embed(MODEL, tenant_id=tenant_id)
        ]
        # By turns, as no caller orders them.
        pairs = [(text, VECTOR) for text in texts[::2] + texts[1::2]]

        async def set_embeddings(model: str) -> int:
            if not in_unit:
                return await data.config.set_embeddings(pairs, model)
            async with data.unit_of_work(tenants[2]) as unit:
                count = await unit.config.set_embeddings(pairs, model)
                # The setting of one tenant does not stay for the next call.
                assert await unit.config.get_rule(tenants[0], rules[0].id) is not None
                return count

        assert await set_embeddings(MODEL) == len(rules) == 6
        for rule in rules:
            stored = await data.config.get_rule(rule.tenant_id, rule.id)
            assert stored is not None
            assert (stored.embedding, stored.embedding_model) == (VECTOR, MODEL)

        pairs = [(replace(text, revision=2), vector) for text, vector in pairs]
        await connection.execute(f"ALTER TABLE rules ADD CHECK (id <> '{rules[-1].id}') NOT VALID")
        with pytest.raises(ValidationError):
            await set_embeddings("model-2")
        for rule in rules:
            stored = await data.config.get_rule(rule.tenant_id, rule.id)
            assert stored is not None
            assert stored.embedding_model == MODEL


async def test_all_tenants_are_listed_behind_a_pooler_too(database_url: str, tenant_id: UUID) -> None:
    async with opened(database_url, pgbouncer=True) as store:
        [rule] = await _add_rules(store, tenant_id)
        assert [text.id for text in await store.list_to_embed(MODEL)] == [rule.id]
        assert await store.count_to_embed(MODEL) == 1


async def test_any_number_of_embeddings_are_kept_in_as_many_round_trips_as_one(
    behind: tuple[Proxy, Database], tenant_id: UUID
) -> None:
    passing, database = behind
    store = PostgresConfigStore(database)
    await _add_rules(store, tenant_id, 60)
    texts = await store.list_to_embed(MODEL, tenant_id=tenant_id)
    pairs = [(text, VECTOR) for text in texts]
    await store.set_embeddings(pairs[:5], MODEL)

    one = await passing.count(lambda: store.set_embeddings(pairs[5:6], MODEL))
    many = await passing.count(lambda: store.set_embeddings(pairs[6:], MODEL))

    assert one == many == 3


@pytest.mark.parametrize("lost", ["", "COMMIT"], ids=["of a statement", "of the commit"])
async def test_embeddings_whose_reply_is_lost_are_kept_once(
    behind: tuple[Proxy, Database], tenant_id: UUID, lost: str
) -> None:
    passing, database = behind
    store = PostgresConfigStore(database)
    rules = await _add_rules(store, tenant_id, 3)
    texts = await store.list_to_embed(MODEL, tenant_id=tenant_id)

    passing.lose_next_reply(lost)
    assert await store.set_embeddings([(text, VECTOR) for text in texts], MODEL) == 3

    assert passing.lost == 1
    for rule in rules:
        found = await store.get_rule(tenant_id, rule.id)
        assert found is not None
        assert (found.revision, found.embedding) == (2, VECTOR)
