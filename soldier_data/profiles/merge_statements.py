"""The SQL that merges profiles, and removes them for good."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, Update, Uuid, and_, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from soldier_data.base.subjects import EXTERNAL_ID
from soldier_data.postgres.purging import oldest
from soldier_data.postgres.queries import equals_any, of_tenant
from soldier_data.postgres.statements import Statement, column_param, param
from soldier_data.profiles.statements import (
    ASSETS,
    CONSENTS,
    FIELDS,
    FORMER,
    IDENTITIES,
    PRESENT,
    PROFILES,
    of_profile,
)
from soldier_data.profiles.write_statements import NOW, ONE, WRITE_ID, exists, next_position

_SOURCE_ID = param("source_id", PROFILES.c.id.type)
_TARGET_ID = param("target_id", PROFILES.c.id.type)

_OPERATION = "merging the profiles"


def _find_merged() -> Select[Any]:
    """All profiles that were merged with those in the parameter `ids`, directly or through others."""
    merged = func.unnest(PROFILES.c.merged_profile_ids, type_=Uuid()).column_valued("merged")
    # Materialized, so that the table is read once, not in each step of the recursion.
    pairs = (
        select(PROFILES.c.id.label("one"), merged.label("other"))
        .where(of_tenant(PROFILES), PROFILES.c.merged_profile_ids.is_not(None))
        .cte("pairs")
        .prefix_with("MATERIALIZED")
    )
    person = select(func.unnest(param("ids", ARRAY(Uuid())), type_=Uuid()).label("id")).cte(
        "person", recursive=True
    )
    beside = case((pairs.c.one == person.c.id, pairs.c.other), else_=pairs.c.one)
    person = person.union(
        select(beside).where(person.c.id.in_([pairs.c.one, pairs.c.other])).select_from(pairs)
    )
    return select(person.c.id)


find_merged = Statement("looking for the customer's profiles", _find_merged)

# In the order of ids, so that two merges of the same profiles cannot deadlock.
lock_all = Statement(
    "locking the profiles",
    lambda: (
        select(
            PROFILES.c.id,
            PROFILES.c.external_id,
            PROFILES.c.last_interaction_at,
            PROFILES.c.updated_at,
            PROFILES.c.deleted_at,
            PROFILES.c.write_id,
        )
        .where(of_tenant(PROFILES), equals_any(PROFILES.c.id, "ids"))
        .order_by(PROFILES.c.id)
        .with_for_update(key_share=True)
    ),
)


def _mark_merged() -> Update:
    """Add the parameter `ids` to the merged_profile_ids of each of these profiles."""
    ids = func.array_cat(PROFILES.c.merged_profile_ids, param("ids", ARRAY(Uuid())), type_=ARRAY(Uuid()))
    each = func.unnest(ids, type_=Uuid()).column_valued("each")
    every = select(func.array_agg(each.distinct())).scalar_subquery()
    return (
        update(PROFILES)
        .values(merged_profile_ids=every)
        .where(of_tenant(PROFILES), equals_any(PROFILES.c.id, "ids"))
    )


mark_merged = Statement(_OPERATION, _mark_merged)

# The target keeps its own external_id. The source's becomes a former one of the target, which outlives the source.
remember_external_id = Statement(
    _OPERATION,
    lambda: (
        insert(FORMER)
        .values(
            tenant_id=column_param(FORMER.c.tenant_id),
            profile_id=_TARGET_ID,
            kind=EXTERNAL_ID,
            value=param("lost_external_id", FORMER.c.value.type),
            freed_at=NOW,
        )
        .on_conflict_do_nothing()
    ),
)


def _move(table: Table) -> Any:
    """An UPDATE that moves the source's rows to the target, after the target's own."""
    values: dict[str, Any] = {"profile_id": _TARGET_ID}
    if "position" in table.c:
        values["position"] = table.c.position + next_position(table, _TARGET_ID)
    return update(table).values(values).where(of_profile(table, _SOURCE_ID))


def _retire(loser: ColumnElement[Any], winner: ColumnElement[Any], *, when_equal: bool) -> Any:
    """An UPDATE that moves the loser's fields to the history of which the winner has a later value."""
    rival = FIELDS.alias("rival")
    later = (
        rival.c.updated_at >= FIELDS.c.updated_at if when_equal else rival.c.updated_at > FIELDS.c.updated_at
    )
    beaten = exists(
        rival,
        of_profile(rival, winner),
        rival.c.replaced_at.is_(None),
        rival.c.name == FIELDS.c.name,
        later,
    )
    return update(FIELDS).values(replaced_at=NOW).where(of_profile(FIELDS, loser), PRESENT, beaten)


def _is_known(table: Table, *key: str) -> ColumnElement[bool]:
    """The target has a row with the same key as the source's."""
    of_target = table.alias("of_target")
    alike = and_(*(of_target.c[name] == table.c[name] for name in key))
    return exists(of_target, of_profile(of_target, _TARGET_ID), alike)


def _delete_known(table: Table, *key: str) -> Any:
    return delete(table).where(of_profile(table, _SOURCE_ID), _is_known(table, *key))


def _update_profile(profile_id: ColumnElement[Any], **values: ColumnElement[Any]) -> Any:
    changed = {"revision": PROFILES.c.revision + ONE, "updated_at": NOW, "write_id": WRITE_ID}
    return (
        update(PROFILES).where(of_tenant(PROFILES), PROFILES.c.id == profile_id).values(**changed, **values)
    )


merge = tuple(
    Statement(_OPERATION, build)
    for build in (
        partial(_move, IDENTITIES),
        partial(_delete_known, FORMER, "kind", "value", "freed_at"),
        partial(_move, FORMER),
        partial(_delete_known, ASSETS, "id"),
        partial(_move, ASSETS),
        partial(_move, CONSENTS),
        partial(_retire, _SOURCE_ID, _TARGET_ID, when_equal=True),
        partial(_retire, _TARGET_ID, _SOURCE_ID, when_equal=False),
        partial(_move, FIELDS),
        # The source first, so that its external_id is free for the target.
        partial(_update_profile, _SOURCE_ID, deleted_at=NOW),
        partial(
            _update_profile,
            _TARGET_ID,
            external_id=column_param(PROFILES.c.external_id),
            last_interaction_at=column_param(PROFILES.c.last_interaction_at),
        ),
    )
)
"""The statements of a merge, in order, after `lock_all`."""


lock_old = Statement("purging deleted profiles", lambda: oldest(PROFILES).with_for_update())

lock_listed = Statement(
    "erasing the customer's profiles",
    lambda: (
        select(PROFILES.c.id)
        .where(of_tenant(PROFILES), equals_any(PROFILES.c.id, "ids"))
        .order_by(PROFILES.c.id)
        .with_for_update()
    ),
)


def _remove(operation: str) -> tuple[Statement, ...]:
    """Delete the profiles in the parameter `ids` for good, their parts first."""
    tables = (IDENTITIES, FORMER, FIELDS, ASSETS, CONSENTS, PROFILES)
    return tuple(Statement(operation, partial(_delete_listed, table)) for table in tables)


def _delete_listed(table: Table) -> Any:
    profile_id = table.c.id if table is PROFILES else table.c.profile_id
    return delete(table).where(of_tenant(table), equals_any(profile_id, "ids"))


purge = _remove("purging deleted profiles")
erase = _remove("erasing the customer's profiles")
