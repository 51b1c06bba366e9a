"""The SQL that writes profiles.

Every change of a profile and its parts is one statement. It begins by remembering the profile's revision ("seen")
and does nothing unless that is still the stored one once it has locked the row: a statement sees the parts as they
were when it began, and would overlook what another transaction committed while it waited for the lock. Its row
then says that it is not `done`, and it is run again after `lock`.
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
    cast,
    column,
    delete,
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
from soldier_data.postgres.statements import Statement, column_param, has_key, param
from soldier_data.profiles.statements import (
    ASSETS,
    CONSENTS,
    FIELDS,
    FORMER,
    IDENTITIES,
    LIVING,
    OWNER,
    PRESENT,
    PROFILES,
    TENANT_ID,
    of_profile,
    of_tenant,
)

ONE: ColumnElement[int] = literal_column("1")
NOW = param("now", PROFILES.c.updated_at.type)
WRITE_ID = column_param(PROFILES.c.write_id)
_PROFILE_ID = column_param(PROFILES.c.id)
_OWNER_ID = (TENANT_ID, _PROFILE_ID)

_KEYS = {IDENTITIES: ("channel", "channel_user_id"), ASSETS: ("id",), CONSENTS: ("position",)}
"""What tells the rows of one profile apart."""

_SAVED = [c for c in PROFILES.columns if c.name != "merged_profile_ids"]
"""The columns that saving a profile writes: what was merged into it stays known."""

_FIELD_STATE = ("id", "name", "replaced_at", "revision")
"""The columns of a field that do not count when two of one name are compared."""

lock = Statement(
    "locking the profile", select(PROFILES.c.id).where(has_key(PROFILES)).with_for_update(key_share=True)
)


def exists(table: FromClause, *where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `table` has such a row."""
    return select(ONE).select_from(table).where(*where).exists()


def next_position(table: Table, profile_id: ColumnElement[Any]) -> ColumnElement[int]:
    """The place behind the last one of the profile's rows."""
    placed = table.alias("placed")
    last = select(func.max(placed.c.position)).where(of_profile(placed, profile_id)).scalar_subquery()
    return func.coalesce(last + ONE, literal_column("0"))


# -- the profile's row -------------------------------------------------------------------------------------------


def _seen(*where: ColumnElement[bool]) -> CTE:
    """The profile's row as it is when the statement begins."""
    names = ("id", "external_id", "revision", "updated_at", "deleted_at", "write_id")
    return select(*(PROFILES.c[name] for name in names)).where(has_key(PROFILES), *where).cte("seen")


def _change(seen: CTE, values: dict[str, Any], *where: ColumnElement[bool]) -> Any:
    """An UPDATE of the profile's row, unless another transaction has changed it since it was seen."""
    moment = func.greatest(NOW, PROFILES.c.updated_at)
    written = {"updated_at": moment, "revision": PROFILES.c.revision + ONE, "write_id": WRITE_ID}
    return (
        update(PROFILES)
        .values({**values, **written})
        .where(has_key(PROFILES), PROFILES.c.revision == select(seen.c.revision).scalar_subquery(), *where)
        .returning(PROFILES.c.revision, PROFILES.c.updated_at)
    )


def _new_row() -> dict[str, ColumnElement[Any]]:
    row: dict[str, ColumnElement[Any]] = {c.name: column_param(c) for c in _SAVED}
    return row | {"updated_at": NOW, "revision": ONE}


def _result(done: ColumnElement[bool], writes: list[Any], **columns: ColumnElement[Any]) -> Select[Any]:
    """One row that says whether the statement is `done`."""
    statement = select(done.label("done"), *(value.label(name) for name, value in columns.items()))
    for number, write in enumerate(writes):
        statement = statement.add_cte(write.cte(f"write_{number}"))
    return statement


def _result_if_found(
    seen: CTE, profile: CTE, nothing_to_do: ColumnElement[bool], writes: list[Any]
) -> Select[Any]:
    """As `_result`, saying also whether a living profile was `found`."""
    found = exists(seen)
    return _result(or_(not_(found), nothing_to_do, exists(profile)), writes, found=found)


# -- parts -------------------------------------------------------------------------------------------------------


def _part_columns(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.name not in OWNER]


def _given(table: Table) -> CTE:
    """The rows that the parameter named as the table brings, a JSON array of objects."""
    columns = [column(name, table.c[name].type) for name in _part_columns(table)]
    rows = func.json_to_recordset(param(table.name, JSON())).table_valued(*columns, name="given")
    given: dict[str, ColumnElement[Any]] = {c.name: c for c in rows.render_derived(with_types=True).c}
    if table is FIELDS:
        # What JSON calls null arrives as SQL's NULL, but here it is a value.
        given["value"] = func.coalesce(given["value"], literal_column("'null'::json"))
    return select(*(c.label(name) for name, c in given.items())).cte(f"given_{table.name}")


def _insert(table: Table, given: CTE, profile: CTE, **values: ColumnElement[Any]) -> Any:
    """An INSERT of the given rows for the profile, `values` taking the place of what was given."""
    names = _part_columns(table)
    chosen = [values.get(name, given.c[name]) for name in names]
    rows = select(*_OWNER_ID, *chosen).select_from(given.join(profile, true()))
    if table is IDENTITIES:
        # Two callers who want the same identities for two profiles ask for them in the same order, so that one
        # waits for the other and never each for each.
        rows = rows.order_by(given.c.channel, given.c.channel_user_id)
    return insert(table).from_select([*OWNER, *names], rows)


def _put(table: Table, given: CTE, profile: CTE, **values: ColumnElement[Any]) -> Any:
    """As `_insert`, changing the rows that are there already and differ; `values` are for new rows alone."""
    statement = _insert(table, given, profile, **values)
    content = [name for name in _part_columns(table) if name not in (*_KEYS[table], *values)]
    return statement.on_conflict_do_update(
        index_elements=[*OWNER, *_KEYS[table]],
        set_={name: statement.excluded[name] for name in content},
        where=_differs(table.c, statement.excluded, content),
    )


def _free(freed: CTE, profile: CTE, external_id: ColumnElement[Any], *where: ColumnElement[bool]) -> Any:
    """An INSERT that remembers what the profile lost: the identities that were removed, and its `external_id`."""
    columns = [*OWNER, "kind", "value"]
    lost = union_all(
        select(*(freed.c[name] for name in columns)),
        select(*_OWNER_ID, literal_column(f"'{EXTERNAL_ID}'"), external_id).where(*where),
    ).cte("lost")
    rows = select(*lost.c, profile.c.updated_at).select_from(lost.join(profile, true()))
    # It is there already if the profile lost it twice by a clock that stood still.
    return insert(FORMER).from_select([*columns, "freed_at"], rows).on_conflict_do_nothing()


def _removed_identities(which: Any) -> CTE:
    """What a DELETE of identities removes, as `_free` takes it."""
    names = {"kind": IDENTITIES.c.channel, "value": IDENTITIES.c.channel_user_id}
    owner = (IDENTITIES.c[name] for name in OWNER)
    removed: CTE = which.returning(*owner, *(c.label(name) for name, c in names.items())).cte("freed")
    return removed


def _remove_others(table: Table, given: CTE, profile: CTE) -> Any:
    """A DELETE of the profile's rows that are not given."""
    others = not_(exists(given, _same_key(table, given)))
    return delete(table).where(of_profile(table, _PROFILE_ID), exists(profile), others)


def _same_key(table: Table, given: CTE) -> ColumnElement[bool]:
    return and_(*(table.c[name] == given.c[name] for name in _KEYS[table]))


def _differs(row: Any, other: Any, names: list[str]) -> ColumnElement[bool]:
    one, two = (tuple_(*(_comparable(values[name]) for name in names)) for values in (row, other))
    return one.is_distinct_from(two)


def _comparable(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(value, Text) if isinstance(value.type, Document) else value


def _changed_fields(given: CTE) -> CTE:
    """Those of the given fields that the profile does not have just so."""
    content = [name for name in _part_columns(FIELDS) if name not in _FIELD_STATE]
    alike = exists(
        FIELDS,
        of_profile(FIELDS, _PROFILE_ID),
        PRESENT,
        FIELDS.c.name == given.c.name,
        not_(_differs(FIELDS.c, given.c, content)),
    )
    return select(given).where(not_(alike)).cte("changed_fields")


def _retire_fields(profile: CTE, which: ColumnElement[bool]) -> Any:
    """An UPDATE that sends those of the profile's present fields to the history."""
    return (
        update(FIELDS)
        .values(replaced_at=select(profile.c.updated_at).scalar_subquery())
        .where(of_profile(FIELDS, _PROFILE_ID), PRESENT, exists(profile), which)
    )


def _insert_fields(changed: CTE, profile: CTE) -> Any:
    never: ColumnElement[Any] = literal_column("NULL::timestamptz")
    return _insert(FIELDS, changed, profile, replaced_at=never, revision=profile.c.revision)


# -- the statements ----------------------------------------------------------------------------------------------


def _save() -> Statement:
    seen = _seen()
    if_revision = param("if_revision", PROFILES.c.revision.type)
    stored = func.coalesce(select(seen.c.revision).scalar_subquery(), literal_column("0"))
    expected = or_(if_revision.is_(None), stored == if_revision)
    # A call that is repeated because its reply was lost finds its own write_id and has nothing left to do.
    repeated = exists(seen, seen.c.write_id == WRITE_ID)
    row = _new_row()
    inserted = (
        insert(PROFILES)
        .from_select(list(row), select(*row.values()).where(not_(exists(seen)), expected))
        .on_conflict_do_nothing(index_elements=["tenant_id", "id"])
        .returning(PROFILES.c.revision, PROFILES.c.updated_at)
        .cte("inserted")
    )
    content = {c.name: column_param(c) for c in _SAVED if c.name not in ("tenant_id", "id")}
    updated = _change(seen, content, expected, not_(repeated)).cte("updated")
    profile = union_all(select(inserted), select(updated)).cte("profile")

    fields = _given(FIELDS)
    changed = _changed_fields(fields)
    gone = not_(exists(fields, fields.c.name == FIELDS.c.name))
    replaced = exists(changed, changed.c.name == FIELDS.c.name)
    writes = [_retire_fields(profile, or_(gone, replaced)), _insert_fields(changed, profile)]
    for table in _KEYS:
        given = _given(table)
        others = _remove_others(table, given, profile)
        if table is IDENTITIES:
            lost_id = or_(
                seen.c.external_id.is_distinct_from(column_param(PROFILES.c.external_id)),
                column_param(PROFILES.c.deleted_at).is_not(None),
            )
            lost = (seen.c.external_id.is_not(None), seen.c.deleted_at.is_(None), lost_id)
            others = _free(_removed_identities(others), profile, seen.c.external_id, *lost)
        writes += [others, _put(table, given, profile)]

    saved = union_all(
        select(profile.c.revision, profile.c.updated_at),
        select(seen.c.revision, seen.c.updated_at).where(seen.c.write_id == WRITE_ID),
    ).cte("saved")
    return Statement(
        "saving the profile",
        _result(
            or_(repeated, not_(expected), exists(profile)),
            writes,
            stored=stored,
            revision=select(saved.c.revision).scalar_subquery(),
            updated_at=select(saved.c.updated_at).scalar_subquery(),
        ),
    )


def _create() -> Statement:
    """A new profile with its first identity, or nothing at all if that has an owner."""
    given = _given(IDENTITIES)
    names = _part_columns(IDENTITIES)
    # The identity comes first: it is what callers race for. Its foreign key is checked when both rows are there.
    claimed = (
        insert(IDENTITIES)
        .from_select([*OWNER, *names], select(*_OWNER_ID, *(given.c[name] for name in names)))
        .on_conflict_do_nothing(index_elements=["tenant_id", "channel", "channel_user_id"])
        .returning(IDENTITIES.c.profile_id)
        .cte("claimed")
    )
    row = _new_row()
    created = (
        insert(PROFILES)
        .from_select(list(row), select(*row.values()).select_from(claimed))
        .returning(PROFILES.c.id)
        .cte("created")
    )
    return Statement("creating the profile", select(created.c.id))


def _delete() -> Statement:
    own = and_(PROFILES.c.deleted_at.is_not(None), PROFILES.c.write_id == WRITE_ID)
    seen = _seen(or_(LIVING, own))
    repeated = exists(seen, seen.c.write_id == WRITE_ID)
    profile = _change(seen, {"deleted_at": NOW}, LIVING).cte("profile")
    removed = _removed_identities(
        delete(IDENTITIES).where(of_profile(IDENTITIES, _PROFILE_ID), exists(profile))
    )
    freed = _free(removed, profile, seen.c.external_id, seen.c.external_id.is_not(None))
    return Statement("deleting the profile", _result_if_found(seen, profile, repeated, [freed]))


def _update_field() -> Statement:
    seen = _seen(LIVING)
    changed = _changed_fields(_given(FIELDS))
    # The row gets an id of the call's own, which a call that is repeated because its reply was lost finds again.
    repeated = exists(FIELDS, of_tenant(FIELDS), FIELDS.c.id == select(changed.c.id).scalar_subquery())
    nothing_to_do = or_(not_(exists(changed)), repeated)
    profile = _change(seen, {}, not_(nothing_to_do)).cte("profile")
    replaced = exists(changed, changed.c.name == FIELDS.c.name)
    writes = [_retire_fields(profile, replaced), _insert_fields(changed, profile)]
    return Statement("updating the field", _result_if_found(seen, profile, nothing_to_do, writes))


def _add_asset() -> Statement:
    seen = _seen(LIVING)
    given = _given(ASSETS)
    content = [name for name in _part_columns(ASSETS) if name not in ("id", "position")]
    has_it = exists(
        ASSETS.join(given, _same_key(ASSETS, given)),
        of_profile(ASSETS, _PROFILE_ID),
        not_(_differs(ASSETS.c, given.c, content)),
    )
    profile = _change(seen, {}, not_(has_it)).cte("profile")
    put = _put(ASSETS, given, profile, position=next_position(ASSETS, _PROFILE_ID))
    return Statement("adding the asset", _result_if_found(seen, profile, has_it, [put]))


def _link_channel() -> Statement:
    """The unique index refuses it if another profile gets the identity at the same time."""
    seen = _seen(LIVING)
    given = _given(IDENTITIES)
    # One row is given, but the planner would count on a hundred and rather read all identities than join them.
    key = [IDENTITIES.c[name] == select(given.c[name]).scalar_subquery() for name in _KEYS[IDENTITIES]]
    owner = select(IDENTITIES.c.profile_id).where(of_tenant(IDENTITIES), *key).cte("owner")
    profile = _change(seen, {}, not_(exists(owner))).cte("profile")
    linked = _insert(IDENTITIES, given, profile, position=next_position(IDENTITIES, _PROFILE_ID))
    free = not_(exists(owner, owner.c.profile_id != _PROFILE_ID))
    done = or_(not_(exists(seen)), exists(owner), exists(profile))
    return Statement("linking the channel", _result(done, [linked], found=and_(exists(seen), free)))


save = _save()
create = _create()
delete_profile = _delete()
update_field = _update_field()
add_asset = _add_asset()
link_channel = _link_channel()
