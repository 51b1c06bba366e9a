"""The table of the sessions domain, used with `SOLDIER_SESSION_DURABILITY=postgres`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from soldier_data.postgres.orm import Base, TenantKey


class SessionRow(TenantKey, Base):
    """`Session`. It is stored as a compressed document; the other columns are those that sessions are found by.

    Attributes:
        scenario_id: With the next two, the step at which scenario migrations find the session; NULL for sessions that
            they do not apply to.
        write_id: Id of the latest save, the same as in Redis.
        document: The session's JSON without `tenant_id` and `revision`, compressed (see `sessions.codec`).
    """

    __tablename__ = "sessions"
    __table_args__ = (
        # For reads without a tenant.
        Index("ix_sessions_id", "id"),
        # `status` comes last, so that one index serves lists with and without it.
        Index("ix_sessions_agent", "tenant_id", "agent_id", "last_activity_at", "id", "status"),
        Index("ix_sessions_customer", "tenant_id", "customer_profile_id"),
        Index("ix_sessions_channel", "tenant_id", "channel", "user_channel_id"),
        Index("ix_sessions_step", "tenant_id", "scenario_id", "scenario_version", "step_content_hash"),
    )

    agent_id: Mapped[UUID]
    channel: Mapped[str]
    user_channel_id: Mapped[str]
    customer_profile_id: Mapped[UUID | None]
    status: Mapped[str]
    scenario_id: Mapped[UUID | None]
    scenario_version: Mapped[int | None]
    step_content_hash: Mapped[str | None]
    created_at: Mapped[datetime]
    last_activity_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revision: Mapped[int]
    write_id: Mapped[str]
    document: Mapped[bytes] = mapped_column(LargeBinary)
