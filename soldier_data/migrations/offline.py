"""Checks within offline SQL that the database is at the expected revision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo

from soldier_data.postgres.statements import quoted


def expect_begin(context: MigrationContext, begin: str | tuple[str, ...] | None) -> str:
    """Return the first statement, which fails unless the database is at `begin`: a revision, `base` or `head`."""
    assert context.script is not None
    versions = quoted(context.version_table)
    scripts_at_begin = context.script.get_revisions(begin or ())
    revision = scripts_at_begin[0].revision if scripts_at_begin else None
    # A client may go on after an error, and CREATE INDEX CONCURRENTLY is not part of a transaction that could be
    # rolled back. So the session becomes read-only.
    read_only = "PERFORM set_config('default_transaction_read_only', 'on', false);"
    # SQL from base creates the version table, which a downgrade to base leaves behind empty.
    then = "" if revision else f"\n    DROP TABLE IF EXISTS {versions};"
    return (
        f"{_expected(versions, revision, refusal=read_only)};\n\n{_expected(versions, revision, then=then)}"
    )


def expect_result(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],  # noqa: ARG001 - Alembic passes it.
    run_args: Mapping[str, Any],  # noqa: ARG001 - Alembic passes it.
) -> None:
    """Write a check after each offline migration, which fails and rolls it back if its revision was not reached.

    Needed because a client may go on after the error of the first statement. This is the argument
    `on_version_apply` of `context.configure`.
    """
    if ctx.as_sql:
        reached = next(iter(step.destination_revision_ids), None)
        ctx.impl.execute(_expected(quoted(ctx.version_table), reached))


def _expected(versions: str, revision: str | None, *, refusal: str | None = None, then: str = "") -> str:
    expected = revision or "none"
    refusal = refusal or (
        "RAISE EXCEPTION USING MESSAGE = 'this SQL does not match the revision of the database: '\n"
        f"            || coalesce(present, 'none') || ' instead of {expected}. Write it again from there';"
    )
    return f"""DO $$
DECLARE
    present text;
BEGIN
    IF to_regclass('{versions}') IS NOT NULL THEN
        SELECT string_agg(version_num, ', ') INTO present FROM {versions};
    END IF;
    IF coalesce(present, 'none') <> '{expected}' THEN
        {refusal}
    END IF;{then}
END $$"""  # noqa: S608 - a checked setting, and names of this package's files.
