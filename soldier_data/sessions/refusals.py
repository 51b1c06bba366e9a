"""The errors of refused operations, the same for every store."""

from __future__ import annotations

from soldier_data.errors import ConflictError, StoreError
from soldier_data.sessions.models import Session


def conflict(session: Session, expected: int, stored: int) -> ConflictError:
    """Return the error for a conditional save when the stored revision differs."""
    return ConflictError(
        f"session {session.session_id} has revision {stored}, not {expected}: "
        "read it again, reapply the change and save the result"
    )


def id_taken(session: Session) -> ConflictError:
    """Return the error for a save under an id that another tenant uses, without details of that session."""
    return ConflictError(f"session id {session.session_id} is already in use: choose another id")


def unreadable(key: str, cause: Exception | None = None) -> StoreError:
    """Return the error for a stored value that is not a session in a supported format."""
    return StoreError(
        f"the value of Redis key {key} is not a session that this version can read, and was not changed: "
        "inspect it, and delete the session if it is no longer needed",
        cause=cause,
    )


def refused_save(
    session: Session, if_revision: int | None, reason: bytes, stored: int, *, key: str
) -> StoreError:
    """Return the error for a save that `save.lua` refused, from the list that it returned."""
    if reason == b"conflict" and if_revision is not None:
        return conflict(session, if_revision, stored)
    return id_taken(session) if reason == b"taken" else unreadable(key)
