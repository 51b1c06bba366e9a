"""The SQL that finds, reads and removes the runs of a person."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, Table, and_, delete, or_, select

from soldier_data.base.statements import Statement, column_param, is_one_of, mentions
from soldier_data.runs.statements import ARTIFACTS, LLM_CALLS, RUNS, STEPS

_PARTS = (STEPS, ARTIFACTS, LLM_CALLS)


def _of_tenant(table: Table) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = table.c.tenant_id == column_param(table.c.tenant_id)
    return condition


def _runs_with(part: Table, *columns: ColumnElement[str]) -> Select[tuple[object]]:
    """The runs with a part that mentions the person."""
    return select(part.c.run_id).where(_of_tenant(part), mentions(*columns))


find_runs = Statement(
    "looking for the customer's runs",
    select(RUNS.c.id)
    .where(
        _of_tenant(RUNS),
        or_(
            is_one_of(RUNS.c.actor, "actors"),
            mentions(RUNS.c.actor, RUNS.c.trace_id, RUNS.c.idempotency_key, RUNS.c.request_payload),
            RUNS.c.id.in_(_runs_with(STEPS, STEPS.c.input_data, STEPS.c.output_data)),
            RUNS.c.id.in_(_runs_with(ARTIFACTS, ARTIFACTS.c.url, ARTIFACTS.c.metadata)),
        ),
    )
    .order_by(RUNS.c.id),
)


def _columns(table: Table) -> list[ColumnElement[object]]:
    return [column for column in table.columns if column.name != "write_id"]


def _listed(table: Table) -> ColumnElement[bool]:
    run_id = table.c.id if table is RUNS else table.c.run_id
    return and_(_of_tenant(table), is_one_of(run_id, "run_ids"))


read_listed = {
    str(table.name): Statement(
        "reading the customer's runs", select(*_columns(table)).where(_listed(table)).order_by(table.c.id)
    )
    for table in (RUNS, *_PARTS)
}

find_parts = {
    str(table.name): Statement(
        "looking for the customer's runs", select(table.c.id).where(_listed(table)).order_by(table.c.id)
    )
    for table in _PARTS
}

# What belongs to a run goes with it.
delete_runs = Statement("erasing the customer's runs", delete(RUNS).where(_listed(RUNS)))
