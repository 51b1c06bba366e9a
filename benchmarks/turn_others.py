"""The demo's turn without the stores: what it reads and writes, for those who do so by hand or with a library."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Any, TypeAlias
from uuid import UUID, uuid5

from redis.asyncio import Redis

from benchmarks.turn_rows import Writes, profile_rows, row_of, typed_templates
from benchmarks.turn_sample import Recorder
from soldier_data import Agent, Channel, Session
from soldier_data.base.models import new_id
from soldier_data.demo import records, replay
from soldier_data.demo.agent import SupportDesk
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.demo.run_records import llm_call, run_of, step_of
from soldier_data.memory.models import Entity, Relationship
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.runs.models import Run

SESSION_MS = 30 * 60 * 1000
FIRING_RULES, FIRING_SCORE = 3, 0.25

Opener: TypeAlias = Callable[[str, str, SupportDesk], AbstractAsyncContextManager["Other"]]
"""Opens an implementation on the URLs of PostgreSQL and Redis, with the rules of the desk stored."""


class Other(ABC):
    """An implementation of the demo's turn. The methods are called in this order; `find_*` only for what is new."""

    @abstractmethod
    async def get_session(self, session_id: UUID) -> Session: ...

    @abstractmethod
    async def find_rules(self, agent: Agent, query: list[float]) -> list[UUID]: ...

    @abstractmethod
    async def find_profile(self, session: Session) -> UUID | None: ...

    @abstractmethod
    async def find_in_graph(self, tenant_id: UUID, ids: list[UUID]) -> set[UUID]:
        """Return those of `ids`, two entities and their relationship, that are stored."""

    @abstractmethod
    async def write(self, session: Session, writes: Writes) -> None:
        """Store all rows in one transaction, and then the session."""

    async def replay(
        self,
        conversation: Conversation,
        desk: SupportDesk,
        provider: EmbeddingProvider,
        recorder: Recorder,
    ) -> None:
        """Process a conversation, as the demo does."""
        agent = desk.agent
        session = Session(
            session_id=new_id(),
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            channel=Channel.WEBCHAT,
            user_channel_id=conversation.customer_key or conversation.id,
            config_version=agent.current_version,
            variables={"conversation_id": conversation.id, "customer_name": conversation.customer_name},
        )
        run = run_of(conversation, agent, session.session_id)
        await self.write(session, {"runs": [row_of("runs", run, revision=1)]})
        moving = replay._ConversationReplay(  # noqa: SLF001 - for its decisions.
            None,  # type: ignore[arg-type] # Only its `_move` is called, which stores nothing.
            conversation,
            provider,
            replay.Replay(desk, replay.Stopwatch()),
        )
        for exchange in conversation.exchanges():
            async with recorder.turn(exchange.number):
                await self._turn(session.session_id, agent, conversation, run, exchange, moving, provider)

    async def _turn(
        self,
        session_id: UUID,
        agent: Agent,
        conversation: Conversation,
        run: Run,
        exchange: Exchange,
        moving: Any,
        provider: EmbeddingProvider,
    ) -> None:
        started = perf_counter()
        writes: Writes = {}

        async def find_rules() -> list[UUID]:
            if not exchange.customer_text:
                return []
            return await self.find_rules(agent, await provider.embed(exchange.customer_text))

        session, rule_ids = await asyncio.gather(self.get_session(session_id), find_rules())
        for id_ in rule_ids:
            session.rule_fires[str(id_)] = session.rule_fires.get(str(id_), 0) + 1
            session.rule_last_fire_turn[str(id_)] = session.turn_count
        if exchange.number == 1:
            session.customer_profile_id = await self.find_profile(session)
            if session.customer_profile_id is None:
                session.customer_profile_id = new_id()
                writes |= profile_rows(session, conversation, session.customer_profile_id)
        if exchange.task and exchange.task != session.variables.get("open_task"):
            writes |= await self._graph(session, conversation, exchange.task)
        episodes = await records.episodes(session, conversation, exchange, provider)
        moving._move(session, exchange)  # noqa: SLF001 - as above.
        session.turn_count += 1
        record = records.turn_record(session, exchange, rule_ids, (perf_counter() - started) * 1000)
        step = step_of(run, exchange, perf_counter() - started)
        call = llm_call(step, exchange, perf_counter() - started)
        writes |= {
            "templates": [
                row_of("templates", template, revision=1) for template in typed_templates(session, exchange)
            ],
            "turn_records": [row_of("turn_records", record)],
            "audit_events": [
                row_of("audit_events", event) for event in records.audit_events(session, exchange, record)
            ],
            "episodes": [row_of("episodes", episode) for episode in episodes],
            "steps": [row_of("steps", step)],
            "llm_calls": [row_of("llm_calls", call)],
        }
        await self.write(session, {table: rows for table, rows in writes.items() if rows})

    async def _graph(self, session: Session, conversation: Conversation, task: str) -> Writes:
        customer_id, task_id = records.customer_entity_id(session), records.task_entity_id(session, task)
        scope: dict[str, Any] = {"tenant_id": session.tenant_id, "group_id": records.GRAPH}
        edge = Relationship(
            id=uuid5(customer_id, task),
            from_entity_id=customer_id,
            to_entity_id=task_id,
            relation_type="asked for",
            **scope,
        )
        found = await self.find_in_graph(session.tenant_id, [customer_id, task_id, edge.id])
        name = conversation.customer_name or "unknown"
        entities = [
            Entity(id=customer_id, name=name, entity_type="customer", **scope),
            Entity(id=task_id, name=task, entity_type="task", **scope),
        ]
        return {
            "entities": [row_of("entities", entity) for entity in entities if entity.id not in found],
            "relationships": [] if edge.id in found else [row_of("relationships", edge)],
        }


class SessionsInRedis:
    """Sessions as JSON in Redis, by redis-py."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def get(self, session_id: UUID) -> Session:
        """Read a session."""
        value = await self._client.get(f"hand:{session_id}")
        assert value is not None
        return Session.model_validate_json(value)

    async def save(self, session: Session) -> None:
        """Write a session."""
        await self._client.set(f"hand:{session.session_id}", session.model_dump_json(), px=SESSION_MS)


@asynccontextmanager
async def sessions_in_redis(url: str) -> AsyncIterator[SessionsInRedis]:
    """Open the sessions."""
    async with Redis.from_url(url) as client:
        yield SessionsInRedis(client)
