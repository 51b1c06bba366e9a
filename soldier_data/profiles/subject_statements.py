"""The SQL that finds, reads and removes the profiles of a person."""

from __future__ import annotations

from sqlalchemy import and_, or_, select

from soldier_data.base.statements import Statement, column_param, is_one_of
from soldier_data.profiles.merge_statements import remove
from soldier_data.profiles.statements import FIELD, FIELDS, PRESENT, PROFILES, of_tenant, whole_profiles

find_merged = Statement(
    "looking for the customer's profiles",
    select(PROFILES.c.id, PROFILES.c.merged_profile_ids).where(
        of_tenant(PROFILES),
        or_(
            PROFILES.c.id == column_param(PROFILES.c.id),
            PROFILES.c.merged_profile_ids.any_() == column_param(PROFILES.c.id),
        ),
    ),
)

read_profiles = Statement(
    "reading the customer's profiles",
    whole_profiles().where(is_one_of(PROFILES.c.id, "profile_ids")).order_by(PROFILES.c.id),
)

read_history = Statement(
    "reading the customer's profiles",
    select(FIELD)
    .where(and_(of_tenant(FIELDS), is_one_of(FIELDS.c.profile_id, "profile_ids"), ~PRESENT))
    .order_by(
        FIELDS.c.profile_id,
        FIELDS.c.name.collate("C"),
        FIELDS.c.replaced_at,
        FIELDS.c.revision,
        FIELDS.c.id,
    ),
)

lock_profiles = Statement(
    "erasing the customer's profiles",
    select(PROFILES.c.id)
    .where(of_tenant(PROFILES), is_one_of(PROFILES.c.id, "profile_ids"))
    .order_by(PROFILES.c.id)
    .with_for_update(),
)

erase = remove("erasing the customer's profiles")
