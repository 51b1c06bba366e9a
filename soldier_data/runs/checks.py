"""The checks that both run stores make, and the errors that they raise."""

from __future__ import annotations

from typing import TypeAlias

from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.values import check_key, check_moment, check_storable
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.runs.models import Artifact, LLMCall, Run, Step

Part: TypeAlias = Step | Artifact | LLMCall
"""An entity that belongs to a run."""

_NAMES: dict[type[Part], str] = {Step: "step", Artifact: "artifact", LLMCall: "LLM call"}


def check_run(run: Run) -> None:
    """Check that `run` can be stored.

    Raises:
        ValidationError: It cannot. Names the field.
    """
    check_storable(run)
    check_key(run.actor, "actor")
    check_key(run.trace_id, "trace_id")
    if run.idempotency_key is not None:
        check_key(run.idempotency_key, "idempotency_key")


def check_list(actor: str, limit: int, offset: int, before: Cursor | None) -> None:
    """Check the arguments of `list_runs`.

    Raises:
        ValidationError: One of them is invalid. Names it.
    """
    check_key(actor, "actor")
    check_page(limit, offset)
    if before is not None:
        check_moment(before.at, "before")


def saving(part: Part) -> str:
    """The operation, for messages: "saving the step ..."."""
    return f"saving the {_NAMES[type(part)]} {part.id}"


def taken(run: Run, holder: Run) -> ConflictError:
    """The error for a run whose idempotency_key or trace_id `holder` has."""
    same_key = run.idempotency_key is not None and run.idempotency_key == holder.idempotency_key
    field = "idempotency_key" if same_key else "trace_id"
    return ConflictError(
        f"saving the run {run.id}: the run {holder.id} of the tenant has this {field}: use that run, or choose "
        f"another {field}"
    )


def missing(part: Part) -> NotFoundError:
    """The error for a part whose run or step does not exist."""
    problem = "the tenant has no run with this run_id"
    if isinstance(part, LLMCall) and part.step_id is not None:
        problem += ", or the run has no step with this step_id"
    return NotFoundError(f"{saving(part)}: {problem}: save that one first")


def elsewhere(part: Part) -> ConflictError:
    """The error for a part whose id belongs to a part of another run."""
    return ConflictError(f"{saving(part)}: the id belongs to another run: use a new id")
