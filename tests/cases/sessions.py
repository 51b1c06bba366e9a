"""The session store with another tenant's ids."""

from __future__ import annotations

from uuid import UUID, uuid4

from soldier_data.base.models import utcnow
from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError
from soldier_data.postgres.executor import Executor
from soldier_data.sessions import (
    InMemorySessionStore,
    PendingMigration,
    RedisSessionStore,
    Session,
    SessionStore,
    SessionTierConfig,
)
from soldier_data.sessions.codec import new_write_id
from soldier_data.sessions.durable import DurableSessionStore
from soldier_data.sessions.rows import SessionRows, prepare
from soldier_data.sessions.unconfirmed import Write
from tests.cases.case import Case, Domain, as_of
from tests.factories.sessions import SessionFactory


async def seed(store: SessionStore, tenant_id: UUID) -> Session:
    session: Session = SessionFactory(tenant_id=tenant_id)
    await store.save(session)
    return session


async def seed_row(db: Executor, tenant_id: UUID) -> None:
    """Store a session in PostgreSQL alone."""
    config = SessionTierConfig()
    write = Write(new_write_id(), utcnow(), None)
    await SessionRows(db, config).save(prepare(SessionFactory(tenant_id=tenant_id), write, config))


async def list_by_customer(store: SessionStore, own: Session, other: UUID) -> object:
    assert own.customer_profile_id is not None
    return await store.list_by_customer(other, own.customer_profile_id)


async def list_by_subject(store: SessionStore, own: Session, other: UUID) -> object:
    assert own.customer_profile_id is not None
    identities = frozenset([(own.channel, own.user_channel_id)])
    return await store.list_by_subject(
        DataSubject(other, frozenset([own.customer_profile_id]), identities=identities)
    )


async def find_sessions_by_step_hash(store: SessionStore, own: Session, other: UUID) -> object:
    content_hash = own.step_history[-1].step_content_hash
    assert own.active_scenario_id is not None
    assert own.active_scenario_version is not None
    assert content_hash is not None
    return await store.find_sessions_by_step_hash(
        other, own.active_scenario_id, own.active_scenario_version, content_hash
    )


async def mark_pending_migration(store: SessionStore, own: Session, other: UUID) -> object:
    pending = PendingMigration(
        target_version=2, anchor_content_hash="abc", migration_plan_id=uuid4(), marked_at=utcnow()
    )
    return await store.mark_pending_migration(other, [own.session_id], pending)


DOMAIN: Domain[SessionStore, Session] = Domain(
    store="sessions",
    contract=SessionStore,
    backends={
        "inmemory": InMemorySessionStore,
        "redis": RedisSessionStore,
        "redis-durable": DurableSessionStore,
    },
    seed=seed,
    cases=[
        Case("get", lambda store, own, other: store.get(own.session_id, tenant_id=other), None),
        Case("delete", lambda store, own, other: store.delete(own.session_id, tenant_id=other), False),
        Case("save", lambda store, own, other: store.save(as_of(own, other)), ConflictError),
        Case(
            "save",
            lambda store, own, other: store.save(as_of(own, other), if_revision=own.revision),
            ConflictError,
        ),
        Case(
            "get_by_channel",
            lambda store, own, other: store.get_by_channel(other, own.channel, own.user_channel_id),
            None,
        ),
        Case(
            "list_by_channel",
            lambda store, own, other: store.list_by_channel(other, own.channel, own.user_channel_id),
            [],
        ),
        Case("delete_many", lambda store, own, other: store.delete_many(other, [own.session_id]), 0),
        Case("list_by_agent", lambda store, own, other: store.list_by_agent(other, own.agent_id), []),
        Case(
            "list_by_agent",
            lambda store, own, other: store.list_by_agent(other, own.agent_id, status=own.status),
            [],
        ),
        Case("list_by_customer", list_by_customer, []),
        Case("list_by_subject", list_by_subject, []),
        Case("find_sessions_by_step_hash", find_sessions_by_step_hash, []),
        Case("mark_pending_migration", mark_pending_migration, 0),
        # Takes no id and tells nothing of what is stored.
        Case("health_check", lambda store, _own, _other: store.health_check(), True, reaches=False),
    ],
)
