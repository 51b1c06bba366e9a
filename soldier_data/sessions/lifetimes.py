"""Session lifetimes, and times as Redis counts them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from soldier_data.base.values import check_storable
from soldier_data.errors import ValidationError
from soldier_data.sessions.models import MILLISECOND, Session, SessionTierConfig

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def past_max_age(session: Session, config: SessionTierConfig, now: datetime) -> bool:
    """Return whether the session has expired because of its age, regardless of activity."""
    return now - session.created_at >= config.max_session_age


def milliseconds_to_live(session: Session, config: SessionTierConfig, now: datetime) -> int:
    """Return how long a session that is saved now stays stored, at least 1 ms.

    Raises:
        ValidationError: The session is past `max_session_age`, or is a `model_copy` with values of a wrong type.
    """
    created_at: Any = session.created_at
    tenant_id: Any = session.tenant_id
    if not (
        isinstance(created_at, datetime) and created_at.tzinfo is not None and isinstance(tenant_id, UUID)
    ):
        check_storable(session)
    left = (config.max_session_age - (now - session.created_at)) // MILLISECOND
    if left < 1:
        raise ValidationError(
            f"session {session.session_id} is older than max_session_age ({config.max_session_age}) "
            "and can no longer be saved: start a new session",
            field="created_at",
        )
    return min(config.persist_ttl // MILLISECOND, left)


def milliseconds(time: datetime) -> int:
    """Return the time in milliseconds since 1970, rounded down."""
    return (time - _EPOCH) // MILLISECOND


def microseconds(time: datetime) -> int:
    """Return the time in microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND
