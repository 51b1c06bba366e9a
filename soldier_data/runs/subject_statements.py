"""The SQL that finds, reads and removes the runs of a person."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, and_, delete, or_, select

from soldier_data.postgres.statements import Statement, column_param, equals_any
from soldier_data.postgres.subject_scan import Scan, is_actor, mentions_subject
from soldier_data.runs.statements import ARTIFACTS, LLM_CALLS, RUNS, STEPS

_PARTS = (STEPS, ARTIFACTS, LLM_CALLS)
_FINDING = "looking for the customer's runs"


def _of_tenant(table: Table) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = table.c.tenant_id == column_param(table.c.tenant_id)
    return condition


find_runs = (
    Scan(
        _FINDING,
        RUNS,
        or_(
            is_actor(RUNS.c.actor, RUNS.c.created_at),
            mentions_subject(RUNS.c.actor, RUNS.c.trace_id, RUNS.c.idempotency_key, RUNS.c.request_payload),
        ),
        RUNS.c.id.label("run_id"),
    ),
    Scan(_FINDING, STEPS, mentions_subject(STEPS.c.input_data, STEPS.c.output_data), STEPS.c.run_id),
    Scan(_FINDING, ARTIFACTS, mentions_subject(ARTIFACTS.c.url, ARTIFACTS.c.metadata), ARTIFACTS.c.run_id),
)
"""The runs that are the person's, and those with a step or an artifact that mentions them."""


def _columns(table: Table) -> list[ColumnElement[object]]:
    return [column for column in table.columns if column.name != "write_id"]


def _of_runs(table: Table) -> ColumnElement[bool]:
    run_id = table.c.id if table is RUNS else table.c.run_id
    return and_(_of_tenant(table), equals_any(run_id, "run_ids"))


read_listed = {
    str(table.name): Statement(
        "reading the customer's runs",
        select(*_columns(table)).where(_of_tenant(table), equals_any(table.c.id, "ids")).order_by(table.c.id),
    )
    for table in (RUNS, *_PARTS)
}

find_parts = {
    str(table.name): Statement(_FINDING, select(table.c.id).where(_of_runs(table))) for table in _PARTS
}

lock_runs = Statement(
    "erasing the customer's runs",
    select(RUNS.c.id).where(_of_runs(RUNS)).order_by(RUNS.c.id).with_for_update(),
)

# What belongs to a run goes with it.
delete_runs = Statement("erasing the customer's runs", delete(RUNS).where(_of_runs(RUNS)))
