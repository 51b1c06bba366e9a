"""Records of a replayed turn: its turn record, audit events and episodes, and data about the customer."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.errors import ConflictError
from soldier_data.memory.models import Entity, Episode, EpisodeSource, Relationship
from soldier_data.profiles.models import CustomerProfile, ProfileField, ProfileFieldSource
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.sessions.models import Session
from soldier_data.unit_of_work import UnitOfWork

GRAPH = "who asks for what"
"""Group of the entities and relationships: one graph for the whole support desk."""

# Data about the customer that is stored in the profile.
_PROFILE_FIELDS = ("name", "email", "phone", "account_id", "order_id")


def customer_group(conversation: Conversation) -> str:
    """Return the group of a customer's episodes in all conversations."""
    return f"customer {conversation.customer_key or conversation.id}"


def turn_record(session: Session, exchange: Exchange, rule_ids: list[UUID], latency_ms: float) -> TurnRecord:
    """Return the turn record of an exchange."""
    return TurnRecord(
        tenant_id=session.tenant_id,
        agent_id=session.agent_id,
        session_id=session.session_id,
        turn_number=exchange.number,
        user_message=exchange.customer_text,
        agent_response=exchange.reply_text,
        matched_rule_ids=rule_ids,
        scenario_id=session.active_scenario_id,
        step_id=session.active_step_id,
        tool_calls=[
            ToolCall(
                tool_id=turn.api or turn.action or "unknown",
                tool_name=turn.text[:100],
                input=dict(turn.constraints),
                output=dict(turn.item) or list(turn.values),
                success=True,
                latency_ms=0,
            )
            for turn in exchange.actions
        ],
        latency_ms=latency_ms,
        tokens_used=0,
        timestamp=exchange.started_at,
    )


def audit_events(session: Session, exchange: Exchange, record: TurnRecord) -> list[AuditEvent]:
    """Return an event for each action of an exchange, and one for the beginning of the conversation."""
    happened: list[tuple[str, datetime, dict[str, str | None]]] = []
    if exchange.number == 1:
        happened.append(("session_started", exchange.started_at, {"channel": session.channel.value}))
    happened += [(turn.action or "action", turn.at, {"api": turn.api}) for turn in exchange.actions]
    return [
        AuditEvent(
            tenant_id=session.tenant_id,
            event_type=event_type,
            event_data=data,
            session_id=session.session_id,
            turn_id=record.turn_id,
            timestamp=at,
        )
        for event_type, at, data in happened
    ]


async def episodes(
    session: Session, conversation: Conversation, exchange: Exchange, provider: EmbeddingProvider
) -> list[Episode]:
    """Return the messages of an exchange as episodes with embeddings."""
    source_of: dict[str, EpisodeSource] = {"customer": "user", "agent": "agent"}
    messages = [turn for turn in exchange.turns if turn.role in source_of and turn.text.strip()]
    vectors = await provider.embed_batch([turn.text for turn in messages])
    mentioned = [customer_entity_id(session)]
    if exchange.task:
        mentioned.append(_task_id(session, exchange.task))
    return [
        Episode(
            tenant_id=session.tenant_id,
            group_id=customer_group(conversation),
            agent_id=session.agent_id,
            customer_profile_id=session.customer_profile_id,
            session_id=session.session_id,
            content=turn.text,
            source=source_of[turn.role],
            source_metadata={"conversation": conversation.id, "turn": exchange.number},
            occurred_at=turn.at,
            embedding=vector,
            embedding_model=provider.model_id,
            entity_ids=mentioned,
        )
        for turn, vector in zip(messages, vectors, strict=True)
    ]


async def learn_profile(uow: UnitOfWork, profile: CustomerProfile, conversation: Conversation) -> None:
    """Add the customer's data in the conversation to the profile, unless it is there already."""
    for name in _PROFILE_FIELDS:
        value = conversation.customer.get(name)
        known = profile.fields.get(name)
        if value is None or (known is not None and known.value == value):
            continue
        field = ProfileField(
            name=name,
            value=value,
            value_type="string",
            source=ProfileFieldSource.USER_PROVIDED,
            collected_at=conversation.started_at,
            updated_at=conversation.started_at,
        )
        await uow.profiles.update_field(profile.tenant_id, profile.id, field)


async def learn_relationship(uow: UnitOfWork, session: Session, name: str, task: str) -> None:
    """Store the relationship between the customer and a task."""
    customer_id, task_id = customer_entity_id(session), _task_id(session, task)
    relationship_id = uuid5(customer_id, task)
    if await uow.memory.get_relationship(session.tenant_id, relationship_id) is not None:
        return
    scope: dict[str, Any] = {"tenant_id": session.tenant_id, "group_id": GRAPH}
    entities = [
        Entity(id=customer_id, name=name, entity_type="customer", **scope),
        Entity(id=task_id, name=task, entity_type="task", **scope),
    ]
    for entity in entities:
        if await uow.memory.get_entity(entity.tenant_id, entity.id) is None:
            await _unless_taken(uow.memory.add_entity(entity))
    edge = Relationship(
        id=relationship_id,
        from_entity_id=customer_id,
        to_entity_id=task_id,
        relation_type="asked for",
        **scope,
    )
    await _unless_taken(uow.memory.add_relationship(edge))


async def _unless_taken(adding: Awaitable[UUID]) -> None:
    # Another conversation of the same customer may add the same record meanwhile. The conflict leaves the unit of work
    # usable.
    with suppress(ConflictError):
        await adding


def customer_entity_id(session: Session) -> UUID:
    """Return the id of the entity for the customer of a session."""
    return uuid5(session.agent_id, f"customer {session.user_channel_id}")


def _task_id(session: Session, task: str) -> UUID:
    return uuid5(session.agent_id, f"task {task}")
