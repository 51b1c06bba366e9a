"""Replay of conversations, turn by turn, as a platform would process them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from uuid import UUID, uuid5

from soldier_data.base.channels import Channel
from soldier_data.base.models import new_id, utcnow
from soldier_data.config.models import RuleHit, Template
from soldier_data.data_layer import DataLayer
from soldier_data.demo.agent import SupportDesk, build_support_desk, step_content_hash
from soldier_data.demo.models import Conversation, Exchange, Guideline
from soldier_data.demo.records import (
    audit_events,
    episodes,
    learn_profile,
    new_relationship,
    turn_record,
)
from soldier_data.demo.run_records import llm_call, run_of, step_of
from soldier_data.errors import ConflictError
from soldier_data.memory.models import Episode
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.runs.models import RunStatus
from soldier_data.sessions.models import Session, SessionStatus, StepVisit
from soldier_data.unit_of_work import UnitOfWork

CONVERSATIONS_AT_ONCE = 16

# Least similarity between the customer's message and a rule that fires.
_FIRING_SCORE = 0.25
_FIRING_RULES = 3

# Attempts at a turn. Other conversations may add the customer, the task and the relationship, one after the other, so
# that three attempts can fail.
_ATTEMPTS = 4


@dataclass
class Stopwatch:
    """Durations of operations in seconds, by name."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def measure(self, operation: str) -> Iterator[None]:
        """Record the duration of the block."""
        started = perf_counter()
        yield
        self.seconds[operation].append(perf_counter() - started)


@dataclass
class Replay:
    """Result of a replay.

    Attributes:
        desk: The agent that replied.
        stopwatch: Durations of all operations.
        session_ids: Ids of the sessions, in the order in which they ended.
        runs: Ids of the conversations by the ids of their runs.
        sentences: One customer's message for each task, used to search for rules.
        turns: Number of turns.
        seconds: Duration of the replay in seconds.
    """

    desk: SupportDesk
    stopwatch: Stopwatch
    session_ids: list[UUID] = field(default_factory=list)
    runs: dict[UUID, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    turns: int = 0
    seconds: float = 0.0


async def store_support_desk(
    data: DataLayer,
    tenant_id: UUID,
    guidelines: Iterable[Guideline],
    provider: EmbeddingProvider,
    stopwatch: Stopwatch,
) -> SupportDesk:
    """Create the agent, and store it with all its parts in one call."""
    desk = await build_support_desk(tenant_id, guidelines, provider)
    with stopwatch.measure(f"store the agent and its {len(desk.parts):,} parts"):
        await data.config.save_many([desk.agent, *desk.parts])
    return desk


async def replay(
    data: DataLayer,
    desk: SupportDesk,
    conversations: Iterable[Conversation],
    provider: EmbeddingProvider,
    stopwatch: Stopwatch,
    on_conversation: Callable[[], None],
) -> Replay:
    """Replay conversations turn by turn, several concurrently.

    Args:
        data: The data layer to store everything in.
        desk: The agent that replies.
        conversations: The conversations, which are read as needed.
        provider: Provider of the embeddings.
        stopwatch: Records the durations of operations.
        on_conversation: Called after each conversation.
    """
    result = Replay(desk, stopwatch)
    started = perf_counter()
    waiting = iter(conversations)

    async def work() -> None:
        for conversation in waiting:
            await _ConversationReplay(data, conversation, provider, result).run()
            on_conversation()

    workers = [asyncio.create_task(work()) for _ in range(CONVERSATIONS_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    result.seconds = perf_counter() - started
    return result


class _ConversationReplay:
    """Replay of one conversation."""

    def __init__(
        self, data: DataLayer, conversation: Conversation, provider: EmbeddingProvider, result: Replay
    ) -> None:
        self._data = data
        self._conversation = conversation
        self._provider = provider
        self._result = result
        self._stopwatch = result.stopwatch
        self._desk = result.desk
        self._session_id = new_id()
        self._run = run_of(conversation, self._desk.agent, self._session_id)

    async def run(self) -> None:
        """Replay the conversation as a run with a step for each exchange, in a session that is closed if completed."""
        agent = self._desk.agent
        session = Session(
            session_id=self._session_id,
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            channel=Channel.WEBCHAT,
            user_channel_id=self._conversation.customer_key or self._conversation.id,
            config_version=agent.current_version,
            variables={
                "conversation_id": self._conversation.id,
                "customer_name": self._conversation.customer_name,
            },
        )
        await self._data.sessions.save(session)
        with self._stopwatch.measure("save a run"):
            await self._data.runs.save_run(self._run)
        exchanges = self._conversation.exchanges()
        for exchange in exchanges:
            await self._replay_exchange(exchange, is_last=exchange is exchanges[-1])
        self._run.status = RunStatus.COMPLETED
        self._run.completed_at = utcnow()
        with self._stopwatch.measure("save a run"):
            await self._data.runs.save_run(self._run)
        self._result.session_ids.append(self._session_id)
        self._result.runs[self._run.id] = self._conversation.id

    async def _replay_exchange(self, exchange: Exchange, *, is_last: bool) -> None:
        """Read what the turn needs, then write what it adds in a unit of work."""
        started = perf_counter()
        # The search needs nothing of the session, so that neither waits for the other.
        session, found = await asyncio.gather(self._read_session(), self._find_rules(exchange))
        rule_ids = [hit.rule.id for hit in found]
        for rule_id in rule_ids:
            key = str(rule_id)
            session.rule_fires[key] = session.rule_fires.get(key, 0) + 1
            session.rule_last_fire_turn[key] = session.turn_count
        await self._save_templates(session, exchange)
        if exchange.number == 1:
            with self._stopwatch.measure("get or create a profile"):
                session.customer_profile_id = await learn_profile(
                    self._data.profiles, session, self._conversation
                )
        new_task = None if exchange.task == session.variables.get("open_task") else exchange.task
        self._move(session, exchange)
        session.turn_count += 1
        if is_last and any(turn.action == "complete" for turn in exchange.turns):
            session.status = SessionStatus.CLOSED
        said = await episodes(session, self._conversation, exchange, self._provider)
        for attempt in range(_ATTEMPTS):
            try:
                with self._stopwatch.measure("write a turn in a unit of work"):
                    await self._write(session, exchange, rule_ids, new_task, said, started)
                break
            except ConflictError:
                # Another conversation has added the same records to the graph meanwhile. They are found next time.
                if attempt == _ATTEMPTS - 1:
                    raise
        self._result.turns += 1

    async def _write(
        self,
        session: Session,
        exchange: Exchange,
        rule_ids: list[UUID],
        new_task: str | None,
        said: list[Episode],
        started: float,
    ) -> None:
        learned = None
        if new_task:
            customer = self._conversation.customer_name or "unknown"
            learned = await new_relationship(self._data.memory, session, customer, new_task)
        async with self._data.unit_of_work(session.tenant_id) as uow:
            if learned is not None:
                entities, relationship = learned
                for entity in entities:
                    await uow.memory.add_entity(entity)
                await uow.memory.add_relationship(relationship)
            await uow.memory.add_episodes(said)
            await self._record(uow, session, exchange, rule_ids, perf_counter() - started)
            if self._data.settings.has_durable_sessions:
                # A copy, because a save sets the revision, also if the unit of work is rolled back.
                await uow.sessions.save(session.model_copy(), if_revision=session.revision)
            else:
                # The session is saved only after the turn's writes have been committed.
                uow.after_commit(lambda: self._save(session))

    async def _read_session(self) -> Session:
        with self._stopwatch.measure("read a session"):
            session = await self._data.sessions.get(self._session_id)
        assert session is not None, "the session was saved by the exchange before"
        return session

    async def _find_rules(self, exchange: Exchange) -> list[RuleHit]:
        if not exchange.customer_text:
            return []
        if exchange.task and len(exchange.customer_text.split()) > 5:
            self._result.sentences.setdefault(exchange.task, exchange.customer_text.replace("\n", " "))
        query = await self._provider.embed(exchange.customer_text)
        agent = self._desk.agent
        with self._stopwatch.measure("find rules by vector search"):
            return await self._data.config.vector_search_rules(
                query, agent.tenant_id, agent.id, limit=_FIRING_RULES, min_score=_FIRING_SCORE
            )

    async def _record(
        self, uow: UnitOfWork, session: Session, exchange: Exchange, rule_ids: list[UUID], seconds: float
    ) -> None:
        record = turn_record(session, exchange, rule_ids, latency_ms=seconds * 1000)
        await uow.audit.save_turn(record)
        await uow.audit.save_events(audit_events(session, exchange, record))
        step = step_of(self._run, exchange, seconds)
        await uow.runs.save_step(step)
        await uow.runs.save_llm_call(llm_call(step, exchange, seconds))

    def _move(self, session: Session, exchange: Exchange) -> None:
        """Move the session to the step of the agent's last turn in the guidelines."""
        for turn in exchange.turns:
            task, key = turn.task or exchange.task, turn.step_key
            step = self._desk.steps.get((task, key)) if task and key else None
            if task is None or step is None or step.id == session.active_step_id:
                continue
            scenario = self._desk.scenarios[task]
            session.active_scenario_id = scenario.id
            session.active_scenario_version = scenario.version
            session.active_step_id = step.id
            session.step_history.append(
                StepVisit(
                    step_id=step.id,
                    step_name=step.name,
                    turn_number=session.turn_count,
                    step_content_hash=step_content_hash(step),
                )
            )
        if exchange.task:
            session.variables["open_task"] = exchange.task
            session.variable_updated_at["open_task"] = utcnow()
        for turn in exchange.actions:
            if turn.action == "query":
                session.variables["last_query"] = {"api": turn.api, "constraints": turn.constraints}
                session.variable_updated_at["last_query"] = utcnow()

    async def _save_templates(self, session: Session, exchange: Exchange) -> None:
        """Save replies that the agent typed as templates. Equal texts share a template."""
        typed = {
            turn.text
            for turn in exchange.turns
            if turn.role == "agent" and turn.free_text and turn.text.strip()
        }
        for text in sorted(typed):
            template = Template(
                id=uuid5(session.agent_id, text),
                tenant_id=session.tenant_id,
                agent_id=session.agent_id,
                name=f"Typed by an agent: {exchange.task or 'any task'}"[:100],
                text=text,
            )
            with self._stopwatch.measure("save a template"):
                await self._data.config.save_template(template)

    async def _save(self, session: Session) -> None:
        with self._stopwatch.measure("save a session"):
            await self._data.sessions.save(session)
