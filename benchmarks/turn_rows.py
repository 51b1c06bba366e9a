"""The rows that a turn of the demo adds, for those who write them without the stores."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import UUID, uuid5

from soldier_data import Session
from soldier_data.audit.models import TurnRecord
from soldier_data.base.models import new_id
from soldier_data.config.models import Template
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.memory.models import Episode
from soldier_data.memory.search import fold
from soldier_data.profiles.models import ChannelIdentity, CustomerProfile, ProfileField, ProfileFieldSource
from soldier_data.schema import metadata

Values: TypeAlias = dict[str, Any]

Writes: TypeAlias = dict[str, list[Values]]
"""Rows by table."""


def typed_templates(session: Session, exchange: Exchange) -> list[Template]:
    """Return the templates that the demo saves for an exchange."""
    typed = {t.text for t in exchange.turns if t.role == "agent" and t.free_text and t.text.strip()}
    return [
        Template(
            id=uuid5(session.agent_id, text),
            tenant_id=session.tenant_id,
            agent_id=session.agent_id,
            name=f"Typed by an agent: {exchange.task or 'any task'}"[:100],
            text=text,
        )
        for text in sorted(typed)
    ]


def row_of(table: str, entity: Any, **more: Any) -> Values:
    """Return the columns of an entity."""
    values = {**entity.__dict__, **more}
    if isinstance(entity, TurnRecord):
        values["id"] = values.pop("turn_id")
        values["tool_calls"] = [call.model_dump(mode="json") for call in entity.tool_calls]
    if isinstance(entity, Episode):
        values["content_folded"] = fold(entity.content)
    columns = metadata.tables[table].columns
    if "write_id" in columns:
        values["write_id"] = new_id()
    return {name: value for name, value in values.items() if name in columns}


def profile_rows(session: Session, conversation: Conversation, profile_id: UUID) -> Writes:
    """Return the rows of a new customer's profile."""
    key: Values = {"tenant_id": session.tenant_id, "profile_id": profile_id}
    profile = CustomerProfile(id=profile_id, tenant_id=session.tenant_id, customer_id=new_id(), revision=1)
    identity = ChannelIdentity(channel=session.channel, channel_user_id=session.user_channel_id, primary=True)
    fields = [
        ProfileField(
            name=name,
            value=value,
            value_type="string",
            source=ProfileFieldSource.USER_PROVIDED,
            collected_at=conversation.started_at,
            updated_at=conversation.started_at,
        )
        for name in ("name", "email", "phone", "account_id", "order_id")
        if (value := conversation.customer.get(name)) is not None
    ]
    return {
        "customer_profiles": [row_of("customer_profiles", profile)],
        "channel_identities": [row_of("channel_identities", identity, **key, position=0)],
        "profile_fields": [
            row_of("profile_fields", known, **key, id=new_id(), revision=1) for known in fields
        ],
    }
