"""The scenario steps at which scenario migrations find sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.values import check_integer, check_text
from soldier_data.sessions.models import Session, SessionStatus

StepPlace = tuple[UUID, int, str]
"""Scenario id, scenario version, and content hash of the step."""


def step_place(session: Session) -> StepPlace | None:
    """Return the current step of an active session, or None if scenario migrations do not apply to it."""
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


def check_place(scenario_version: int, step_content_hash: str) -> None:
    """Check the arguments of `find_sessions_by_step_hash`.

    Raises:
        ValidationError: Names the argument.
    """
    check_integer(scenario_version, "scenario_version")
    check_text(step_content_hash, "step_content_hash")


def in_scope(session: Session, scope: ScopeFilter | None, now: datetime) -> bool:
    """Return whether a scenario migration with this scope, None for all sessions, applies to the session."""
    if scope is None:
        return True
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
