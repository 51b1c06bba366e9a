"""What saving and looking up mean, for every store alike."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.values import check_integer, check_storable, check_text
from soldier_data.errors import ConflictError, StoreError, ValidationError
from soldier_data.sessions.codec import unreadable
from soldier_data.sessions.models import MILLISECOND, Session, SessionStatus, SessionTierConfig

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

StepPlace = tuple[UUID, int, str]
"""Scenario, its version, and the content hash of the step."""


def step_place(session: Session) -> StepPlace | None:
    """Where an active session stands, or None if a scenario migration could not find it anywhere."""
    visit = session.last_visit
    if (
        session.status is not SessionStatus.ACTIVE
        or session.active_scenario_id is None
        or session.active_scenario_version is None
        or visit is None
        or visit.step_content_hash is None
    ):
        return None
    return session.active_scenario_id, session.active_scenario_version, visit.step_content_hash


def in_scope(session: Session, scope: ScopeFilter, now: datetime) -> bool:
    """Whether a scenario migration with this scope concerns the session."""
    visit = session.last_visit
    step_name = visit.step_name if visit else None
    age = now - session.created_at
    return (
        (not scope.include_channels or session.channel in scope.include_channels)
        and session.channel not in scope.exclude_channels
        and (not scope.include_current_nodes or step_name in scope.include_current_nodes)
        and step_name not in scope.exclude_current_nodes
        and (scope.max_session_age_days is None or age <= _days(scope.max_session_age_days))
        and (scope.min_session_age_days is None or age >= _days(scope.min_session_age_days))
    )


def _days(count: int) -> timedelta:
    return timedelta(days=min(count, timedelta.max.days))


def past_max_age(session: Session, config: SessionTierConfig, now: datetime) -> bool:
    """Whether the session's time is over, however busy it is."""
    return now - session.created_at >= config.max_session_age


def milliseconds_to_live(session: Session, config: SessionTierConfig, now: datetime) -> int:
    """How long a session that is saved now may stay stored.

    Raises:
        ValidationError: Its time is over, or it is a copy that was given something of a wrong type.
    """
    at: Any = session.created_at
    tenant_id: Any = session.tenant_id
    if not (isinstance(at, datetime) and at.tzinfo is not None and isinstance(tenant_id, UUID)):
        check_storable(session)
    left = (config.max_session_age - (now - session.created_at)) // MILLISECOND
    if left < 1:
        raise ValidationError(
            f"session {session.session_id} was created longer ago than max_session_age "
            f"({config.max_session_age}) and can no longer be saved: start a new session",
            field="created_at",
        )
    return min(config.persist_ttl // MILLISECOND, left)


def mark_saved(session: Session, now: datetime, revision: int) -> None:
    """Tell the session that it was saved."""
    # Not by assignment, which validates the session: both are known to be valid, and every save comes here.
    session.__dict__.update(last_activity_at=now, revision=revision)
    session.model_fields_set.update(("last_activity_at", "revision"))


def conflict(session: Session, expected: int, stored: int) -> ConflictError:
    """The error of a conditional save that came too late."""
    return ConflictError(
        f"session {session.session_id} has revision {stored}, not {expected}: "
        "read it again, repeat the change and save that"
    )


def taken(session: Session) -> ConflictError:
    """The error of a save under an id that another tenant uses. It says nothing about that session."""
    return ConflictError(f"the id of session {session.session_id} is taken: use another id")


def refusal(
    session: Session, if_revision: int | None, outcome: bytes, stored: int, *, key: str
) -> StoreError:
    """The error for what the save script answered in place of a revision."""
    if outcome == b"conflict" and if_revision is not None:
        return conflict(session, if_revision, stored)
    return taken(session) if outcome == b"taken" else unreadable(key)


def milliseconds(moment: datetime) -> int:
    """The moment in milliseconds since 1970, as Redis counts."""
    return (moment - _EPOCH) // MILLISECOND


def new_write_id() -> str:
    """What a call that writes is known by, should it be repeated because its reply was lost."""
    return os.urandom(6).hex()


def microseconds(moment: datetime) -> int:
    """The moment in microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def check_place(scenario_version: int, step_content_hash: str) -> None:
    """Check what `find_sessions_by_step_hash` is asked for.

    Raises:
        ValidationError: Names the argument.
    """
    check_integer(scenario_version, "scenario_version")
    check_text(step_content_hash, "step_content_hash")
