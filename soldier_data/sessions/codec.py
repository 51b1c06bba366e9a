"""How a session is written in Redis.

Both tiers begin with a head that Lua reads with one pattern (see ``scripts/common.lua``): layout version,
revision, the latest write ids, the tenant.

- Hot: ``{"v":1,"revision":  7,"writes":"... ","tenant_id":"...",<the other members>}``, one JSON object.
- Persistent: ``1   7 ...  <tenant> <created_at in ms>``, a line feed, and the other members compressed, so
  that an idle session costs less memory.

The client sends whole values with blanks for revision and write ids; the script that stores them knows what
belongs there and overwrites the blanks in place. To put a value together in Lua would take a quarter of the
script's time: for each new string there Lua collects garbage.

A session promoted by a read keeps its persistent form under its hot key until the next save.
"""

from __future__ import annotations

import zlib
from datetime import datetime

from pydantic import ValidationError as PydanticValidationError
from pydantic_core import PydanticSerializationError

from soldier_data.base.values import check_containers, check_json, check_storable
from soldier_data.errors import StoreError, ValidationError
from soldier_data.sessions.models import Session

try:
    # Compresses a session in a third of zlib's time, which is an eighth of a save's; zlib reads what it wrote.
    from isal.isal_zlib import compress as _compress
except ImportError:
    # It has no wheels for rare processors.
    from zlib import compress as _compress

# Another layout gets another number, here and in common.lua.
_HOT_START = b'{"v":1,'
_PERSISTENT_START = b"1 "
# Room for 19 digits, and for four write ids with commas between them; save.lua counts on these widths.
_HOT_BLANKS = b'{"v":1,"revision":%19b,"writes":"%51b","tenant_id":"' % (b"", b"")
_PERSISTENT_BLANKS = b"1 %19b %51b " % (b"", b"")

_NOT_IN_BODY = {"tenant_id", "revision", "last_activity_at"}

# Pydantic writes integers of any length, but reads none with more digits. A shorter body holds none.
_LONGEST_NUMBER = 4300

# `model_dump_json` makes text of these bytes, only for it to be made bytes again.
_to_json = Session.__pydantic_serializer__.to_json


def encode(session: Session, last_activity_at: datetime) -> bytes:
    """The body of `session`, last active at that moment: its JSON without opening brace and head.

    Raises:
        ValidationError: A value cannot be stored.
    """
    # The part of a session that validation does not look into.
    check_json(session.variables, "variables")
    # Pydantic writes None for a part that is None, and half of a surrogate pair in a key as another character.
    check_containers(session)
    try:
        # Lists and dicts can be changed without validation; `warnings` finds values of a wrong type there.
        members = _to_json(session, exclude=_NOT_IN_BODY, warnings="error")
        body = b'"last_activity_at":"%b",%b' % (last_activity_at.isoformat().encode(), members[1:])
        if len(body) > _LONGEST_NUMBER:
            Session.model_validate_json(join(0, str(session.tenant_id), body))
    except (PydanticSerializationError, PydanticValidationError) as error:
        cause: Exception = error
    else:
        # A NUL shows in the JSON. To look through the whole session costs twice as much as to write the JSON,
        # so only suspicion leads to it; and to look for one character takes no time.
        if b"\\" in body and b"\\u0000" in body:
            check_storable(session)
        return body
    check_storable(session)
    field = _wrong_field(session)
    raise ValidationError(
        f"{field} of session {session.session_id} holds a value of a wrong type or an endless number",
        field=field,
        cause=cause,
    )


def hot_value(tenant_id: str, body: bytes) -> bytes:
    """The hot form, with blanks where the script that stores it writes."""
    return b'%b%b",%b' % (_HOT_BLANKS, tenant_id.encode(), body)


def persistent_value(tenant_id: str, created_at: int, body: bytes) -> bytes:
    """The persistent form, with the same blanks; `created_at` is in milliseconds."""
    return b"%b%b %d\n%b" % (_PERSISTENT_BLANKS, tenant_id.encode(), created_at, _compress(body, 1))


def join(revision: int, tenant_id: str, body: bytes) -> bytes:
    """The whole JSON of a session again."""
    return b'{"revision":%d,"tenant_id":"%b",%b' % (revision, tenant_id.encode(), body)


def decode(value: bytes, key: str) -> Session:
    """The session in a stored value of either form.

    Raises:
        StoreError: The value, found at `key`, is not a session of this layout.
    """
    cause: Exception | None = None
    try:
        if value.startswith(_HOT_START):
            return Session.model_validate_json(value)
        if value.startswith(_PERSISTENT_START):
            head, _, packed = value.partition(b"\n")
            _, revision, _, tenant, _ = head.decode().split()
            return Session.model_validate_json(join(int(revision), tenant, zlib.decompress(packed)))
    except (ValueError, zlib.error) as error:
        cause = error
    raise unreadable(key, cause)


def unreadable(key: str, cause: Exception | None = None) -> StoreError:
    """The error for a value that is not a session of this layout."""
    return StoreError(
        f"the value of Redis key {key} is not a session that this version can read: it was left as it is; "
        "look at it, and delete the session to be rid of it",
        cause=cause,
    )


def _wrong_field(session: Session) -> str:
    for name in Session.model_fields:
        try:
            _to_json(session, include={name}, warnings="error")
        except PydanticSerializationError:
            return name
    return "a field"
