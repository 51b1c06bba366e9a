"""What PostgreSQL refuses: which error it becomes, whether the call is repeated, and what the message says to do."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from soldier_data.config import Agent
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError, ValidationError
from tests.backends.connections import CANARY, administrator, assert_clean, bound_role, opened
from tests.conftest import settings_for
from tests.factories.config import AgentFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.vectors import EmbeddingFactory

# Refuses to save agents, by the SQLSTATE in their description, and so often as the digit before it says.
_REFUSING = f"""
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('refusals') <= split_part(NEW.description, ' ', 1)::int THEN
        RAISE EXCEPTION '{CANARY}' USING ERRCODE = split_part(NEW.description, ' ', 2);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION refuse();
"""

TRANSIENT = (
    "25P03",
    "40001",
    "40P01",
    "53200",
    "53300",
    "55P03",
    "57P01",
    "57P02",
    "57P03",
    "57P05",
    "08006",
)
LASTING: list[tuple[str, type[StoreError], str]] = [
    ("25P04", StoreConnectionError, "transaction_timeout"),
    ("53000", StoreConnectionError, "its log"),
    ("53100", StoreConnectionError, "disk is full: free some space"),
    ("53400", StoreConnectionError, "temp_file_limit"),
    ("57014", StoreConnectionError, "statement_timeout"),
    ("57P04", StoreConnectionError, "dropped"),
    ("58000", StoreConnectionError, "its log"),
    ("58030", StoreConnectionError, "its log"),
    ("26000", ConfigurationError, "SOLDIER_PGBOUNCER"),
    ("42P05", ConfigurationError, "SOLDIER_PGBOUNCER"),
    ("0A000", ConfigurationError, "distributed by tenant_id"),
    ("42501", ConfigurationError, "lacks a privilege"),
    ("42P01", ConfigurationError, "soldier-data db upgrade"),
    ("54001", ValidationError, "54001"),
    ("XX001", StoreError, "corrupted"),
    ("XX000", StoreError, "XX000"),
    ("P0001", StoreError, "P0001"),
]


@pytest.fixture
async def refusing_url(database_url: str) -> str:
    """A database that refuses agents as their descriptions say."""
    async with administrator(database_url) as connection:
        await connection.execute(_REFUSING)
    return database_url


async def test_what_may_be_gone_the_next_time_is_repeated(refusing_url: str) -> None:
    async with opened(refusing_url, retry_budget=30) as store, administrator(refusing_url) as connection:
        for state in TRANSIENT:
            await connection.execute("ALTER SEQUENCE refusals RESTART")
            agent: Agent = AgentFactory(description=f"2 {state}")
            assert await store.save_agent(agent) == agent.id
            assert await connection.fetchval("SELECT last_value FROM refusals") == 3, state


@pytest.mark.parametrize(("state", "error", "match"), LASTING, ids=[state for state, *_ in LASTING])
async def test_what_stays_is_told_at_once(
    refusing_url: str, state: str, error: type[StoreError], match: str
) -> None:
    async with opened(refusing_url, retry_budget=30) as store, administrator(refusing_url) as connection:
        agent: Agent = AgentFactory(description=f"9 {state}")
        with pytest.raises(error, match=match) as failed:
            await store.save_agent(agent)
        assert type(failed.value) is error
        assert failed.value.cause is not None
        assert_clean(failed.value)
        assert await connection.fetchval("SELECT last_value FROM refusals") == 1


async def test_a_forgotten_row_level_security_setting_is_named_at_once(database_url: str) -> None:
    async with bound_role(database_url) as url:
        settings = settings_for(url, session_backend="inmemory", retry_budget=60, row_level_security=False)
        async with DataLayer.open(settings) as data, asyncio.timeout(30):
            for call in (
                data.memory.add_episodes([EpisodeFactory()]),
                data.vectors.add_embeddings([EmbeddingFactory()]),
                data.config.save_agent(AgentFactory(tenant_id=uuid4())),
            ):
                with pytest.raises(ConfigurationError, match="SOLDIER_ROW_LEVEL_SECURITY=true"):
                    await call
