"""The contract of `RunStore`, run against every backend: runs, their keys, lists and deletion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.errors import ConflictError, ValidationError
from soldier_data.runs import Cursor, Run, RunStatus, RunStore
from tests.cases.kinds.runs import RUN
from tests.cases.values import NOON
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory

MINUTE = timedelta(minutes=1)


# -- saving ----------------------------------------------------------------------------------------------------


async def test_a_run_comes_back_as_it_was_saved(run_store: RunStore, tenant_id: UUID) -> None:
    for run in (RunFactory(tenant_id=tenant_id, **RUN.full()), RunFactory(tenant_id=tenant_id)):
        assert await run_store.save_run(run) == run.id
        assert run.revision == 1
        assert await run_store.get_run(tenant_id, run.id) == run
        assert await run_store.get_run_by_trace_id(tenant_id, run.trace_id) == run


async def test_saving_again_replaces_every_field_and_counts(run_store: RunStore, tenant_id: UUID) -> None:
    run = RunFactory(tenant_id=tenant_id)
    await run_store.save_run(run)
    changed = RunFactory(tenant_id=tenant_id, id=run.id, **RUN.full())
    await run_store.save_run(changed)
    assert changed.revision == 2
    assert changed.updated_at > run.updated_at
    assert await run_store.get_run(tenant_id, run.id) == changed


async def test_a_conditional_save_meets_its_revision_or_is_refused(
    run_store: RunStore, tenant_id: UUID
) -> None:
    run = RunFactory(tenant_id=tenant_id)
    await run_store.save_run(run, if_revision=0)
    late = run.model_copy(update={"status": RunStatus.FAILED})
    run.status = RunStatus.COMPLETED
    await run_store.save_run(run, if_revision=1)
    for revision in (0, 1):
        with pytest.raises(ConflictError, match=f"revision {revision} was expected, but 2 is stored"):
            await run_store.save_run(late, if_revision=revision)
    assert await run_store.get_run(tenant_id, run.id) == run


async def test_what_is_returned_and_what_was_passed_are_not_the_stored_run(
    run_store: RunStore, tenant_id: UUID
) -> None:
    run = RunFactory(tenant_id=tenant_id)
    await run_store.save_run(run)
    run.request_payload["task"] = "another"
    found = await run_store.get_run(tenant_id, run.id)
    assert found is not None
    found.request_payload["task"] = "a third"
    again = await run_store.get_run(tenant_id, run.id)
    assert again is not None
    assert again.request_payload == {"task": "Summarise the week"}


# -- unique keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["trace_id", "idempotency_key"])
async def test_a_taken_key_is_a_conflict_that_names_the_run_which_has_it(
    run_store: RunStore, tenant_id: UUID, field: str
) -> None:
    first = RunFactory(tenant_id=tenant_id, **{field: "taken"})
    await run_store.save_run(first)
    second = RunFactory(tenant_id=tenant_id, **{field: "taken"})
    with pytest.raises(ConflictError) as refused:
        await run_store.save_run(second)
    assert f"the run {first.id} of the tenant has this {field}" in str(refused.value)
    assert "taken" not in str(refused.value)
    assert refused.value.__context__ is None
    assert second.revision == 0
    assert await run_store.get_run(tenant_id, second.id) is None
    found = await getattr(run_store, f"get_run_by_{field}")(tenant_id, "taken")
    assert found == first


async def test_the_holder_of_the_idempotency_key_is_named_before_that_of_the_trace_id(
    run_store: RunStore, tenant_id: UUID
) -> None:
    by_trace = RunFactory(tenant_id=tenant_id, trace_id="t")
    by_key = RunFactory(tenant_id=tenant_id, idempotency_key="k")
    await run_store.save_run(by_trace)
    await run_store.save_run(by_key)
    with pytest.raises(ConflictError, match=f"{by_key.id} of the tenant has this idempotency_key"):
        await run_store.save_run(RunFactory(tenant_id=tenant_id, trace_id="t", idempotency_key="k"))


async def test_any_number_of_runs_has_no_idempotency_key(run_store: RunStore, tenant_id: UUID) -> None:
    for _ in range(3):
        await run_store.save_run(RunFactory(tenant_id=tenant_id, idempotency_key=None))
    assert await run_store.count_runs(tenant_id, "ada") == 3


async def test_keys_are_unique_in_a_tenant_alone(run_store: RunStore, tenant_id: UUID) -> None:
    tenants = (tenant_id, uuid4())
    runs: list[Run] = [RunFactory(tenant_id=tenant, trace_id="t", idempotency_key="k") for tenant in tenants]
    for run in runs:
        await run_store.save_run(run)
    for run in runs:
        assert await run_store.get_run_by_trace_id(run.tenant_id, "t") == run
        assert await run_store.get_run_by_idempotency_key(run.tenant_id, "k") == run


# -- lists -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def listed(run_store: RunStore, tenant_id: UUID) -> list[Run]:
    """Seven runs of one actor, the newest first, two of them of one moment; and others beside them."""
    runs: list[Run] = [
        RunFactory(
            tenant_id=tenant_id,
            created_at=NOON - (number // 2) * MINUTE,
            status=RunStatus.FAILED if number % 3 == 0 else RunStatus.COMPLETED,
        )
        for number in range(7)
    ]
    others: list[Run] = [RunFactory(tenant_id=tenant_id, actor="bob"), RunFactory(tenant_id=uuid4())]
    for run in runs + others:
        await run_store.save_run(run)
    return sorted(runs, key=Run.position, reverse=True)


async def test_runs_of_an_actor_are_listed_newest_first_page_by_page(
    run_store: RunStore, tenant_id: UUID, listed: list[Run]
) -> None:
    assert await run_store.list_runs(tenant_id, "ada") == listed
    assert await run_store.list_runs(tenant_id, "ada", limit=3, offset=2) == listed[2:5]
    assert await run_store.list_runs(tenant_id, "ada", limit=0) == []
    assert await run_store.list_runs(tenant_id, "ada", offset=7) == []
    assert await run_store.list_runs(tenant_id, "ad") == []


async def test_pages_by_position_follow_each_other_while_runs_are_added(
    run_store: RunStore, tenant_id: UUID, listed: list[Run]
) -> None:
    found: list[Run] = []
    before = None
    while page := await run_store.list_runs(tenant_id, "ada", limit=2, before=before):
        found += page
        before = Cursor.parse(str(Cursor.after(page[-1])))
        await run_store.save_run(RunFactory(tenant_id=tenant_id, created_at=NOON + MINUTE))
    assert found == listed


async def test_lists_and_counts_are_filtered_by_status(
    run_store: RunStore, tenant_id: UUID, listed: list[Run]
) -> None:
    failed = [run for run in listed if run.status == RunStatus.FAILED]
    assert await run_store.list_runs(tenant_id, "ada", status=RunStatus.FAILED) == failed
    after_first = Cursor.after(failed[0])
    assert (
        await run_store.list_runs(tenant_id, "ada", status=RunStatus.FAILED, before=after_first) == failed[1:]
    )
    assert await run_store.count_runs(tenant_id, "ada") == 7
    assert await run_store.count_runs(tenant_id, "ada", status=RunStatus.FAILED) == len(failed) == 3
    assert await run_store.count_runs(tenant_id, "ada", status=RunStatus.CANCELLED) == 0


# -- deletion --------------------------------------------------------------------------------------------------


async def test_deleting_a_run_takes_everything_below_it_and_nothing_else(
    run_store: RunStore, tenant_id: UUID
) -> None:
    runs: list[Run] = [RunFactory(tenant_id=tenant_id, trace_id=f"t{number}") for number in range(2)]
    for run in runs:
        await run_store.save_run(run)
        step = StepFactory(tenant_id=tenant_id, run_id=run.id)
        await run_store.save_step(step)
        await run_store.save_artifact(ArtifactFactory(tenant_id=tenant_id, run_id=run.id))
        await run_store.save_llm_call(LLMCallFactory(tenant_id=tenant_id, run_id=run.id, step_id=step.id))
    gone, kept = runs
    assert await run_store.delete_run(uuid4(), gone.id) is False
    assert await run_store.delete_run(tenant_id, gone.id) is True
    assert await run_store.delete_run(tenant_id, gone.id) is False
    assert await run_store.get_run(tenant_id, gone.id) is None
    assert await run_store.get_run_stats(tenant_id, gone.id) is None
    # Under the same id nothing of it comes back.
    await run_store.save_run(RunFactory(tenant_id=tenant_id, id=gone.id, trace_id="t0"))
    assert await run_store.get_steps(tenant_id, gone.id) == []
    assert await run_store.get_artifacts(tenant_id, gone.id) == []
    assert await run_store.get_llm_calls(tenant_id, gone.id) == []
    assert len(await run_store.get_steps(tenant_id, kept.id)) == 1
    assert len(await run_store.get_llm_calls(tenant_id, kept.id)) == 1


async def test_a_softly_deleted_run_is_hidden_and_frees_its_keys(
    run_store: RunStore, tenant_id: UUID
) -> None:
    run = RunFactory(tenant_id=tenant_id, trace_id="t", idempotency_key="k")
    await run_store.save_run(run)
    await run_store.save_step(StepFactory(tenant_id=tenant_id, run_id=run.id))
    run.soft_delete()
    await run_store.save_run(run)
    assert await run_store.get_run(tenant_id, run.id) is None
    assert await run_store.get_run_by_trace_id(tenant_id, "t") is None
    assert await run_store.get_run_by_idempotency_key(tenant_id, "k") is None
    assert await run_store.list_runs(tenant_id, "ada") == []
    assert await run_store.count_runs(tenant_id, "ada") == 0
    assert await run_store.get_run_stats(tenant_id, run.id) is None
    assert await run_store.get_steps(tenant_id, run.id) == []
    await run_store.save_run(RunFactory(tenant_id=tenant_id, trace_id="t", idempotency_key="k"))
    run.deleted_at = None
    with pytest.raises(ConflictError):
        await run_store.save_run(run)
    assert await run_store.delete_run(tenant_id, run.id) is True


# -- what cannot be stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"actor": "\x00"}, "actor"),
        ({"actor": "ä" * 1_001}, "actor"),
        ({"trace_id": "x" * 2_001}, "trace_id"),
        ({"trace_id": "\ud800"}, "trace_id"),
        ({"idempotency_key": "x" * 2_001}, "idempotency_key"),
        ({"request_payload": {"a": float("nan")}}, "request_payload"),
        ({"request_payload": {1: "a"}}, "request_payload"),
        ({"completed_at": datetime.max.replace(tzinfo=UTC)}, "completed_at"),
    ],
    ids=str,
)
async def test_a_run_that_cannot_be_stored_is_refused_by_field(
    run_store: RunStore, tenant_id: UUID, changes: dict[str, Any], field: str
) -> None:
    run = RunFactory(tenant_id=tenant_id).model_copy(update=changes)
    with pytest.raises(ValidationError) as refused:
        await run_store.save_run(run)
    assert refused.value.field == field
    assert await run_store.get_run(tenant_id, run.id) is None


async def test_the_longest_keys_are_stored(run_store: RunStore, tenant_id: UUID) -> None:
    # Letters that do not repeat, so that PostgreSQL cannot compress them.
    keys = ["".join(uuid4().hex for _ in range(63))[:2_000] for _ in range(3)]
    run = RunFactory(tenant_id=tenant_id, actor=keys[0], trace_id=keys[1], idempotency_key=keys[2])
    await run_store.save_run(run)
    assert await run_store.list_runs(tenant_id, keys[0]) == [run]
    assert await run_store.get_run_by_idempotency_key(tenant_id, keys[2]) == run


async def test_arguments_that_make_no_sense_are_refused(run_store: RunStore, tenant_id: UUID) -> None:
    position = Cursor(datetime.min.replace(tzinfo=UTC), uuid4())
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "limit": lambda: run_store.list_runs(tenant_id, "ada", limit=-1),
        "offset": lambda: run_store.list_runs(tenant_id, "ada", offset=-1),
        "before": lambda: run_store.list_runs(tenant_id, "ada", before=position),
        "actor": lambda: run_store.count_runs(tenant_id, "\x00"),
        "trace_id": lambda: run_store.get_run_by_trace_id(tenant_id, "\x00"),
        "idempotency_key": lambda: run_store.get_run_by_idempotency_key(tenant_id, "\x00"),
        "if_revision": lambda: run_store.save_run(RunFactory(tenant_id=tenant_id), if_revision=-1),
    }
    for field, call in calls.items():
        with pytest.raises(ValidationError) as refused:
            await call()
        assert refused.value.field == field
