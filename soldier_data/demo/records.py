"""Records of a replayed turn: its turn record, audit events and episodes, and data about the customer."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.base.models import new_id
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.errors import ConflictError
from soldier_data.memory.models import Entity, Episode, EpisodeSource, Relationship
from soldier_data.memory.store import MemoryStore
from soldier_data.profiles.models import (
    ChannelIdentity,
    CustomerProfile,
    ProfileField,
    ProfileFieldSource,
)
from soldier_data.profiles.store import ProfileStore
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.sessions.models import Session

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
        mentioned.append(task_entity_id(session, exchange.task))
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


async def learn_profile(profiles: ProfileStore, session: Session, conversation: Conversation) -> UUID:
    """Store what the conversation tells about the customer in the customer's profile; return the profile's id."""
    identity = ChannelIdentity(channel=session.channel, channel_user_id=session.user_channel_id, primary=True)
    while True:
        profile = await profiles.get_by_channel_identity(
            session.tenant_id, session.channel, session.user_channel_id
        ) or CustomerProfile(tenant_id=session.tenant_id, customer_id=new_id(), channel_identities=[identity])
        learned = _learned_fields(profile, conversation)
        if profile.revision and not learned:
            return profile.id
        profile.fields |= learned
        # Another conversation of the same customer may save the profile meanwhile. It is read again then.
        with suppress(ConflictError):
            return await profiles.save(profile, if_revision=profile.revision)


def _learned_fields(profile: CustomerProfile, conversation: Conversation) -> dict[str, ProfileField]:
    learned = {}
    for name in _PROFILE_FIELDS:
        value = conversation.customer.get(name)
        known = profile.fields.get(name)
        if value is None or (known is not None and known.value == value):
            continue
        learned[name] = ProfileField(
            name=name,
            value=value,
            value_type="string",
            source=ProfileFieldSource.USER_PROVIDED,
            collected_at=conversation.started_at,
            updated_at=conversation.started_at,
        )
    return learned


async def new_relationship(
    memory: MemoryStore, session: Session, name: str, task: str
) -> tuple[list[Entity], Relationship] | None:
    """Return what the graph lacks of the relationship between the customer and a task; None if it is stored."""
    customer_id, task_id = customer_entity_id(session), task_entity_id(session, task)
    scope: dict[str, Any] = {"tenant_id": session.tenant_id, "group_id": GRAPH}
    reached = await memory.traverse_from_entities([customer_id], **scope, depth=1)
    known = {entity.id for entity in reached}
    if task_id in known:
        return None
    entities = []
    if customer_id not in known:
        entities.append(Entity(id=customer_id, name=name, entity_type="customer", **scope))
    if await memory.get_entity(session.tenant_id, task_id) is None:
        entities.append(Entity(id=task_id, name=task, entity_type="task", **scope))
    relationship = Relationship(
        id=uuid5(customer_id, task),
        from_entity_id=customer_id,
        to_entity_id=task_id,
        relation_type="asked for",
        **scope,
    )
    return entities, relationship


def customer_entity_id(session: Session) -> UUID:
    """Return the id of the entity for the customer of a session."""
    return uuid5(session.agent_id, f"customer {session.user_channel_id}")


def task_entity_id(session: Session, task: str) -> UUID:
    """Return the id of the entity for a task."""
    return uuid5(session.agent_id, f"task {task}")
