"""SQL that is run by hand looks for itself whether the database is where it begins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory


def expect_begin(scripts: ScriptDirectory, begin: str | tuple[str, ...] | None) -> str:
    """The first statement: it fails unless the database is at `begin`, a revision, `base` or `head`."""
    found = scripts.get_revisions(begin or ())
    revision = found[0].revision if found else None
    # Not every program stops at the first error, and an index that is built concurrently is in no transaction that
    # could be rolled back: in the wrong place the session may not write at all.
    read_only = "PERFORM set_config('default_transaction_read_only', 'on', false);"
    # SQL that begins without any migration makes the table of revisions, which a downgrade to base leaves empty.
    then = "" if revision else "\n    DROP TABLE IF EXISTS alembic_version;"
    return f"{_expected(revision, refusal=read_only)};\n\n{_expected(revision, then=then)}"


def expect_result(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],  # noqa: ARG001 - Alembic gives it.
    run_args: Mapping[str, Any],  # noqa: ARG001 - Alembic gives it.
) -> None:
    """Have a migration that is written as SQL fail, and be rolled back, where it did not begin as it should.

    Not every program stops at the first error, so the first statement alone is not enough. For the argument
    `on_version_apply` of `context.configure`.
    """
    if ctx.as_sql:
        ctx.impl.execute(_expected(next(iter(step.destination_revision_ids), None)))


def _expected(revision: str | None, *, refusal: str | None = None, then: str = "") -> str:
    expected = revision or "none"
    refusal = refusal or (
        "RAISE EXCEPTION USING MESSAGE = 'this SQL is not for the revision that the database is at: '\n"
        f"            || coalesce(present, 'none') || ' instead of {expected}. Write it anew from there';"
    )
    return f"""DO $$
DECLARE
    present text;
BEGIN
    IF to_regclass('alembic_version') IS NOT NULL THEN
        SELECT string_agg(version_num, ', ') INTO present FROM alembic_version;
    END IF;
    IF coalesce(present, 'none') <> '{expected}' THEN
        {refusal}
    END IF;{then}
END $$"""  # noqa: S608 - revisions are names of our own files.
