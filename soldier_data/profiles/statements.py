"""The SQL that reads profiles.

A profile is one JSON document both ways: PostgreSQL puts it together from the rows, and parts arrive as one JSON
array a table. JSON columns keep their text through that, and numbers and moments are written in full.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    Table,
    and_,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from soldier_data.postgres.orm import Document
from soldier_data.postgres.statements import Statement, column_param, has_key, table_of
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

TENANT_ID = column_param(PROFILES.c.tenant_id)
LIVING = PROFILES.c.deleted_at.is_(None)
PRESENT = FIELDS.c.replaced_at.is_(None)

OWNER = ("tenant_id", "profile_id")
"""The columns by which a row belongs to a profile."""

NO_FIELDS = ("write_id", "merged_profile_ids")
"""The columns of a profile's row that are no fields of the profile."""


def of_tenant(table: FromClause) -> ColumnElement[bool]:
    """The rows of the tenant."""
    return table.c.tenant_id == TENANT_ID


def of_profile(table: FromClause, profile_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """The rows of one profile."""
    return and_(of_tenant(table), table.c.profile_id == profile_id)


def _object(table: Table, without: tuple[str, ...], **parts: ColumnElement[Any]) -> ColumnElement[Any]:
    """A row as a JSON object, named as the columns are, with `parts` beside them."""
    members: list[ColumnElement[Any]] = []
    for name, value in {**{c.name: c for c in table.columns if c.name not in without}, **parts}.items():
        members += [literal_column(f"'{name}'"), value]
    return func.json_build_object(*members, type_=Document())


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


def whole_profiles() -> Select[Any]:
    """Profiles of the tenant with all their parts, deleted ones too."""
    whole = _object(
        PROFILES,
        NO_FIELDS,
        channel_identities=_parts(IDENTITIES),
        fields=_fields(),
        assets=_parts(ASSETS),
        consents=_parts(CONSENTS),
    )
    return select(whole.label("profile")).where(of_tenant(PROFILES))


def _profile() -> Select[Any]:
    return whole_profiles().where(LIVING)


get_by_id = Statement("reading the profile", _profile().where(has_key(PROFILES)))
get_by_customer_id = Statement(
    "reading the profile", _profile().where(PROFILES.c.customer_id == column_param(PROFILES.c.customer_id))
)


def _get_by_channel_identity() -> Statement:
    owner = select(IDENTITIES.c.profile_id).where(
        of_tenant(IDENTITIES),
        IDENTITIES.c.channel == column_param(IDENTITIES.c.channel),
        IDENTITIES.c.channel_user_id == column_param(IDENTITIES.c.channel_user_id),
    )
    return Statement("reading the profile", _profile().where(PROFILES.c.id == owner.scalar_subquery()))


get_by_channel_identity = _get_by_channel_identity()

FIELD = _object(FIELDS, (*OWNER, "id", "revision")).label("field")
"""A field as JSON, as it is or as it once was."""

get_field_history = Statement(
    "reading the history of the field",
    select(FIELD)
    .join(PROFILES, and_(of_tenant(PROFILES), PROFILES.c.id == FIELDS.c.profile_id, LIVING))
    .where(
        of_profile(FIELDS, column_param(PROFILES.c.id)),
        FIELDS.c.name == column_param(FIELDS.c.name),
    )
    .order_by(
        FIELDS.c.replaced_at.desc().nulls_first(),
        FIELDS.c.revision.desc(),
        FIELDS.c.id.desc(),
    ),
)
