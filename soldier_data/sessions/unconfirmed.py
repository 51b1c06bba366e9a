"""Saves of which nobody knows whether they took effect, to be known again when they are repeated."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from soldier_data.sessions.codec import encode
from soldier_data.sessions.models import Session

_KEPT = 10_000
# Later it is a wish of its own, to win over what others have saved since.
_REPEATED_WITHIN = timedelta(minutes=1)


class Save(NamedTuple):
    """What a save is known by, and the moment that it bears."""

    write_id: str
    moment: datetime
    if_revision: int | None
    digest: bytes


class UnconfirmedSaves:
    """The last save of each session that failed for want of an answer.

    If its caller repeats it, it has to be the same save again: it may have been stored, and would then be refused
    for a stale revision, or count twice.
    """

    def __init__(self) -> None:
        self._saves: OrderedDict[UUID, Save] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._saves)

    def keep(
        self, session: Session, write_id: str, moment: datetime, if_revision: int | None, body: bytes
    ) -> None:
        """Remember a save that failed."""
        self._saves[session.session_id] = Save(write_id, moment, if_revision, _digest(body))
        if len(self._saves) > _KEPT:
            self._saves.popitem(last=False)

    def take(self, session: Session, now: datetime, if_revision: int | None) -> tuple[str, datetime] | None:
        """The write id and the moment of the failed save that this one repeats, if it does."""
        save = self._saves.pop(session.session_id, None)
        if save is None or save.if_revision != if_revision or now - save.moment > _REPEATED_WITHIN:
            return None
        if _digest(encode(session, save.moment)) != save.digest:
            return None
        return save.write_id, save.moment


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
