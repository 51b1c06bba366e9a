"""The SQL of durable sessions (`SOLDIER_SESSION_DURABILITY=postgres`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnClause,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    Uuid,
    and_,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from soldier_data.postgres.collecting import Insertion
from soldier_data.postgres.queries import (
    LIMIT,
    columns_except,
    equals,
    equals_any,
    has_key,
    insert_row,
    newest_first,
    of_tenant,
)
from soldier_data.postgres.statements import Statement, column_param, param, table_of
from soldier_data.sessions.orm import SessionRow

SESSIONS = table_of(SessionRow)
_KEY = [SESSIONS.c.tenant_id, SESSIONS.c.id]
_CONTENT = columns_except(SESSIONS, "tenant_id", "id")

_MOMENT = DateTime(timezone=True)
_ONE: ColumnClause[int] = literal_column("1", Integer)

_COLUMNS = [
    *_KEY,
    SESSIONS.c.revision,
    SESSIONS.c.write_id,
    SESSIONS.c.last_activity_at,
    SESSIONS.c.expires_at,
    SESSIONS.c.document,
]

# Sessions whose lifetime has ended stay in the table until they are saved again or removed.
_STORED = SESSIONS.c.expires_at > param("now", _MOMENT)
_LIVING = and_(_STORED, SESSIONS.c.created_at > param("oldest", _MOMENT))
_OWN_WRITE = equals(SESSIONS.c.write_id)


# -- saving ----------------------------------------------------------------------------------------------------


def _upsert(where: Any = None) -> Any:
    """Insert a row, or replace the one with its key if it meets `where`, and return the revision.

    A call that is repeated after a lost reply finds its own write_id, and does not count twice.
    """
    statement = insert_row(SESSIONS).values(revision=_ONE)
    new = statement.excluded
    changed: dict[str, Any] = {column.name: new[column.name] for column in _CONTENT}
    changed["revision"] = case(
        (SESSIONS.c.write_id == new.write_id, SESSIONS.c.revision),
        (SESSIONS.c.expires_at <= new.last_activity_at, _ONE),
        else_=SESSIONS.c.revision + _ONE,
    )
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_=changed, where=None if where is None else where(new)
    ).returning(SESSIONS.c.revision)


def _replace() -> Any:
    expected = param("if_revision", SESSIONS.c.revision.type)
    changed: dict[str, Any] = {column.name: column_param(column) for column in _CONTENT}
    return (
        update(SESSIONS)
        .values({**changed, "revision": expected + _ONE})
        .where(has_key(SESSIONS), or_(_OWN_WRITE, and_(_STORED, SESSIONS.c.revision == expected)))
        .returning(SESSIONS.c.revision)
    )


_SAVING = "saving the session"

save = Statement(_SAVING, _upsert)
save_new = Statement(
    _SAVING,
    lambda: _upsert(
        lambda new: or_(SESSIONS.c.write_id == new.write_id, SESSIONS.c.expires_at <= new.last_activity_at)
    ),
)
save_replacing = Statement(_SAVING, _replace)
stored_revision = Statement(_SAVING, select(SESSIONS.c.revision).where(has_key(SESSIONS), _STORED))


def _collected(rows: FromClause, _: Mapping[str, CTE]) -> Any:
    """Write rows whose revision is the expected one plus one, and leave out those whose stored revision differs."""
    stored = SESSIONS.alias("stored")
    has_row = and_(stored.c.tenant_id == rows.c.tenant_id, stored.c.id == rows.c.id)
    # The lock keeps the row from being deleted meanwhile, which would make this insert it again.
    exists = select(_ONE).where(has_row).correlate(rows).with_for_update().exists()
    statement = insert(SESSIONS).from_select(
        [column.name for column in SESSIONS.columns],
        select(*(rows.c[column.name] for column in SESSIONS.columns)).where(
            or_(rows.c.revision == _ONE, exists)
        ),
    )
    new = statement.excluded
    is_stored = SESSIONS.c.expires_at > new.last_activity_at
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"],
        set_={column.name: new[column.name] for column in _CONTENT},
        where=or_(
            SESSIONS.c.write_id == new.write_id,
            and_(is_stored, SESSIONS.c.revision + _ONE == new.revision),
            and_(~is_stored, new.revision == _ONE),
        ),
    ).returning(SESSIONS.c.id)


insertion = Insertion(SESSIONS, _collected)


def _adopt() -> Any:
    statement = insert_row(SESSIONS)
    new = statement.excluded
    changed = {column.name: new[column.name] for column in _CONTENT}
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_=changed, where=SESSIONS.c.revision < new.revision
    ).returning(SESSIONS.c.id)


adopt = Statement(_SAVING, _adopt)

mark = Statement(
    "marking the session",
    update(SESSIONS)
    .values(
        document=column_param(SESSIONS.c.document),
        write_id=column_param(SESSIONS.c.write_id),
        revision=param("if_revision", SESSIONS.c.revision.type) + _ONE,
    )
    .where(
        has_key(SESSIONS),
        or_(_OWN_WRITE, SESSIONS.c.revision == param("if_revision", SESSIONS.c.revision.type)),
    )
    .returning(SESSIONS.c.id),
)

# -- reading ---------------------------------------------------------------------------------------------------

_READING = "reading the session"

get = Statement(_READING, select(*_COLUMNS).where(has_key(SESSIONS), _LIVING))
get_of_any_tenant = Statement(
    _READING,
    select(*_COLUMNS).where(equals(SESSIONS.c.id), _LIVING).order_by(SESSIONS.c.tenant_id).limit(_ONE),
)
get_listed = Statement(
    "reading sessions",
    select(*_COLUMNS).where(of_tenant(SESSIONS), equals_any(SESSIONS.c.id, "ids"), _LIVING),
)


def _listed(*conditions: ColumnElement[bool]) -> Select[Any]:
    return newest_first(
        select(*_COLUMNS).where(of_tenant(SESSIONS), *conditions), SESSIONS.c.last_activity_at
    )


_LISTING = "listing sessions"


@cache
def list_by_agent(*, status: bool) -> Statement:
    """List an agent's sessions, with `status` only those that have the parameter `status`."""
    conditions = [equals(SESSIONS.c.agent_id), _LIVING]
    if status:
        conditions.append(equals(SESSIONS.c.status))
    return Statement(_LISTING, _listed(*conditions).limit(LIMIT))


list_by_customer = Statement(_LISTING, _listed(equals(SESSIONS.c.customer_profile_id), _LIVING).limit(LIMIT))
_AT_ADDRESS = and_(equals(SESSIONS.c.channel), equals(SESSIONS.c.user_channel_id))
list_by_channel = Statement(_LISTING, _listed(_AT_ADDRESS, _LIVING).limit(LIMIT))
list_at_step = Statement(
    "finding sessions by their step",
    _listed(
        equals(SESSIONS.c.scenario_id),
        equals(SESSIONS.c.scenario_version),
        equals(SESSIONS.c.step_content_hash),
        _LIVING,
    ),
)
# For exports and erasures: expired sessions too.
list_of_profile = Statement(_LISTING, _listed(equals(SESSIONS.c.customer_profile_id)))
list_of_address = Statement(_LISTING, _listed(_AT_ADDRESS))
known = Statement(
    _LISTING, select(SESSIONS.c.id).where(of_tenant(SESSIONS), equals_any(SESSIONS.c.id, "ids"))
)

# -- removing --------------------------------------------------------------------------------------------------

_DELETING = "deleting the session"

remove = Statement(_DELETING, delete(SESSIONS).where(has_key(SESSIONS)).returning(SESSIONS.c.expires_at))
remove_of_any_tenant = Statement(
    _DELETING, delete(SESSIONS).where(equals(SESSIONS.c.id)).returning(SESSIONS.c.expires_at)
)
remove_listed = Statement(
    "deleting sessions",
    delete(SESSIONS).where(of_tenant(SESSIONS), equals_any(SESSIONS.c.id, "ids")).returning(SESSIONS.c.id),
)
remove_write = Statement(
    _SAVING, delete(SESSIONS).where(has_key(SESSIONS), _OWN_WRITE).returning(SESSIONS.c.id)
)
remove_expired = Statement(
    "removing expired sessions",
    delete(SESSIONS).where(has_key(SESSIONS), ~_LIVING).returning(SESSIONS.c.id),
)

# -- for operators, of all tenants -----------------------------------------------------------------------------

_AFTER = tuple_(*_KEY) > tuple_(param("after_tenant_id", Uuid()), param("after_id", Uuid()))

list_all = Statement(
    "reading all sessions", select(*_COLUMNS).where(_AFTER, _LIVING).order_by(*_KEY).limit(LIMIT)
)
list_expired = Statement(
    "looking for expired sessions",
    select(*_KEY).where(_AFTER, ~_LIVING).order_by(*_KEY).limit(LIMIT),
)
list_revisions = Statement(
    "comparing sessions",
    select(*_KEY, SESSIONS.c.revision).where(equals_any(SESSIONS.c.id, "ids"), _LIVING),
)
has_policies = Statement(
    "checking row-level security",
    select(func.row_security_active(param("table", SESSIONS.c.channel.type)).label("active")),
)
