"""The SQL that finds, reads and removes the profiles of a person."""

from __future__ import annotations

from sqlalchemy import Text, and_, func, literal_column, null, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.base.subjects import EXTERNAL_ID
from soldier_data.postgres.statements import Statement, equals_any, param
from soldier_data.profiles.merge_statements import remove
from soldier_data.profiles.statements import (
    FIELD,
    FIELDS,
    FORMER,
    IDENTITIES,
    LIVING,
    PRESENT,
    PROFILES,
    of_tenant,
    whole_profiles,
)

find_profiles = Statement(
    "looking for the customer's profiles",
    select(PROFILES.c.id)
    .where(of_tenant(PROFILES), equals_any(PROFILES.c.id, "profile_ids"))
    .order_by(PROFILES.c.id),
)

read_profiles = Statement(
    "reading the customer's profiles",
    whole_profiles().where(equals_any(PROFILES.c.id, "profile_ids")).order_by(PROFILES.c.id),
)

read_history = Statement(
    "reading the customer's profiles",
    select(FIELD)
    .where(and_(of_tenant(FIELDS), equals_any(FIELDS.c.profile_id, "profile_ids"), ~PRESENT))
    .order_by(
        FIELDS.c.profile_id,
        FIELDS.c.name.collate("C"),
        FIELDS.c.replaced_at,
        FIELDS.c.revision,
        FIELDS.c.id,
    ),
)

read_former = Statement(
    "reading the customer's profiles",
    select(FORMER.c.profile_id, FORMER.c.kind, FORMER.c.value, FORMER.c.freed_at)
    .where(of_tenant(FORMER), equals_any(FORMER.c.profile_id, "profile_ids"))
    .order_by(
        FORMER.c.profile_id, FORMER.c.kind.collate("C"), FORMER.c.value.collate("C"), FORMER.c.freed_at
    ),
)


def _find_holdings() -> Statement:
    """Who has, and who had, the identities and external ids of the parameters `kinds` and `values`."""
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
        of_tenant(PROFILES),
        LIVING,
        PROFILES.c.external_id == name.c.value,
        name.c.kind == literal_column(f"'{EXTERNAL_ID}'"),
    )
    return Statement("looking for the customer's profiles", union_all(former, identities, external_ids))


find_holdings = _find_holdings()

lock_profiles = Statement(
    "erasing the customer's profiles",
    select(PROFILES.c.id)
    .where(of_tenant(PROFILES), equals_any(PROFILES.c.id, "profile_ids"))
    .order_by(PROFILES.c.id)
    .with_for_update(),
)

erase = remove("erasing the customer's profiles")
