"""The SQL that merges profiles, and that removes deleted ones for good."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Table, Uuid, any_, delete, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.base.purging import oldest
from soldier_data.base.statements import Statement, column_param, param
from soldier_data.profiles.statements import (
    ASSETS,
    CONSENTS,
    FIELDS,
    IDENTITIES,
    PRESENT,
    PROFILES,
    of_profile,
    of_tenant,
)
from soldier_data.profiles.write_statements import NOW, ONE, WRITE_ID, exists, next_position

_SOURCE_ID = param("source_id", PROFILES.c.id.type)
_TARGET_ID = param("target_id", PROFILES.c.id.type)

# In the order of ids, so that two merges of the same profiles never wait for each other.
lock_both = Statement(
    "locking the profiles",
    select(
        PROFILES.c.id,
        PROFILES.c.external_id,
        PROFILES.c.last_interaction_at,
        PROFILES.c.updated_at,
        PROFILES.c.deleted_at,
        PROFILES.c.write_id,
        PROFILES.c.merged_profile_ids,
    )
    .where(of_tenant(PROFILES), PROFILES.c.id.in_([_SOURCE_ID, _TARGET_ID]))
    .order_by(PROFILES.c.id)
    .with_for_update(key_share=True),
)


def _move(table: Table) -> Any:
    """An UPDATE that gives the source's rows to the target, behind the target's own."""
    values: dict[str, Any] = {"profile_id": _TARGET_ID}
    if "position" in table.c:
        values["position"] = table.c.position + next_position(table, _TARGET_ID)
    return update(table).values(values).where(of_profile(table, _SOURCE_ID))


def _retire(loser: ColumnElement[Any], winner: ColumnElement[Any], *, when_equal: bool) -> Any:
    """An UPDATE that sends to the history the loser's fields that the winner has found out later."""
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


def _merge() -> tuple[Statement, ...]:
    of_target = ASSETS.alias("of_target")
    known = exists(
        of_target,
        of_profile(of_target, _TARGET_ID),
        of_target.c.id == ASSETS.c.id,
    )
    changed = {"revision": PROFILES.c.revision + ONE, "updated_at": NOW, "write_id": WRITE_ID}
    source = update(PROFILES).where(of_tenant(PROFILES), PROFILES.c.id == _SOURCE_ID)
    target = update(PROFILES).where(of_tenant(PROFILES), PROFILES.c.id == _TARGET_ID)
    statements = (
        _move(IDENTITIES),
        delete(ASSETS).where(of_profile(ASSETS, _SOURCE_ID), known),
        _move(ASSETS),
        _move(CONSENTS),
        _retire(_SOURCE_ID, _TARGET_ID, when_equal=True),
        _retire(_TARGET_ID, _SOURCE_ID, when_equal=False),
        _move(FIELDS),
        # The source goes first, because its external_id must be free for the target.
        source.values(**changed, deleted_at=NOW),
        target.values(
            **changed,
            external_id=column_param(PROFILES.c.external_id),
            last_interaction_at=column_param(PROFILES.c.last_interaction_at),
            merged_profile_ids=column_param(PROFILES.c.merged_profile_ids),
        ),
    )
    return tuple(Statement("merging the profiles", statement) for statement in statements)


merge = _merge()
"""Run in this order once `lock_both` holds both rows."""


lock_old = Statement("purging deleted profiles", oldest(PROFILES).with_for_update())
"""Some of the profiles that a purge removes."""


def remove(doing: str) -> tuple[Statement, ...]:
    """What removes profiles for good, those of the parameter `ids`: their parts first."""
    ids = any_(param("ids", ARRAY(Uuid())))
    return (
        *(
            Statement(doing, delete(table).where(of_tenant(table), table.c.profile_id == ids))
            for table in (IDENTITIES, FIELDS, ASSETS, CONSENTS)
        ),
        Statement(doing, delete(PROFILES).where(of_tenant(PROFILES), PROFILES.c.id == ids)),
    )


purge = remove("purging deleted profiles")
