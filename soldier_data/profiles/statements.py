"""The SQL that reads profiles.

A profile is read as one JSON document, which PostgreSQL builds from the rows of all tables, and written as one JSON
array for each table. JSON columns keep their text that way, and numbers and times lose no digits.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    DateTime,
    FromClause,
    ScalarSelect,
    Select,
    Table,
    Text,
    and_,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, aggregate_order_by

from soldier_data.base.subjects import EXTERNAL_ID
from soldier_data.postgres.orm import Document
from soldier_data.postgres.queries import columns_except, equals, equals_any, is_living, living, of_tenant
from soldier_data.postgres.statements import Statement, column_param, param, table_of
from soldier_data.profiles.orm import (
    ChannelIdentityRow,
    CustomerProfileRow,
    FormerIdentifierRow,
    ProfileAssetRow,
    ProfileConsentRow,
    ProfileFieldRow,
)

PROFILES = table_of(CustomerProfileRow)
IDENTITIES = table_of(ChannelIdentityRow)
FORMER = table_of(FormerIdentifierRow)
FIELDS = table_of(ProfileFieldRow)
ASSETS = table_of(ProfileAssetRow)
CONSENTS = table_of(ProfileConsentRow)

PRESENT = FIELDS.c.replaced_at.is_(None)

OWNER = ("tenant_id", "profile_id")
"""The columns that link a row to its profile."""


def of_profile(table: FromClause, profile_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """The row belongs to the profile."""
    return and_(of_tenant(table), table.c.profile_id == profile_id)


def _object(table: Table, without: tuple[str, ...], **parts: ColumnElement[Any]) -> ColumnElement[Any]:
    """A row as a JSON object whose members are its columns, without some, and `parts`."""
    members: list[ColumnElement[Any]] = []
    for name, value in {**{c.name: c for c in table.columns if c.name not in without}, **parts}.items():
        members += [
            literal_column(f"'{name}'"),
            _in_utc(value) if isinstance(value.type, DateTime) else value,
        ]
    return func.json_build_object(*members, type_=Document())


def _in_utc(time: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time as JSON. By itself it would be in the session's time zone, where old times have offsets with seconds."""
    text: ColumnElement[str] = cast(func.to_json(func.timezone(literal_column("'UTC'"), time)), Text)
    return cast(func.rtrim(text, literal_column("'\"'")).concat(literal_column("'Z\"'")), JSON)


def _parts(table: Table) -> ScalarSelect[Any]:
    part = aggregate_order_by(_object(table, (*OWNER, "position")), table.c.position)
    return (
        select(func.coalesce(func.json_agg(part), literal_column("'[]'")))
        .where(of_profile(table, PROFILES.c.id))
        .scalar_subquery()
    )


def _fields() -> ScalarSelect[Any]:
    # Sorted as Python sorts text, whatever the database's collation.
    field = aggregate_order_by(
        _object(FIELDS, (*OWNER, "id", "revision", "replaced_at")), FIELDS.c.name.collate("C")
    )
    return (
        select(func.coalesce(func.json_object_agg(FIELDS.c.name, field), literal_column("'{}'")))
        .where(of_profile(FIELDS, PROFILES.c.id), PRESENT)
        .scalar_subquery()
    )


def _whole_profiles() -> Select[Any]:
    """The tenant's profiles with all their parts, including softly deleted ones."""
    whole = _object(
        PROFILES,
        ("write_id", "merged_profile_ids"),
        channel_identities=_parts(IDENTITIES),
        fields=_fields(),
        assets=_parts(ASSETS),
        consents=_parts(CONSENTS),
    )
    return select(whole.label("profile")).where(of_tenant(PROFILES))


def _living_profiles() -> Select[Any]:
    return _whole_profiles().where(is_living(PROFILES))


get_by_id = Statement("reading the profile", lambda: _living_profiles().where(equals(PROFILES.c.id)))
get_by_customer_id = Statement(
    "reading the profile", lambda: _living_profiles().where(equals(PROFILES.c.customer_id))
)


def _get_by_channel_identity() -> Select[Any]:
    owner = select(IDENTITIES.c.profile_id).where(
        of_tenant(IDENTITIES), equals(IDENTITIES.c.channel), equals(IDENTITIES.c.channel_user_id)
    )
    return _living_profiles().where(PROFILES.c.id == owner.scalar_subquery())


get_by_channel_identity = Statement("reading the profile", _get_by_channel_identity)


def _field() -> ColumnElement[Any]:
    # With `replaced_at`, because it may be a former value.
    return _object(FIELDS, (*OWNER, "id", "revision")).label("field")


get_field_history = Statement(
    "reading the history of the field",
    lambda: (
        select(_field())
        .join(PROFILES, and_(living(PROFILES), PROFILES.c.id == FIELDS.c.profile_id))
        .where(of_profile(FIELDS, column_param(PROFILES.c.id)), equals(FIELDS.c.name))
        .order_by(
            FIELDS.c.replaced_at.desc().nulls_first(),
            FIELDS.c.revision.desc(),
            FIELDS.c.id.desc(),
        )
    ),
)


# -- what a person's profiles hold and held ----------------------------------------------------------------------

read_profiles = Statement(
    "reading the customer's profiles",
    lambda: _whole_profiles().where(equals_any(PROFILES.c.id, "ids")).order_by(PROFILES.c.id),
)

read_history = Statement(
    "reading the customer's profiles",
    lambda: (
        select(_field())
        .where(of_tenant(FIELDS), equals_any(FIELDS.c.profile_id, "ids"), ~PRESENT)
        .order_by(
            FIELDS.c.profile_id,
            FIELDS.c.name.collate("C"),
            FIELDS.c.replaced_at,
            FIELDS.c.revision,
            FIELDS.c.id,
        )
    ),
)

read_former = Statement(
    "reading the customer's profiles",
    lambda: (
        select(*columns_except(FORMER, "tenant_id"))
        .where(of_tenant(FORMER), equals_any(FORMER.c.profile_id, "ids"))
        .order_by(
            FORMER.c.profile_id, FORMER.c.kind.collate("C"), FORMER.c.value.collate("C"), FORMER.c.freed_at
        )
    ),
)


def _find_holdings() -> CompoundSelect[Any]:
    """The present and former holders of the identities and external ids in the parameters `kinds` and `values`."""
    names = func.unnest(param("kinds", ARRAY(Text())), param("values", ARRAY(Text())))
    name = names.table_valued("kind", "value", name="name").render_derived()
    former = select(name.c.kind, name.c.value, FORMER.c.profile_id, FORMER.c.freed_at).where(
        of_tenant(FORMER), FORMER.c.kind == name.c.kind, FORMER.c.value == name.c.value
    )
    now = null().label("freed_at")
    identities = select(name.c.kind, name.c.value, IDENTITIES.c.profile_id, now).where(
        of_tenant(IDENTITIES),
        IDENTITIES.c.channel == name.c.kind,
        IDENTITIES.c.channel_user_id == name.c.value,
    )
    external_ids = select(name.c.kind, name.c.value, PROFILES.c.id, now).where(
        living(PROFILES),
        PROFILES.c.external_id == name.c.value,
        name.c.kind == literal_column(f"'{EXTERNAL_ID}'"),
    )
    return union_all(former, identities, external_ids)


find_holdings = Statement("looking for the customer's profiles", _find_holdings)
