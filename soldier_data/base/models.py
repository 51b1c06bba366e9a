"""Pydantic base classes of the entities of all domains."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

import uuid_utils.compat
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import ExtraValues


def new_id() -> UUID:
    """A new version 7 UUID. These sort by creation time, so that new rows are adjacent in an index."""
    return uuid_utils.compat.uuid7()


def utcnow() -> datetime:
    """The current time in UTC, in microseconds: the resolution of PostgreSQL."""
    return datetime.now(UTC)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""An aware datetime, converted to UTC. Python compares two datetimes of the same zone by their local time, which is
wrong in the hour that is repeated when daylight saving time ends; and JSON keeps UTC offsets in whole minutes only."""


class Model(BaseModel):
    """Base class of entities and their parts. Validates on assignment, and rejects unknown names on construction.

    `model_validate` and `model_validate_json` read stored data, which a newer version with more fields may have
    written: they ignore unknown names at every level, unless `extra="forbid"` is passed.
    """

    # Most processes use a few of the entities, so each validator is built on first use, not at import.
    model_config = ConfigDict(validate_assignment=True, extra="forbid", defer_build=True)

    # Not a call of super(): that would make reading an entity a fifth slower.
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
        """Pydantic's method with another default of `extra`."""
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
        """Pydantic's method with another default of `extra`."""
        validated: Self = cls.__pydantic_validator__.validate_json(
            json_data, strict=strict, extra=extra, context=context, by_alias=by_alias, by_name=by_name
        )
        return validated


class TenantScoped(Model):
    """Base class of entities that belong to a tenant and can be changed and soft-deleted.

    Attributes:
        revision: Number of saves, 0 before the first. Pass it as `if_revision` to save conditionally.
        deleted_at: Time of the soft deletion, or None. Reads do not return deleted entities.
    """

    tenant_id: UUID
    created_at: Moment = Field(default_factory=utcnow)
    updated_at: Moment = Field(default_factory=utcnow)
    deleted_at: Moment | None = None
    revision: int = Field(default=0, ge=0)

    @property
    def is_deleted(self) -> bool:
        """True if the entity is soft-deleted."""
        return self.deleted_at is not None

    def touch(self) -> None:
        """Set `updated_at` to now."""
        self.updated_at = utcnow()

    def soft_delete(self) -> None:
        """Mark the entity as deleted now. Save it to delete it in a store."""
        now = utcnow()
        self.deleted_at = now
        self.updated_at = now


class AgentScoped(TenantScoped):
    """Base class of entities that belong to one agent of a tenant."""

    agent_id: UUID


def mark_saved(entity: Any, saved_at: datetime, revision: int, time_field: str = "updated_at") -> None:
    """Set the time field and `revision` of a saved entity without validation.

    Assigning them would validate the whole entity again, which takes as long as the save waits for PostgreSQL.
    """
    entity.__dict__.update({time_field: saved_at, "revision": revision})
    entity.__pydantic_fields_set__.update((time_field, "revision"))
