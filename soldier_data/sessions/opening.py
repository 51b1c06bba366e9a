"""Opening the session store from the settings."""

from __future__ import annotations

from typing import Any

from soldier_data.postgres.database import Database
from soldier_data.sessions.connections import create_redis_client
from soldier_data.sessions.durable import DurableSessionStore
from soldier_data.sessions.models import SessionTierConfig
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.settings import Settings


def session_tiers(settings: Settings) -> SessionTierConfig:
    """Return the lifetimes and the key prefix."""
    return SessionTierConfig(
        hot_ttl=settings.session_hot_ttl,
        persist_ttl=settings.session_persist_ttl,
        max_session_age=settings.session_max_age,
        key_prefix=settings.session_key_prefix,
    )


def open_redis_store(settings: Settings) -> RedisSessionStore:
    """Open the Redis store with a client of its own, which `store.close` closes.

    Raises:
        ConfigurationError: The URL is invalid.
    """
    return RedisSessionStore(create_redis_client(settings), session_tiers(settings), **_options(settings))


def open_durable_store(settings: Settings, database: Database) -> DurableSessionStore:
    """Open the store on PostgreSQL and Redis, with a Redis client of its own, which `store.close` closes.

    Raises:
        ConfigurationError: The URL of Redis is invalid.
    """
    return DurableSessionStore(
        create_redis_client(settings), database, session_tiers(settings), **_options(settings)
    )


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "retry_budget": settings.retry_budget,
        "wait_replicas": settings.redis_wait_replicas,
        "wait_timeout": settings.redis_wait_timeout,
    }
