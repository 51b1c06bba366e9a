"""The tables of the audit domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Double, Index
from sqlalchemy.orm import Mapped, mapped_column

from soldier_data.base.models import utcnow
from soldier_data.postgres.orm import Base, Document, TenantKey


def _append_only(*erasable: str) -> dict[str, Any]:
    """The `Table.info` of a table on which the application's role has only the privileges SELECT and INSERT.

    Args:
        erasable: The columns with personal texts, which a role that erases customers may update.
    """
    return {"append_only": True, "erasable": erasable}


class TurnRecordRow(TenantKey, Base):
    """A turn of a conversation (`TurnRecord`). Tool calls are read and written only with their turn, as one document.

    Attributes:
        id: The turn_id.
    """

    __tablename__ = "turn_records"
    __table_args__ = (
        Index("ix_turn_records_session", "tenant_id", "session_id", "timestamp", "turn_number", "id"),
        Index("ix_turn_records_page", "tenant_id", "timestamp", "id"),
        {"info": _append_only("user_message", "agent_response", "tool_calls")},
    )

    agent_id: Mapped[UUID]
    session_id: Mapped[UUID]
    turn_number: Mapped[int]
    user_message: Mapped[str]
    agent_response: Mapped[str]
    matched_rule_ids: Mapped[list[UUID]] = mapped_column(default=list)
    scenario_id: Mapped[UUID | None]
    step_id: Mapped[UUID | None]
    tool_calls: Mapped[list[Any]] = mapped_column(Document, default=list)
    latency_ms: Mapped[float] = mapped_column(Double)
    tokens_used: Mapped[int]
    timestamp: Mapped[datetime] = mapped_column(default=utcnow)


class AuditEventRow(TenantKey, Base):
    """An event that must be accounted for (`AuditEvent`)."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_session", "tenant_id", "session_id", "timestamp", "id"),
        {"info": _append_only("event_data")},
    )

    event_type: Mapped[str]
    event_data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    session_id: Mapped[UUID | None]
    turn_id: Mapped[UUID | None]
    timestamp: Mapped[datetime] = mapped_column(default=utcnow)
