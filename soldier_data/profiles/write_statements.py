"""The SQL that writes profiles.

Every change of a profile and its parts is one statement, so that it takes one round trip. It is made of CTEs:

- `seen` is the profile's row as the statement found it.
- `different_<table>` pairs the rows that the caller passes for a part with the stored ones, leaving out those that
  are equal: a row that need not be written is not even locked.
- `profile` is the profile's row after the change. It is empty if there is nothing to do, and if another transaction
  has changed the row since it was seen: a statement sees the parts as they were when it began, so after waiting for
  a lock it would overlook what that transaction committed. It then returns `done` as false, and the store runs it
  again after `lock`.
- `write_<number>` write the differences, if `profile` is not empty.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    column,
    delete,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, insert

from soldier_data.base.subjects import EXTERNAL_ID
from soldier_data.postgres.orm import Document
from soldier_data.postgres.queries import columns_except, has_key, is_living, of_tenant
from soldier_data.postgres.statements import Statement, column_param, param
from soldier_data.profiles.statements import (
    ASSETS,
    CONSENTS,
    FIELDS,
    FORMER,
    IDENTITIES,
    OWNER,
    PRESENT,
    PROFILES,
    of_profile,
)

ONE: ColumnElement[int] = literal_column("1")
NOW = param("now", PROFILES.c.updated_at.type)
WRITE_ID = column_param(PROFILES.c.write_id)
_PROFILE_ID = column_param(PROFILES.c.id)
_LIVING = is_living(PROFILES)
_NEVER = false()
_OWNER_ID = dict(zip(OWNER, (column_param(PROFILES.c.tenant_id), _PROFILE_ID), strict=True))

_KEYS = {
    IDENTITIES: ("channel", "channel_user_id"),
    FIELDS: ("name",),
    ASSETS: ("id",),
    CONSENTS: ("position",),
}
"""The columns that identify a row among those of its profile (a field, among the present ones)."""

_OF_HISTORY = ("replaced_at", "revision")
"""The columns of a field that are set here, not by the caller."""

lock = Statement(
    "locking the profile",
    lambda: select(PROFILES.c.id).where(has_key(PROFILES)).with_for_update(key_share=True),
)


def exists(table: FromClause, *where: ColumnElement[bool]) -> ColumnElement[bool]:
    """`table` has a row that meets the conditions."""
    return select(ONE).select_from(table).where(*where).exists()


def next_position(table: Table, profile_id: ColumnElement[Any]) -> ColumnElement[int]:
    """The position after the last of the profile's rows in `table`."""
    placed = table.alias("placed")
    last = select(func.max(placed.c.position)).where(of_profile(placed, profile_id)).scalar_subquery()
    return func.coalesce(last + ONE, literal_column("0"))


# -- the profile's row -------------------------------------------------------------------------------------------


def _seen(*where: ColumnElement[bool]) -> CTE:
    names = ("id", "external_id", "revision", "updated_at", "deleted_at", "write_id")
    return select(*(PROFILES.c[name] for name in names)).where(has_key(PROFILES), *where).cte("seen")


def _is_repeated(seen: CTE) -> ColumnElement[bool]:
    """The call was repeated because its reply was lost: it finds its own write_id and has nothing to do."""
    return seen.c.write_id.is_not_distinct_from(WRITE_ID)


def _one_row(*tables: CTE) -> FromClause:
    """One row that joins the tables, of which each has one row or none."""
    row: FromClause = select(ONE.label("one")).subquery("always")
    for table in tables:
        row = row.outerjoin(table, true())
    return row


def _new_profile() -> dict[str, ColumnElement[Any]]:
    # Saves leave merged_profile_ids as it is.
    saved = columns_except(PROFILES, "merged_profile_ids")
    return {c.name: column_param(c) for c in saved} | {"updated_at": NOW, "revision": ONE}


def _next_revision() -> dict[str, ColumnElement[Any]]:
    moment = func.greatest(NOW, PROFILES.c.updated_at)
    return {"updated_at": moment, "revision": PROFILES.c.revision + ONE, "write_id": WRITE_ID}


def _update(seen: CTE, *where: ColumnElement[bool], **values: ColumnElement[Any]) -> Any:
    return (
        update(PROFILES)
        .values({**values, **_next_revision()})
        .where(has_key(PROFILES), PROFILES.c.revision == select(seen.c.revision).scalar_subquery(), *where)
        .returning(PROFILES.c.revision, PROFILES.c.updated_at)
    )


def _insert_profile(seen: CTE, *where: ColumnElement[bool]) -> Any:
    # ON CONFLICT DO UPDATE could insert a profile that was seen and is purged meanwhile, but none of its parts.
    new = _new_profile()
    row = select(*new.values()).select_from(_one_row(seen)).where(seen.c.id.is_(None), *where)
    return (
        insert(PROFILES)
        .from_select(list(new), row)
        .on_conflict_do_nothing(index_elements=["tenant_id", "id"])
        .returning(PROFILES.c.revision, PROFILES.c.updated_at)
    )


def _result(writes: list[Any], **columns: ColumnElement[Any]) -> Select[Any]:
    """One row, returned by a statement that also does the writes."""
    result = select(*(value.label(name) for name, value in columns.items()))
    for number, write in enumerate(writes):
        result = result.add_cte(write.cte(f"write_{number}"))
    return result


def _result_of_change(
    seen: CTE,
    profile: CTE,
    nothing_to_do: ColumnElement[bool],
    *writes: Any,
    refused: ColumnElement[bool] = _NEVER,
) -> Select[Any]:
    """As `_result`: whether a living profile was `found` and did not refuse, and whether the change is `done`."""
    found = exists(seen)
    done = or_(not_(found), nothing_to_do, exists(profile))
    return _result(list(writes), found=and_(found, not_(refused)), done=done)


# -- parts -------------------------------------------------------------------------------------------------------


def _given(table: Table) -> FromClause:
    """The rows in the parameter named as the table, a JSON array of objects."""
    columns = [column(c.name, c.type) for c in columns_except(table, *OWNER, *_OF_HISTORY)]
    rows = func.json_to_recordset(param(table.name, JSON())).table_valued(*columns)
    return rows.render_derived(name="given", with_types=True)


def _different(table: Table, *ignored: str, only_given: bool = False) -> CTE:
    """Pairs of a given and a stored row of the profile that have the same key and differ, but for `ignored` columns.

    The columns are those of the given row, and `stored_<name>` for the key of the stored one: NULL where there is
    no such row. With `only_given`, stored rows alone are left out.
    """
    given = _given(table)
    names = [c.name for c in given.c if c.name not in ignored]
    stored = select(*(table.c[name] for name in names)).where(_of_profile(table)).subquery("stored")
    same_key = and_(*(stored.c[name] == given.c[name] for name in _KEYS[table]))
    old, new = (tuple_(*(_comparable(row.c[name]) for name in names)) for row in (stored, given))
    stored_key = (stored.c[name].label(f"stored_{name}") for name in _KEYS[table])
    return (
        select(*given.c, *stored_key)
        .select_from(given.outerjoin(stored, same_key, full=not only_given))
        .where(old.is_distinct_from(new))
        .cte(f"different_{table.name}")
    )


def _comparable(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(_json(value), Text) if isinstance(value.type, Document) else value


def _json(given: ColumnElement[Any]) -> ColumnElement[Any]:
    """A JSON document: json_to_recordset turns JSON's null, which is a value too, into NULL."""
    return func.coalesce(given, literal_column("'null'::json"), type_=Document())


def _of_profile(table: Table) -> ColumnElement[bool]:
    rows = of_profile(table, _PROFILE_ID)
    return and_(rows, PRESENT) if table is FIELDS else rows


def _is_stored_of(different: CTE, table: Table) -> ColumnElement[bool]:
    """A row of `table` is the stored one of a pair."""
    key = (table.c[name] == different.c[f"stored_{name}"] for name in _KEYS[table])
    return and_(_of_profile(table), *key)


def _insert(table: Table, given: CTE, profile: CTE, **values: ColumnElement[Any]) -> Any:
    """An INSERT of the given rows; `values` are added to them, or replace what was given."""
    row = _OWNER_ID | {c.name: c for c in given.c if c.name in table.c} | values
    is_given = given.c[_KEYS[table][0]].is_not(None)
    rows = select(*row.values()).select_from(given.join(profile, is_given))
    if table is IDENTITIES:
        # Callers who want the same identities for different profiles insert them in the same order, so that one
        # waits for the other and they never wait for each other.
        rows = rows.order_by(given.c.channel, given.c.channel_user_id)
    return insert(table).from_select(list(row), rows)


def _put(table: Table, different: CTE, profile: CTE, **values: ColumnElement[Any]) -> Any:
    """An upsert of the given rows; `values` are for new rows only."""
    statement = _insert(table, different, profile, **values)
    key = [*OWNER, *_KEYS[table]]
    content = {c.name: statement.excluded[c.name] for c in columns_except(table, *key, *values)}
    return statement.on_conflict_do_update(index_elements=key, set_=content)


def _delete_others(table: Table, different: CTE, profile: CTE) -> Any:
    """A DELETE of the stored rows that are not given."""
    not_given = different.c[_KEYS[table][0]].is_(None)
    return delete(table).where(_is_stored_of(different, table), not_given, exists(profile))


def _replace_fields(different: CTE, profile: CTE) -> list[Any]:
    """An UPDATE that moves the stored fields to the history, and an INSERT of the given ones."""
    moment = select(profile.c.updated_at).scalar_subquery()
    retired = _is_stored_of(different, FIELDS), exists(profile)
    return [
        update(FIELDS).values(replaced_at=moment).where(*retired),
        _insert(FIELDS, different, profile, value=_json(different.c.value), revision=profile.c.revision),
    ]


def _remember_lost(deletion: Any, profile: CTE, seen: CTE, *loses_external_id: ColumnElement[bool]) -> Any:
    """An INSERT of former identifiers: the identities that a DELETE removes, and the external_id."""
    freed = deletion.returning(IDENTITIES.c.channel, IDENTITIES.c.channel_user_id).cte("freed")
    lost = union_all(
        select(freed.c.channel.label("kind"), freed.c.channel_user_id.label("value")),
        select(literal_column(f"'{EXTERNAL_ID}'"), seen.c.external_id).where(
            seen.c.external_id.is_not(None), *loses_external_id
        ),
    ).cte("lost")
    rows = select(*_OWNER_ID.values(), *lost.c, profile.c.updated_at).join_from(lost, profile, true())
    # A profile may lose the same identifier twice at the same moment of its clock.
    return insert(FORMER).from_select([*OWNER, "kind", "value", "freed_at"], rows).on_conflict_do_nothing()


# -- the statements ----------------------------------------------------------------------------------------------


def _save() -> Select[Any]:
    seen = _seen()
    stored = func.coalesce(seen.c.revision, literal_column("0"))
    if_revision = param("if_revision", PROFILES.c.revision.type)
    expected, repeated = or_(if_revision.is_(None), stored == if_revision), _is_repeated(seen)
    content = {name: value for name, value in _new_profile().items() if name not in ("tenant_id", "id")}
    inserted = _insert_profile(seen, expected).cte("inserted")
    updated = _update(seen, expected, not_(repeated), **content).cte("updated")
    profile = union_all(select(inserted), select(updated)).cte("profile")

    writes = _replace_fields(_different(FIELDS, "id"), profile)
    for table in (IDENTITIES, ASSETS, CONSENTS):
        different = _different(table)
        others = _delete_others(table, different, profile)
        if table is IDENTITIES:
            changes_external_id = or_(
                seen.c.external_id.is_distinct_from(column_param(PROFILES.c.external_id)),
                column_param(PROFILES.c.deleted_at).is_not(None),
            )
            others = _remember_lost(others, profile, seen, seen.c.deleted_at.is_(None), changes_external_id)
        writes += [others, _put(table, different, profile)]

    changed = profile.c.revision.is_not(None)
    result = _result(
        writes,
        done=or_(changed, repeated, not_(expected)),
        stored=stored,
        revision=case((changed, profile.c.revision), (repeated, seen.c.revision)),
        updated_at=case((changed, profile.c.updated_at), (repeated, seen.c.updated_at)),
    )
    return result.select_from(_one_row(seen, profile))


def _create() -> Select[Any]:
    """Insert a profile with its first identity, or nothing if another profile has that identity."""
    given = select(_given(IDENTITIES)).cte("identity")
    identity = _OWNER_ID | {c.name: c for c in given.c}
    # The identity comes first: it is what callers race for. Its foreign key is checked when both rows are there.
    claimed = (
        insert(IDENTITIES)
        .from_select(list(identity), select(*identity.values()))
        .on_conflict_do_nothing(index_elements=["tenant_id", "channel", "channel_user_id"])
        .returning(IDENTITIES.c.profile_id)
        .cte("claimed")
    )
    new = _new_profile()
    rows = select(*new.values()).select_from(claimed)
    created = insert(PROFILES).from_select(list(new), rows).returning(PROFILES.c.id).cte("created")
    return select(created.c.id)


def _delete() -> Select[Any]:
    own = and_(PROFILES.c.deleted_at.is_not(None), PROFILES.c.write_id == WRITE_ID)
    seen = _seen(or_(_LIVING, own))
    profile = _update(seen, _LIVING, deleted_at=NOW).cte("profile")
    lost = _remember_lost(delete(IDENTITIES).where(_of_profile(IDENTITIES), exists(profile)), profile, seen)
    repeated = exists(seen, _is_repeated(seen))
    return _result_of_change(seen, profile, repeated, lost)


def _update_field() -> Select[Any]:
    seen = _seen(_LIVING)
    different = _different(FIELDS, "id", only_given=True)
    # Each call gives the row a new id, by which it is found if the call is repeated because its reply was lost.
    own = FIELDS.c.id == select(different.c.id).scalar_subquery()
    nothing_to_do = or_(not_(exists(different)), exists(FIELDS, of_tenant(FIELDS), own))
    profile = _update(seen, not_(nothing_to_do)).cte("profile")
    writes = _replace_fields(different, profile)
    return _result_of_change(seen, profile, nothing_to_do, *writes)


def _add_asset() -> Select[Any]:
    seen = _seen(_LIVING)
    different = _different(ASSETS, "position", only_given=True)
    profile = _update(seen, exists(different)).cte("profile")
    put = _put(ASSETS, different, profile, position=next_position(ASSETS, _PROFILE_ID))
    return _result_of_change(seen, profile, not_(exists(different)), put)


def _link_channel() -> Select[Any]:
    """The unique index refuses it if another profile gets the identity at the same time."""
    seen = _seen(_LIVING)
    given = select(_given(IDENTITIES)).cte("identity")
    # One row is given, but the planner assumes a hundred and would rather read all identities than join them.
    key = [IDENTITIES.c[name] == select(given.c[name]).scalar_subquery() for name in _KEYS[IDENTITIES]]
    owner = select(IDENTITIES.c.profile_id).where(of_tenant(IDENTITIES), *key).cte("owner")
    profile = _update(seen, not_(exists(owner))).cte("profile")
    linked = _insert(IDENTITIES, given, profile, position=next_position(IDENTITIES, _PROFILE_ID))
    other_owner = exists(owner, owner.c.profile_id != _PROFILE_ID)
    return _result_of_change(seen, profile, exists(owner), linked, refused=other_owner)


save = Statement("saving the profile", _save)
create = Statement("creating the profile", _create)
delete_profile = Statement("deleting the profile", _delete)
update_field = Statement("updating the field", _update_field)
add_asset = Statement("adding the asset", _add_asset)
link_channel = Statement("linking the channel", _link_channel)
