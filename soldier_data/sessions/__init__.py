from soldier_data.base.channels import Channel
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.sessions.connections import create_redis_client
from soldier_data.sessions.inmemory import InMemorySessionStore
from soldier_data.sessions.models import (
    PendingMigration,
    Session,
    SessionStatus,
    SessionTierConfig,
    StepVisit,
)
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.sessions.store import SessionStore

__all__ = [
    "Channel",
    "InMemorySessionStore",
    "PendingMigration",
    "RedisSessionStore",
    "ScopeFilter",
    "Session",
    "SessionStatus",
    "SessionStore",
    "SessionTierConfig",
    "StepVisit",
    "create_redis_client",
]
