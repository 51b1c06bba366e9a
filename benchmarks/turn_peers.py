"""The demo's turn with other libraries (`benchmarks/requirements.txt`): as much as each of them can do of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import event, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks import by_hand, turn_by_hand
from benchmarks.peers import without_vector_index
from benchmarks.turn_by_hand import Reads
from benchmarks.turn_others import (
    FIRING_RULES,
    FIRING_SCORE,
    Opener,
    Other,
    SessionsInRedis,
    sessions_in_redis,
)
from benchmarks.turn_rows import Values, Writes, row_of
from soldier_data import Agent, Rule, Session
from soldier_data.config.orm import RuleRow, TemplateRow
from soldier_data.demo.agent import SupportDesk
from soldier_data.memory.orm import EntityRow, RelationshipRow
from soldier_data.postgres.orm import Base
from soldier_data.profiles.orm import ChannelIdentityRow

_REFERRED_TO = ("customer_profiles", "entities", "steps")


@asynccontextmanager
async def orm(database_url: str, redis_url: str, desk: SupportDesk) -> AsyncIterator[Other]:
    """Open SQLAlchemy's ORM: a session for each turn. The conversation's session is in Redis, by redis-py."""
    connection = await turn_by_hand.connect(database_url)
    await turn_by_hand.store_rules(connection, desk)
    await connection.close()
    async with _engine(database_url) as engine, sessions_in_redis(redis_url) as sessions:
        yield _Orm(engine, sessions)


@asynccontextmanager
async def _engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1))

    @event.listens_for(engine.sync_engine, "connect")
    def _register(connection: Any, _record: Any) -> None:
        connection.run_async(by_hand.register_vector)

    try:
        yield engine
    finally:
        await engine.dispose()


class _Orm(Other):
    """Reads and writes in one transaction, which begins with the first read, as its documentation shows."""

    def __init__(self, engine: AsyncEngine, sessions: SessionsInRedis) -> None:
        self._db = AsyncSession(engine, expire_on_commit=False)
        self._sessions = sessions
        self._classes: dict[str, Any] = {
            mapper.local_table.name: mapper.class_  # type: ignore[attr-defined] # Each is mapped to a table.
            for mapper in Base.registry.mappers
        }

    async def get_session(self, session_id: UUID) -> Session:
        return await self._sessions.get(session_id)

    async def find_rules(self, agent: Agent, query: list[float]) -> list[UUID]:
        distance = RuleRow.embedding.cosine_distance(query)
        found = await self._db.scalars(
            select(RuleRow.id)
            .where(RuleRow.tenant_id == agent.tenant_id, RuleRow.agent_id == agent.id)
            .where(RuleRow.deleted_at.is_(None), RuleRow.enabled, distance <= 1 - FIRING_SCORE)
            .order_by(distance, RuleRow.id)
            .limit(FIRING_RULES)
        )
        return list(found)

    async def find_profile(self, session: Session) -> UUID | None:
        return await self._db.scalar(
            select(ChannelIdentityRow.profile_id).where(
                ChannelIdentityRow.tenant_id == session.tenant_id,
                ChannelIdentityRow.channel == session.channel,
                ChannelIdentityRow.channel_user_id == session.user_channel_id,
            )
        )

    async def find_in_graph(self, tenant_id: UUID, ids: list[UUID]) -> set[UUID]:
        found: set[UUID] = set()
        for table in (EntityRow, RelationshipRow):
            known = select(table.id).where(table.tenant_id == tenant_id, table.id.in_(ids))
            found |= set(await self._db.scalars(known))
        return found

    async def write(self, session: Session, writes: Writes) -> None:
        for table, rows in writes.items():
            if table == "templates":
                new = insert(TemplateRow).values(rows)
                await self._db.execute(
                    new.on_conflict_do_update(
                        index_elements=["tenant_id", "id"], set_={"text": new.excluded.text}
                    )
                )
            else:
                self._db.add_all([self._classes[table](**values) for values in rows])
            if table in _REFERRED_TO:
                # The classes have no relationships, from which the order of inserts would follow.
                await self._db.flush()
        await self._db.commit()
        self._db.expunge_all()
        await self._sessions.save(session)


@asynccontextmanager
async def openai_agents(database_url: str, redis_url: str, desk: SupportDesk) -> AsyncIterator[Other]:
    """Open openai-agents' SQLAlchemySession for the messages, and asyncpg for the rest."""
    session_class = import_module("agents.extensions.memory.sqlalchemy_session").SQLAlchemySession
    connection = await turn_by_hand.connect(database_url)
    await turn_by_hand.store_rules(connection, desk)
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    try:
        # The state of a session, which this library does not keep, stays in the process.
        async with sessions_in_redis(redis_url) as sessions:
            yield _OpenAIAgents(
                connection,
                sessions,
                lambda id_: session_class(id_, engine=engine, create_tables=True),
            )
    finally:
        await engine.dispose()
        await connection.close()


class _OpenAIAgents(Reads):
    """Reads the conversation's items, inserts the rows table by table in a transaction, and adds the turn's items."""

    def __init__(self, connection: Any, sessions: SessionsInRedis, new_session: Any) -> None:
        super().__init__(connection, sessions)
        self._new_session = new_session
        self._items: Any = None
        self._state: Session | None = None

    async def get_session(self, session_id: UUID) -> Session:
        await self._items.get_items()
        assert self._state is not None
        assert self._state.session_id == session_id
        return self._state

    async def write(self, session: Session, writes: Writes) -> None:
        if self._state is None or self._state.session_id != session.session_id:
            self._items = self._new_session(str(session.session_id))
        async with self.connection.transaction():
            for table, rows in writes.items():
                await turn_by_hand.insert(self.connection, table, rows)
        self._state = session
        items = [
            {"role": "assistant" if row["source"] == "agent" else "user", "content": row["content"]}
            for row in writes.get("episodes", [])
        ]
        if items:
            await self._items.add_items(items)


@asynccontextmanager
async def langgraph(database_url: str, _redis_url: str, desk: SupportDesk) -> AsyncIterator[Other]:
    """Open langgraph's checkpointer for the session, and its store for everything else."""
    store_class = import_module("langgraph.store.postgres.aio").AsyncPostgresStore
    saver_class = import_module("langgraph.checkpoint.postgres.aio").AsyncPostgresSaver
    put = import_module("langgraph.store.base").PutOp
    vectors: dict[str, list[float]] = {}

    async def embed(texts: list[str]) -> list[list[float]]:
        return [vectors[text] for text in texts]

    rules = [row_of("rules", part) for part in desk.parts if isinstance(part, Rule)]
    index = {"dims": len(rules[0]["embedding"]), "embed": embed, "fields": ["id"]}
    async with (
        store_class.from_conn_string(database_url, index=index) as store,
        saver_class.from_conn_string(database_url) as saver,
    ):
        await store.setup()
        await saver.setup()
        await without_vector_index(database_url)
        peer = _Langgraph(store, saver, put, vectors)
        for start in range(0, len(rules), 100):
            await peer.put("rules", rules[start : start + 100])
        yield peer


class _Langgraph(Other):
    """Documents in its store, sent in one batch, and a checkpoint of the session."""

    def __init__(self, store: Any, saver: Any, put: Any, vectors: dict[str, list[float]]) -> None:
        self._store = store
        self._saver = saver
        self._put = put
        self._vectors = vectors
        self._empty = import_module("langgraph.checkpoint.base").empty_checkpoint
        self._tenant = "tenant"

    async def get_session(self, session_id: UUID) -> Session:
        config = {"configurable": {"thread_id": str(session_id), "checkpoint_ns": ""}}
        found = await self._saver.aget_tuple(config)
        return Session.model_validate(found.checkpoint["channel_values"]["session"])

    async def find_rules(self, _agent: Agent, query: list[float]) -> list[UUID]:
        self._vectors["query"] = query
        items = await self._store.asearch((self._tenant, "rules"), query="query", limit=FIRING_RULES)
        return [UUID(item.key) for item in items if item.score >= FIRING_SCORE]

    async def find_profile(self, session: Session) -> UUID | None:
        item = await self._store.aget((self._tenant, "channel_identities"), session.user_channel_id)
        return None if item is None else UUID(item.value["profile_id"])

    async def find_in_graph(self, _tenant_id: UUID, ids: list[UUID]) -> set[UUID]:
        get = import_module("langgraph.store.base").GetOp
        tables = ("entities", "entities", "relationships")
        items = await self._store.abatch(
            [get((self._tenant, table), str(id_)) for table, id_ in zip(tables, ids, strict=True)]
        )
        return {UUID(item.key) for item in items if item is not None}

    async def write(self, session: Session, writes: Writes) -> None:
        await self._store.abatch(
            [self._operation(table, row) for table, rows in writes.items() for row in rows]
        )
        checkpoint = self._empty()
        checkpoint["channel_values"] = {"session": session.model_dump(mode="json")}
        checkpoint["channel_versions"] = {"session": f"{session.turn_count:032}.0"}
        config = {"configurable": {"thread_id": str(session.session_id), "checkpoint_ns": ""}}
        await self._saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])

    async def put(self, table: str, rows: list[Values]) -> None:
        """Store rows of one table."""
        await self._store.abatch([self._operation(table, row) for row in rows])

    def _operation(self, table: str, row: Values) -> Any:
        values = {name: _plain(value) for name, value in row.items() if name not in ("embedding", "write_id")}
        key = str(values.get("channel_user_id") or values.get("id") or uuid4())
        if row.get("embedding") is None:
            return self._put((self._tenant, table), key, values, index=False)
        self._vectors[key] = row["embedding"]
        return self._put((self._tenant, table), key, values)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str, dict)) else str(value)


OPENERS: dict[str, Opener] = {
    "by hand": turn_by_hand.opened,
    "langgraph's checkpointer and store": langgraph,
    "openai-agents' SQLAlchemySession": openai_agents,
    "SQLAlchemy's ORM": orm,
}
