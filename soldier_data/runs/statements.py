"""The SQL of the run store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert

from soldier_data.postgres.collecting import Insertion
from soldier_data.postgres.queries import (
    LIMIT,
    OFFSET,
    columns_except,
    equals,
    equals_any,
    has_key,
    is_living,
    living,
    newest_first,
    of_tenant,
)
from soldier_data.postgres.revisioned import RevisionedTable
from soldier_data.postgres.statements import Statement, column_param, table_of
from soldier_data.runs.orm import ArtifactRow, LLMCallRow, RunRow, StepRow

RUNS = table_of(RunRow)
STEPS = table_of(StepRow)
ARTIFACTS = table_of(ArtifactRow)
LLM_CALLS = table_of(LLMCallRow)


# -- runs ------------------------------------------------------------------------------------------------------

runs = RevisionedTable("run", RUNS, unique=True)


def _living_runs() -> Select[Any]:
    return select(*columns_except(RUNS, "write_id")).where(living(RUNS))


get_run = Statement("reading the run", lambda: _living_runs().where(equals(RUNS.c.id)))
get_run_by_trace_id = Statement("reading the run", lambda: _living_runs().where(equals(RUNS.c.trace_id)))
get_run_by_idempotency_key = Statement(
    "reading the run", lambda: _living_runs().where(equals(RUNS.c.idempotency_key))
)

# The run that has the idempotency_key comes first: it is the one that a repeated request looks for.
find_holder = Statement(
    "saving the run",
    lambda: (
        _living_runs()
        .where(
            RUNS.c.id != column_param(RUNS.c.id), or_(equals(RUNS.c.idempotency_key), equals(RUNS.c.trace_id))
        )
        .order_by(equals(RUNS.c.idempotency_key).desc().nulls_last())
        .limit(literal_column("1"))
    ),
)

delete_run = Statement("deleting the run", lambda: delete(RUNS).where(has_key(RUNS)).returning(RUNS.c.id))


def _of_actor(statement: Select[Any], *, status: bool) -> Select[Any]:
    statement = statement.where(equals(RUNS.c.actor))
    return statement.where(equals(RUNS.c.status)) if status else statement


@cache
def list_runs(*, status: bool, before: bool) -> Statement:
    """One page of an actor's runs, optionally with one status, or after a position."""
    page = newest_first(_of_actor(_living_runs(), status=status), RUNS.c.created_at, before=before)
    return Statement("listing the runs", page.limit(LIMIT).offset(OFFSET))


@cache
def count_runs(*, status: bool) -> Statement:
    """The number of an actor's runs, optionally with one status."""
    counting = select(func.count().label("how_many")).select_from(RUNS).where(living(RUNS))
    return Statement("counting the runs", _of_actor(counting, status=status))


def _stats() -> Any:
    calls = (
        select(
            func.count().label("llm_calls"),
            *(
                func.coalesce(func.sum(LLM_CALLS.c[name]), literal_column("0")).label(name)
                for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
            ),
        )
        .where(LLM_CALLS.c.tenant_id == RUNS.c.tenant_id, LLM_CALLS.c.run_id == RUNS.c.id)
        .lateral("calls")
    )
    steps = (
        select(func.count())
        .where(STEPS.c.tenant_id == RUNS.c.tenant_id, STEPS.c.run_id == RUNS.c.id)
        .scalar_subquery()
    )
    return (
        select(RUNS.c.status, RUNS.c.created_at, RUNS.c.completed_at, steps.label("step_count"), *calls.c)
        .join_from(RUNS, calls, literal_column("true"))
        .where(living(RUNS), equals(RUNS.c.id))
    )


get_run_stats = Statement("reading the statistics of the run", _stats)


# -- parts of runs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartStatements:
    """The statements for one of the tables whose rows belong to runs.

    Attributes:
        save: Insert or replace a row; returns its id, or nothing if the run does not exist or the row belongs to
            another run.
        insertion: The same in a collected statement.
        listed: The rows of a run.
        stored: The run_id of the row with an id.
    """

    save: Statement
    insertion: Insertion
    listed: Statement
    stored: Statement


def _of_run(table: Table) -> ColumnElement[bool]:
    return and_(living(RUNS), RUNS.c.id == column_param(table.c.run_id))


def _save(table: Table, parents: Select[Any]) -> Any:
    """Insert a row, or replace it if it belongs to the same run, provided that its parents exist."""
    values = [column_param(column) for column in table.columns]
    # The lock that foreign keys take: the run can be saved meanwhile, but not deleted.
    row = parents.with_only_columns(*values).with_for_update(read=True, key_share=True)
    return _replacing(table, insert(table).from_select([column.name for column in table.columns], row))


def _replacing(table: Table, statement: Insert) -> Any:
    changed = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in ("tenant_id", "id", "run_id")
    }
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_=changed, where=table.c.run_id == statement.excluded.run_id
    ).returning(table.c.id)


def _insertion(table: Table) -> Insertion:
    def build(rows: FromClause, earlier: Mapping[str, CTE]) -> Any:
        run = and_(RUNS.c.tenant_id == rows.c.tenant_id, RUNS.c.id == rows.c.run_id, is_living(RUNS))
        found = select(*rows.c).join(RUNS, run).with_for_update(read=True, key_share=True, of=RUNS)
        if "step_id" in table.c:
            found = found.where(_has_step(rows, earlier.get(str(STEPS.name))))
        inserting = insert(table).from_select([column.name for column in rows.c], found)
        return _replacing(table, inserting).returning(table.c.tenant_id, table.c.run_id)

    return Insertion(table, build)


def _has_step(calls: FromClause, inserted: CTE | None) -> ColumnElement[bool]:
    """The condition for LLM calls that belong to no step, or to one of their run, stored or inserted with them."""

    def exists(steps: FromClause) -> ColumnElement[bool]:
        own = (steps.c.tenant_id == calls.c.tenant_id, steps.c.run_id == calls.c.run_id)
        return select(literal_column("1")).where(*own, steps.c.id == calls.c.step_id).exists()

    found = [calls.c.step_id.is_(None), exists(STEPS)]
    return or_(*found) if inserted is None else or_(*found, exists(inserted))


def _part_statements(name: str, table: Table, *order: ColumnElement[Any]) -> PartStatements:
    def listed() -> Select[Any]:
        run = select(literal_column("1")).where(_of_run(table)).exists()
        rows = select(*table.columns).where(of_tenant(table), equals(table.c.run_id), run)
        return rows.order_by(*order)

    return PartStatements(
        save=Statement(f"saving the {name}", lambda: _save(table, select(RUNS.c.id).where(_of_run(table)))),
        insertion=_insertion(table),
        listed=Statement(f"listing the {name}s", listed),
        stored=Statement(f"saving the {name}", lambda: select(table.c.run_id).where(has_key(table))),
    )


steps = _part_statements("step", STEPS, STEPS.c.step_number, STEPS.c.started_at, STEPS.c.id)
artifacts = _part_statements("artifact", ARTIFACTS, ARTIFACTS.c.created_at, ARTIFACTS.c.id)
llm_calls = _part_statements("LLM call", LLM_CALLS, LLM_CALLS.c.created_at, LLM_CALLS.c.id)

save_llm_call_of_step = Statement(
    "saving the LLM call",
    lambda: _save(
        LLM_CALLS,
        select(RUNS.c.id)
        .join(STEPS, and_(STEPS.c.tenant_id == RUNS.c.tenant_id, STEPS.c.run_id == RUNS.c.id))
        .where(_of_run(LLM_CALLS), STEPS.c.id == column_param(LLM_CALLS.c.step_id)),
    ),
)

# Deleting takes two statements: another transaction that adds an LLM call holds a lock on its step, and a single
# statement would wait for that lock without seeing the call afterwards.
lock_step = Statement("deleting the step", lambda: select(STEPS.c.id).where(has_key(STEPS)).with_for_update())


def _delete_step() -> Any:
    unlinked = (
        update(LLM_CALLS)
        .values(step_id=null())
        .where(of_tenant(LLM_CALLS), LLM_CALLS.c.step_id == column_param(STEPS.c.id))
        .cte("unlinked")
    )
    return delete(STEPS).where(has_key(STEPS)).returning(STEPS.c.id).add_cte(unlinked)


delete_step = Statement("deleting the step", _delete_step)

list_parts = {
    str(table.name): Statement(
        "erasing the customer's runs",
        select(table.c.id).where(of_tenant(table), equals_any(table.c.run_id, "run_ids")),
    )
    for table in (STEPS, ARTIFACTS, LLM_CALLS)
}
