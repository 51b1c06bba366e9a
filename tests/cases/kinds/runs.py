"""The kinds of entities that the run store keeps."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from soldier_data.runs import Artifact, LLMCall, Run, RunStatus, Step
from tests.cases.kind import ByEntity, Kind
from tests.cases.values import BEFORE_1970, DOCUMENT, LATER, LEAP_DAY, NOON, TEXT
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory


def _full_run() -> dict[str, Any]:
    return {
        "actor": TEXT,
        "request_payload": DOCUMENT,
        "status": RunStatus.FAILED,
        "autonomy_level": "supervised",
        "trace_id": TEXT,
        "idempotency_key": TEXT,
        "created_at": LEAP_DAY,
        "completed_at": LATER,
        "error_message": TEXT,
    }


def _full_step() -> dict[str, Any]:
    return {
        "step_number": 2**63 - 1,
        "node_name": TEXT,
        "input_data": DOCUMENT,
        "output_data": [1, 1.0, True, None, "1"],
        "llm_call_id": uuid4(),
        "started_at": BEFORE_1970,
        "completed_at": NOON,
        "status": RunStatus.CANCELLED,
        "error_message": TEXT,
    }


def _full_artifact() -> dict[str, Any]:
    return {"artifact_type": TEXT, "url": TEXT, "metadata": DOCUMENT, "created_at": LEAP_DAY}


def _full_llm_call() -> dict[str, Any]:
    return {
        "model": TEXT,
        "provider": TEXT,
        "prompt_tokens": 2**63 - 1,
        "completion_tokens": 0,
        "total_tokens": 2**63 - 1,
        "cost_usd": Decimal("123456789012345.123456789012345"),
        "latency_ms": 0.1 + 0.2,
        "created_at": LEAP_DAY,
    }


RUN = Kind(
    name="run",
    store="runs",
    model=Run,
    make=RunFactory,
    full=_full_run,
    changed=("error_message", "changed"),
    counter=("error_message", "0"),
)


def _among(method: str) -> ByEntity:
    """Read by the method that lists the parts of a run: there is no other way."""

    async def get(store: Any, part: Any, tenant_id: UUID) -> Any:
        listed = await getattr(store, method)(tenant_id, part.run_id)
        return next((found for found in listed if found.id == part.id), None)

    return get


_part = partial(Kind, store="runs", parents={"run_id": RUN}, deletes=None)

STEP = _part(
    "step",
    Step,
    StepFactory,
    _full_step,
    gets=_among("get_steps"),
    changed=("error_message", "changed"),
    deletes="delete_{name}",
)
ARTIFACT = _part(
    "artifact",
    Artifact,
    ArtifactFactory,
    _full_artifact,
    gets=_among("get_artifacts"),
    changed=("url", "changed"),
)
LLM_CALL = _part(
    "llm_call",
    LLMCall,
    LLMCallFactory,
    _full_llm_call,
    gets=_among("get_llm_calls"),
    changed=("latency_ms", 0.5),
    parents={"run_id": RUN, "step_id": STEP},
)

PARTS = (STEP, ARTIFACT, LLM_CALL)
"""What belongs to a run."""

KINDS = (RUN, *PARTS)
