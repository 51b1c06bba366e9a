"""The errors of refused operations, the same for every store."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.errors import ConflictError, StoreError
from soldier_data.sessions.models import Session


def conflict(session: Session, expected: int, stored: int, *, fresh: bool = False) -> ConflictError:
    """Return the error for a conditional save when the stored revision differs.

    With `fresh`, the message says that Redis may have an earlier revision.
    """
    read = "read it again with get(..., fresh=True)" if fresh else "read it again"
    return ConflictError(
        f"session {session.session_id} has revision {stored}, not {expected}: {read}, reapply the change and save "
        "the result"
    )


def id_taken(session: Session) -> ConflictError:
    """Return the error for a save under an id that another tenant uses, without details of that session."""
    return ConflictError(f"session id {session.session_id} is already in use: choose another id")


def changed_while_marking(left: Sequence[UUID], marked: int) -> ConflictError:
    """Return the error for sessions that changed during every attempt to mark them."""
    return ConflictError(
        f"{len(left)} sessions, such as {left[0]}, changed during every attempt to mark them; {marked} were "
        "marked: try again"
    )


def unreadable(name: str, cause: Exception | None = None) -> StoreError:
    """Return the error for a stored value that is not a session in a supported format."""
    return StoreError(
        f"the value of {name} is not a session that this version can read, and was not changed: "
        "inspect it, and delete the session if it is no longer needed",
        cause=cause,
    )


def refused_save(
    session: Session, if_revision: int | None, reason: bytes, stored: int, *, key: str
) -> StoreError:
    """Return the error for a save that `save.lua` refused, from the list that it returned."""
    if reason == b"conflict" and if_revision is not None:
        return conflict(session, if_revision, stored)
    return id_taken(session) if reason == b"taken" else unreadable(f"Redis key {key}")
