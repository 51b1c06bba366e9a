"""The encoding of sessions in Redis.

The values of both tiers begin with a head that Lua parses with one pattern (see ``scripts/common.lua``): format
version, revision, the latest write ids, and tenant.

- Hot: ``{"v":1,"revision":  7,"writes":"... ","tenant_id":"...",<the other members>}``, one JSON object.
- Persistent: ``1   7 ...  <tenant> <created_at in ms>``, a line feed, and the other members compressed, so
  that an idle session uses less memory.

The client sends complete values with blanks in place of revision and write ids; the script that stores them
overwrites the blanks in place. Building the values in Lua would take a quarter of the script's time, because new
strings trigger its garbage collection.

After a read promotes a session, its hot key holds the persistent form until the next save.
"""

from __future__ import annotations

import os
import zlib
from datetime import datetime

from pydantic import ValidationError as PydanticValidationError
from pydantic_core import PydanticSerializationError

from soldier_data.base.values import check_containers, check_json, check_storable
from soldier_data.errors import ValidationError
from soldier_data.sessions.lifetimes import milliseconds
from soldier_data.sessions.models import Session
from soldier_data.sessions.refusals import unreadable

try:
    # Three times as fast as zlib, which would take an eighth of a save. The format is the same.
    from isal.isal_zlib import compress as _compress
except ImportError:
    # It has no wheels for uncommon processors.
    from zlib import compress as _compress

# A different format gets a different number, here and in common.lua.
_HOT_START = b'{"v":1,'
_PERSISTENT_START = b"1 "
# Room for 19 digits, and for four write ids separated by commas. common.lua depends on these widths.
_HOT_BLANKS = b'{"v":1,"revision":%19b,"writes":"%51b","tenant_id":"' % (b"", b"")
_PERSISTENT_BLANKS = b"1 %19b %51b " % (b"", b"")

_NOT_IN_BODY = {"tenant_id", "revision", "last_activity_at"}

# Pydantic writes integers of any length, but cannot read one with more digits. A shorter body has none.
_LONGEST_NUMBER = 4300

# `model_dump_json` would decode these bytes, and they would have to be encoded again.
_to_json = Session.__pydantic_serializer__.to_json


def encode(session: Session, last_activity_at: datetime) -> bytes:
    """Return the body of a session's values: its JSON without the opening brace and the head.

    Raises:
        ValidationError: A value cannot be stored.
    """
    # Validation does not look into free JSON.
    check_json(session.variables, "variables")
    # Pydantic writes null for a part that is None, and replaces an unpaired surrogate in a key.
    check_containers(session)
    try:
        # Lists and dicts can be changed without validation; `warnings` detects values of a wrong type there.
        members = _to_json(session, exclude=_NOT_IN_BODY, warnings="error")
        body = b'"last_activity_at":"%b",%b' % (last_activity_at.isoformat().encode(), members[1:])
        if len(body) > _LONGEST_NUMBER:
            Session.model_validate_json(join(0, str(session.tenant_id), body))
    except (PydanticSerializationError, PydanticValidationError) as error:
        cause: Exception = error
    else:
        # Checking the whole session costs twice as much as writing the JSON, so it is done only if the JSON seems to
        # hold a NUL. Searching for the single character first takes almost no time.
        if b"\\" in body and b"\\u0000" in body:
            check_storable(session)
        return body
    check_storable(session)
    field = _wrong_field(session)
    raise ValidationError(
        f"{field} of session {session.session_id} holds a value of a wrong type or an infinite number",
        field=field,
        cause=cause,
    )


def pack(body: bytes) -> bytes:
    """Return a body in compressed form."""
    packed: bytes = _compress(body, 1)
    return packed


def unpack(packed: bytes, name: str) -> bytes:
    """Return the body in its compressed form.

    Raises:
        StoreError: This is not a compressed body; the message calls it `name`.
    """
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        cause = error
    raise unreadable(name, cause)


def stored_values(
    tenant_id: str, created_at: datetime, body: bytes, packed: bytes | None = None
) -> tuple[bytes, bytes]:
    """Return the persistent and the hot value, with blanks for the script that stores them.

    Args:
        tenant_id: The session's tenant.
        created_at: The session's creation time.
        body: The body.
        packed: The result of `pack(body)`, if it is known.
    """
    tenant = tenant_id.encode()
    return (
        b"%b%b %d\n%b" % (_PERSISTENT_BLANKS, tenant, milliseconds(created_at), packed or pack(body)),
        b'%b%b",%b' % (_HOT_BLANKS, tenant, body),
    )


def new_write_id() -> str:
    """Return an id by which scripts recognize a write that is repeated because its reply was lost."""
    return os.urandom(6).hex()


def join(revision: int, tenant_id: str, body: bytes) -> bytes:
    """Return the complete JSON of a session."""
    return b'{"revision":%d,"tenant_id":"%b",%b' % (revision, tenant_id.encode(), body)


def decode_body(revision: int, tenant_id: str, body: bytes, name: str) -> Session:
    """Return the session with this body.

    Raises:
        StoreError: It is not the body of a session; the message calls it `name`.
    """
    try:
        return Session.model_validate_json(join(revision, tenant_id, body))
    except ValueError as error:
        cause = error
    raise unreadable(name, cause)


def last_write(value: bytes) -> tuple[int, str] | None:
    """Return the revision and the latest write id in a persistent value, or None if it has a different form."""
    try:
        version, revision, writes, *_ = value.partition(b"\n")[0].decode().split()
        return (int(revision), writes.partition(",")[0]) if version == "1" else None
    except ValueError:
        return None


def decode(value: bytes, key: str) -> Session:
    """Return the session in a stored value of either form.

    Raises:
        StoreError: The value of `key` is not a session in this format.
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
    raise unreadable(f"Redis key {key}", cause)


def _wrong_field(session: Session) -> str:
    for name in Session.model_fields:
        try:
            _to_json(session, include={name}, warnings="error")
        except PydanticSerializationError:
            return name
    return "a field"
