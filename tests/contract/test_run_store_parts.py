"""The contract of `RunStore`, run against every backend: steps, artifacts, LLM calls and statistics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError as PydanticValidationError

from soldier_data.errors import ConflictError, NotFoundError, ValidationError
from soldier_data.runs import Run, RunStats, RunStatus, RunStore
from tests.cases.kinds.runs import PARTS
from tests.cases.values import NOON
from tests.factories.runs import LLMCallFactory, RunFactory

SECOND = timedelta(seconds=1)

KINDS = {kind.name: kind for kind in PARTS}

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def run(run_store: RunStore, tenant_id: UUID) -> Run:
    """A stored run."""
    saved: Run = RunFactory(tenant_id=tenant_id, created_at=NOON)
    await run_store.save_run(saved)
    return saved


def make(kind: str, run: Run, **fields: Any) -> Any:
    return KINDS[kind].make(**{"tenant_id": run.tenant_id, "run_id": run.id, **fields})


async def save(store: RunStore, kind: str, part: Any) -> UUID:
    return await KINDS[kind].save(store, part)


async def listed(store: RunStore, kind: str, run: Run, tenant_id: UUID | None = None) -> list[Any]:
    found: list[Any] = await getattr(store, f"get_{kind}s")(tenant_id or run.tenant_id, run.id)
    return found


# -- saving ----------------------------------------------------------------------------------------------------


@every_kind
async def test_saving_a_part_again_replaces_it(run_store: RunStore, run: Run, kind: str) -> None:
    part = make(kind, run)
    await save(run_store, kind, part)
    changed = make(kind, run, id=part.id, **KINDS[kind].full())
    await save(run_store, kind, changed)
    assert await listed(run_store, kind, run) == [changed]


@every_kind
async def test_a_part_is_a_copy_on_both_ways(run_store: RunStore, run: Run, kind: str) -> None:
    part = make(kind, run, **KINDS[kind].full())
    original = part.model_copy(deep=True)
    await save(run_store, kind, part)
    part.run_id = uuid4()
    (await listed(run_store, kind, run))[0].tenant_id = uuid4()
    assert await listed(run_store, kind, run) == [original]


@every_kind
async def test_a_part_of_no_run_is_refused(run_store: RunStore, tenant_id: UUID, run: Run, kind: str) -> None:
    for orphan in (make(kind, run, run_id=uuid4()), make(kind, run, tenant_id=uuid4())):
        with pytest.raises(NotFoundError, match="the tenant has no run with this run_id"):
            await save(run_store, kind, orphan)
    run.soft_delete()
    await run_store.save_run(run)
    with pytest.raises(NotFoundError):
        await save(run_store, kind, make(kind, run))
    run.deleted_at = None
    await run_store.save_run(run)
    assert await listed(run_store, kind, run) == []


@every_kind
async def test_a_part_stays_in_its_run(run_store: RunStore, tenant_id: UUID, run: Run, kind: str) -> None:
    other = RunFactory(tenant_id=tenant_id)
    await run_store.save_run(other)
    part = make(kind, run)
    await save(run_store, kind, part)
    for elsewhere in (other.id, uuid4()):
        with pytest.raises(ConflictError, match="the id belongs to another run"):
            await save(run_store, kind, part.model_copy(update={"run_id": elsewhere}))
    assert await listed(run_store, kind, run) == [part]
    assert await listed(run_store, kind, other) == []


@every_kind
async def test_another_tenant_sees_and_changes_nothing(run_store: RunStore, run: Run, kind: str) -> None:
    part = make(kind, run)
    await save(run_store, kind, part)
    other = RunFactory(id=run.id)
    await run_store.save_run(other)
    assert await listed(run_store, kind, run, other.tenant_id) == []
    await save(run_store, kind, make(kind, other, id=part.id))
    assert await run_store.delete_run(other.tenant_id, run.id)
    assert await listed(run_store, kind, run) == [part]


# -- order -----------------------------------------------------------------------------------------------------


async def test_parts_are_listed_in_order(run_store: RunStore, run: Run) -> None:
    steps = [make("step", run, step_number=n // 2, started_at=NOON - (n // 4) * SECOND) for n in range(8)]
    artifacts = [make("artifact", run, created_at=NOON - (n // 2) * SECOND) for n in range(4)]
    calls = [make("llm_call", run, created_at=NOON - (n // 2) * SECOND) for n in range(4)]
    for kind, parts in (("step", steps), ("artifact", artifacts), ("llm_call", calls)):
        for part in parts[::-1]:
            await save(run_store, kind, part)
    by_number = sorted(steps, key=lambda step: (step.step_number, step.started_at, step.id))
    assert await run_store.get_steps(run.tenant_id, run.id) == by_number
    by_time = [sorted(parts, key=lambda part: (part.created_at, part.id)) for parts in (artifacts, calls)]
    assert await run_store.get_artifacts(run.tenant_id, run.id) == by_time[0]
    assert await run_store.get_llm_calls(run.tenant_id, run.id) == by_time[1]


# -- steps and their calls -------------------------------------------------------------------------------------


async def test_a_call_belongs_to_a_step_of_its_run_alone(
    run_store: RunStore, tenant_id: UUID, run: Run
) -> None:
    other = RunFactory(tenant_id=tenant_id)
    await run_store.save_run(other)
    step, elsewhere = make("step", run), make("step", other)
    await run_store.save_step(step)
    await run_store.save_step(elsewhere)
    call = make("llm_call", run, step_id=step.id)
    await run_store.save_llm_call(call)
    for wrong in (elsewhere.id, uuid4()):
        with pytest.raises(NotFoundError, match="the run has no step with this step_id"):
            await run_store.save_llm_call(make("llm_call", run, step_id=wrong))
    assert await run_store.get_llm_calls(tenant_id, run.id) == [call]


async def test_deleting_a_step_unlinks_its_calls(run_store: RunStore, tenant_id: UUID, run: Run) -> None:
    steps = [make("step", run) for _ in range(2)]
    calls = [make("llm_call", run, step_id=step.id) for step in steps for _ in range(2)]
    for step in steps:
        await run_store.save_step(step)
    for call in calls:
        await run_store.save_llm_call(call)
    assert await run_store.delete_step(uuid4(), steps[0].id) is False
    assert await run_store.delete_step(tenant_id, steps[0].id) is True
    assert await run_store.delete_step(tenant_id, steps[0].id) is False
    assert await run_store.get_steps(tenant_id, run.id) == steps[1:]
    found = {call.id: call.step_id for call in await run_store.get_llm_calls(tenant_id, run.id)}
    assert found == {call.id: None if call.step_id == steps[0].id else steps[1].id for call in calls}


# -- statistics ------------------------------------------------------------------------------------------------


async def test_the_statistics_of_a_run_are_exact_sums(run_store: RunStore, tenant_id: UUID, run: Run) -> None:
    empty = RunStats(
        run_id=run.id,
        status=RunStatus.RUNNING,
        step_count=0,
        llm_calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        cost_usd=Decimal(0),
        duration_seconds=None,
    )
    assert await run_store.get_run_stats(tenant_id, run.id) == empty
    for _ in range(3):
        await run_store.save_step(make("step", run))
    costs = [Decimal("0.1"), Decimal("0.2"), Decimal(100000000000000), Decimal("1E-15")]
    for cost in costs:
        # Together beyond 64 bits.
        await run_store.save_llm_call(make("llm_call", run, prompt_tokens=2**62, cost_usd=cost))
    run.status = RunStatus.COMPLETED
    run.completed_at = NOON + timedelta(seconds=2.5)
    await run_store.save_run(run)
    stats = await run_store.get_run_stats(tenant_id, run.id)
    assert stats == empty.model_copy(
        update={
            "status": RunStatus.COMPLETED,
            "step_count": 3,
            "llm_calls": 4,
            "prompt_tokens": 2**64,
            "completion_tokens": 80,
            "total_tokens": 480,
            "cost_usd": Decimal("100000000000000.300000000000001"),
            "duration_seconds": 2.5,
        }
    )
    assert type(stats.cost_usd) is Decimal
    assert await run_store.get_run_stats(uuid4(), run.id) is None


# -- what cannot be stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("step", {"node_name": "\x00"}, "node_name"),
        ("step", {"input_data": {"a": float("inf")}}, "input_data"),
        ("step", {"output_data": {1, 2}}, "output_data"),
        ("step", {"step_number": 2**63}, "step_number"),
        ("artifact", {"url": "\udfff"}, "url"),
        ("artifact", {"metadata": {"a": NOON}}, "metadata"),
        ("llm_call", {"total_tokens": 2**63}, "total_tokens"),
        ("llm_call", {"created_at": datetime.max.replace(tzinfo=UTC)}, "created_at"),
    ],
    ids=str,
)
async def test_a_part_that_cannot_be_stored_is_refused_by_field(
    run_store: RunStore, run: Run, kind: str, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        await save(run_store, kind, make(kind, run).model_copy(update=changes))
    assert (refused.value.field or "").startswith(field)
    assert await listed(run_store, kind, run) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"cost_usd": 0.1},
        {"cost_usd": Decimal("-0.1")},
        {"cost_usd": Decimal("NaN")},
        {"cost_usd": Decimal("1E-16")},
        {"prompt_tokens": -1},
        {"latency_ms": float("nan")},
    ],
    ids=str,
)
def test_a_call_with_an_impossible_value_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(PydanticValidationError):
        LLMCallFactory(**fields)
