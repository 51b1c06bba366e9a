"""The session store that the settings ask for."""

from __future__ import annotations

from soldier_data.sessions.connections import create_redis_client
from soldier_data.sessions.models import SessionTierConfig
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.settings import Settings


def session_tiers(settings: Settings) -> SessionTierConfig:
    """Lifetimes and key prefix."""
    return SessionTierConfig(
        hot_ttl=settings.session_hot_ttl,
        persist_ttl=settings.session_persist_ttl,
        max_session_age=settings.session_max_age,
        key_prefix=settings.session_key_prefix,
    )


def open_redis_store(settings: Settings) -> RedisSessionStore:
    """The store on Redis, with a client of its own: `store.client.aclose` closes it.

    Raises:
        ConfigurationError: The URL cannot be used.
    """
    return RedisSessionStore(
        create_redis_client(settings),
        session_tiers(settings),
        retry_budget=settings.retry_budget,
        wait_replicas=settings.redis_wait_replicas,
        wait_timeout=settings.redis_wait_timeout,
    )
