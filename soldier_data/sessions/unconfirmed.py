"""Saves whose outcome is unknown, remembered so that a repetition of the same save takes effect only once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.sessions.codec import encode, new_write_id
from soldier_data.sessions.models import Session

_MAX_REMEMBERED = 10_000
# A later save is a new one: it should win over what others have saved since.
_REPEATED_WITHIN = timedelta(minutes=1)


class Write(NamedTuple):
    """The identity of a save; a repetition of the save has the same one."""

    id: str
    time: datetime
    if_revision: int | None


class UnconfirmedSaves:
    """The last save of each session that failed without an answer from Redis.

    It may have been stored. Repeated under a new write id, it would count twice, or be refused for a stale revision.
    """

    def __init__(self) -> None:
        self._saves: OrderedDict[UUID, tuple[Write, bytes]] = OrderedDict()

    def start(self, session: Session, if_revision: int | None) -> Write:
        """Return the identity of the unconfirmed save that a save of `session` repeats, or else a new one."""
        new = Write(new_write_id(), utcnow(), if_revision)
        failed = self._saves.pop(session.session_id, None) if self._saves else None
        if failed is None:
            return new
        write, digest = failed
        is_repeated = (
            write.if_revision == if_revision
            and new.time - write.time <= _REPEATED_WITHIN
            and _digest(encode(session, write.time)) == digest
        )
        return write if is_repeated else new

    def add(self, session: Session, write: Write, body: bytes) -> None:
        """Remember a save that failed, with the body that it sent."""
        self._saves[session.session_id] = write, _digest(body)
        if len(self._saves) > _MAX_REMEMBERED:
            self._saves.popitem(last=False)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
