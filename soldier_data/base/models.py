"""The Pydantic bases that the entities of every domain are built from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

import uuid_utils.compat
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import ExtraValues


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
    """Base of all entities and of their parts: validates on assignment, and refuses unknown names when constructed.

    `model_validate` and `model_validate_json` read what was stored, perhaps by a newer version that knows more
    fields: they ignore unknown names at every depth, unless `extra="forbid"` is passed.
    """

    model_config = ConfigDict(validate_assignment=True, extra="forbid")

    # Written out, because a call of Pydantic's own method would make a read of an entity a fifth slower.
    @classmethod
    def model_validate(
        cls,
        obj: Any,
        *,
        strict: bool | None = None,
        extra: ExtraValues | None = "ignore",
        from_attributes: bool | None = None,
        context: Any | None = None,
        by_alias: bool | None = None,
        by_name: bool | None = None,
    ) -> Self:
        """As Pydantic's, but for unknown names."""
        validated: Self = cls.__pydantic_validator__.validate_python(
            obj,
            strict=strict,
            extra=extra,
            from_attributes=from_attributes,
            context=context,
            by_alias=by_alias,
            by_name=by_name,
        )
        return validated

    @classmethod
    def model_validate_json(
        cls,
        json_data: str | bytes | bytearray,
        *,
        strict: bool | None = None,
        extra: ExtraValues | None = "ignore",
        context: Any | None = None,
        by_alias: bool | None = None,
        by_name: bool | None = None,
    ) -> Self:
        """As Pydantic's, but for unknown names."""
        validated: Self = cls.__pydantic_validator__.validate_json(
            json_data, strict=strict, extra=extra, context=context, by_alias=by_alias, by_name=by_name
        )
        return validated


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
