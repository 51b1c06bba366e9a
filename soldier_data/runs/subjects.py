"""The rules that say which runs are a person's."""

from __future__ import annotations

from uuid import UUID

from soldier_data.base.subject_rules import HeldAt, Mentions, SubjectSearch

PARTS = ("steps", "artifacts", "llm_calls")
"""The tables whose rows belong to a run, and are the person's if the run is."""

_RULES = {
    "runs": HeldAt("actor", "created_at")
    | Mentions("actor", "trace_id", "idempotency_key", "request_payload"),
    "steps": Mentions("input_data", "output_data"),
    "artifacts": Mentions("url", "metadata"),
}
"""A run is the person's if one of these rules holds for it or for one of its parts."""


async def find(search: SubjectSearch) -> dict[str, list[UUID]]:
    """The ids of the person's runs and of their parts, by table."""
    runs: set[UUID] = set()
    for table, rule in _RULES.items():
        run_id = "id" if table == "runs" else "run_id"
        runs |= {row[run_id] for row in await search.rows(table, rule, fields=[run_id])}
    parts = {table: await search.look_up(table, "run_id", sorted(runs)) for table in PARTS}
    return {"runs": sorted(runs), **parts}
