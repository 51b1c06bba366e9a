"""The Pydantic bases that the entities of every domain are built from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import uuid_utils.compat
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field


def new_id() -> UUID:
    """A new UUIDv7: ordered by time, so that rows made together lie together in an index."""
    return uuid_utils.compat.uuid7()


def utcnow() -> datetime:
    """The present moment in UTC, to the microsecond, which is what PostgreSQL keeps."""
    return datetime.now(UTC)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A datetime kept in UTC. Python takes those of one zone for their clock times when it compares them, which goes
wrong in the hour that the clocks repeat."""


class Model(BaseModel):
    """Base of all entities and of their parts: validates on assignment and ignores unknown keys."""

    model_config = ConfigDict(validate_assignment=True, extra="ignore")


class TenantScoped(Model):
    """An entity of one tenant that can be changed and (softly) deleted.

    Attributes:
        revision: 0 until the entity is saved; each save adds one. `if_revision` compares with it.
        deleted_at: Set on a softly deleted entity, which no read returns.
    """

    tenant_id: UUID
    created_at: Moment = Field(default_factory=utcnow)
    updated_at: Moment = Field(default_factory=utcnow)
    deleted_at: Moment | None = None
    revision: int = Field(default=0, ge=0)

    @property
    def is_deleted(self) -> bool:
        """Whether the entity is softly deleted."""
        return self.deleted_at is not None

    def touch(self) -> None:
        """Set `updated_at` to now."""
        self.updated_at = utcnow()

    def soft_delete(self) -> None:
        """Mark the entity as deleted now. It has to be saved to take effect in a store."""
        now = utcnow()
        self.deleted_at = now
        self.updated_at = now


class AgentScoped(TenantScoped):
    """An entity that belongs to one agent of a tenant."""

    agent_id: UUID


def mark_saved(entity: Any, updated_at: datetime, revision: int) -> None:
    """Set what a save sets on the entity that was passed.

    Both values are right by themselves. An assignment would validate the whole entity again, which takes as long
    as the save waits for PostgreSQL.
    """
    entity.__dict__.update(updated_at=updated_at, revision=revision)
    entity.__pydantic_fields_set__.update(("updated_at", "revision"))
