"""The SQL of the run store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from soldier_data.postgres.revisioned import RevisionedTable
from soldier_data.postgres.statements import Statement, column_param, has_key, param, table_of
from soldier_data.runs.orm import ArtifactRow, LLMCallRow, RunRow, StepRow

RUNS = table_of(RunRow)
STEPS = table_of(StepRow)
ARTIFACTS = table_of(ArtifactRow)
LLM_CALLS = table_of(LLMCallRow)

LIMIT = param("limit", BigInteger())
OFFSET = param("offset", BigInteger())


# -- runs ------------------------------------------------------------------------------------------------------

runs = RevisionedTable("run", RUNS, unique=True)

_LIVING_RUN = and_(RUNS.c.tenant_id == column_param(RUNS.c.tenant_id), RUNS.c.deleted_at.is_(None))


def _living_runs() -> Select[Any]:
    columns = [column for column in RUNS.columns if column.name != "write_id"]
    return select(*columns).where(_LIVING_RUN)


def _run_by(name: str) -> Statement:
    column = RUNS.c[name]
    return Statement("reading the run", _living_runs().where(column == column_param(column)))


get_run = _run_by("id")
get_run_by_trace_id = _run_by("trace_id")
get_run_by_idempotency_key = _run_by("idempotency_key")

# The run whose idempotency_key is taken comes first: that is the one a repeated request looks for.
who_has = Statement(
    "saving the run",
    _living_runs()
    .where(
        RUNS.c.id != column_param(RUNS.c.id),
        or_(
            RUNS.c.idempotency_key == column_param(RUNS.c.idempotency_key),
            RUNS.c.trace_id == column_param(RUNS.c.trace_id),
        ),
    )
    .order_by((RUNS.c.idempotency_key == column_param(RUNS.c.idempotency_key)).desc().nulls_last())
    .limit(literal_column("1")),
)

delete_run = Statement("deleting the run", delete(RUNS).where(has_key(RUNS)).returning(RUNS.c.id))


def _of_actor(statement: Select[Any], *, status: bool) -> Select[Any]:
    statement = statement.where(RUNS.c.actor == column_param(RUNS.c.actor))
    return statement.where(RUNS.c.status == column_param(RUNS.c.status)) if status else statement


@cache
def list_runs(*, status: bool, before: bool) -> Statement:
    """One page of an actor's runs, optionally those of a status or from a position on."""
    statement = _of_actor(_living_runs(), status=status)
    if before:
        position = tuple_(param("before_at", RUNS.c.created_at.type), param("before_id", RUNS.c.id.type))
        statement = statement.where(tuple_(RUNS.c.created_at, RUNS.c.id) < position)
    return Statement(
        "listing the runs",
        statement.order_by(RUNS.c.created_at.desc(), RUNS.c.id.desc()).limit(LIMIT).offset(OFFSET),
    )


@cache
def count_runs(*, status: bool) -> Statement:
    """How many runs an actor has."""
    counting = select(func.count().label("how_many")).select_from(RUNS).where(_LIVING_RUN)
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
        .where(_LIVING_RUN, RUNS.c.id == column_param(RUNS.c.id))
    )


get_run_stats = Statement("reading the statistics of the run", _stats())


# -- what belongs to a run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartStatements:
    """What is done with the rows of one table below `runs`.

    Attributes:
        save: Returns the id, or nothing if the run does not exist or the row is another run's.
        listed: All rows of the run.
        stored: The run_id of the row with this id, whichever run that is.
    """

    save: Statement
    listed: Statement
    stored: Statement


def _of_run(table: Table) -> ColumnElement[bool]:
    return and_(_LIVING_RUN, RUNS.c.id == column_param(table.c.run_id))


def _save(table: Table, parents: Select[Any]) -> Any:
    """Insert or replace a row, which keeps its run, while the parents stay as they are."""
    values = [column_param(column) for column in table.columns]
    # The lock is the one that foreign keys take: the run may be saved meanwhile, but not be deleted.
    row = parents.with_only_columns(*values).with_for_update(read=True, key_share=True)
    statement = insert(table).from_select([column.name for column in table.columns], row)
    changed = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in ("tenant_id", "id", "run_id")
    }
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_=changed, where=table.c.run_id == statement.excluded.run_id
    ).returning(table.c.id)


def _part_statements(name: str, table: Table, *order: ColumnElement[Any]) -> PartStatements:
    in_living_run = and_(
        table.c.tenant_id == column_param(table.c.tenant_id), table.c.run_id == column_param(table.c.run_id)
    )
    run = select(literal_column("1")).where(_of_run(table)).exists()
    return PartStatements(
        save=Statement(f"saving the {name}", _save(table, select(RUNS.c.id).where(_of_run(table)))),
        listed=Statement(
            f"listing the {name}s", select(*table.columns).where(in_living_run, run).order_by(*order)
        ),
        stored=Statement(f"saving the {name}", select(table.c.run_id).where(has_key(table))),
    )


steps = _part_statements("step", STEPS, STEPS.c.step_number, STEPS.c.started_at, STEPS.c.id)
artifacts = _part_statements("artifact", ARTIFACTS, ARTIFACTS.c.created_at, ARTIFACTS.c.id)
llm_calls = _part_statements("LLM call", LLM_CALLS, LLM_CALLS.c.created_at, LLM_CALLS.c.id)

save_llm_call_of_step = Statement(
    "saving the LLM call",
    _save(
        LLM_CALLS,
        select(RUNS.c.id)
        .join(STEPS, and_(STEPS.c.tenant_id == RUNS.c.tenant_id, STEPS.c.run_id == RUNS.c.id))
        .where(_of_run(LLM_CALLS), STEPS.c.id == column_param(LLM_CALLS.c.step_id)),
    ),
)

# Deleting takes two statements: an LLM call that another transaction is adding holds a lock on its step, and one
# statement alone would wait for that lock without seeing the call afterwards.
lock_step = Statement("deleting the step", select(STEPS.c.id).where(has_key(STEPS)).with_for_update())


def _delete_step() -> Any:
    unlinked = (
        update(LLM_CALLS)
        .values(step_id=null())
        .where(
            LLM_CALLS.c.tenant_id == column_param(STEPS.c.tenant_id),
            LLM_CALLS.c.step_id == column_param(STEPS.c.id),
        )
        .cte("unlinked")
    )
    return delete(STEPS).where(has_key(STEPS)).returning(STEPS.c.id).add_cte(unlinked)


delete_step = Statement("deleting the step", _delete_step())
