"""What both run stores check, and what they say when they refuse."""

from __future__ import annotations

from typing import TypeAlias

from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.values import check_key, check_moment, check_storable
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.runs.models import Artifact, LLMCall, Run, Step

Part: TypeAlias = Step | Artifact | LLMCall
"""What belongs to a run."""

_NAMES: dict[type[Part], str] = {Step: "step", Artifact: "artifact", LLMCall: "LLM call"}


def check_run(run: Run) -> None:
    """Check that `run` can be stored.

    Raises:
        ValidationError: Names the field.
    """
    check_storable(run)
    check_key(run.actor, "actor")
    check_key(run.trace_id, "trace_id")
    if run.idempotency_key is not None:
        check_key(run.idempotency_key, "idempotency_key")


def check_list(actor: str, limit: int, offset: int, before: Cursor | None) -> None:
    """Check what `list_runs` is asked for.

    Raises:
        ValidationError: Names the argument.
    """
    check_key(actor, "actor")
    check_page(limit, offset)
    if before is not None:
        check_moment(before.at, "before")


def saving(part: Part) -> str:
    """What a message says was being done."""
    return f"saving the {_NAMES[type(part)]} {part.id}"


def taken(run: Run, holder: Run) -> ConflictError:
    """What saving `run` raises when `holder` has its idempotency_key or its trace_id."""
    same_key = run.idempotency_key is not None and run.idempotency_key == holder.idempotency_key
    field = "idempotency_key" if same_key else "trace_id"
    return ConflictError(
        f"saving the run {run.id}: the run {holder.id} of the tenant has this {field}: use that one, or choose "
        f"another {field}"
    )


def missing(part: Part) -> NotFoundError:
    """What saving `part` raises when its run, or its step, does not exist."""
    wanted = "run_id names no run of the tenant"
    if isinstance(part, LLMCall) and part.step_id is not None:
        wanted += ", or step_id no step of that run"
    return NotFoundError(f"{saving(part)}: {wanted}: save that one first")


def elsewhere(part: Part) -> ConflictError:
    """What saving `part` raises when its id is stored in another run."""
    return ConflictError(f"{saving(part)}: the id is stored in another run: use a new id")
