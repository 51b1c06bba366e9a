"""The run store with another tenant's ids."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.runs import (
    Artifact,
    InMemoryRunStore,
    LLMCall,
    PostgresRunStore,
    Run,
    RunStatus,
    RunStore,
    Step,
)
from tests.cases.case import Case, Domain, as_of, deletions, reads, saves_below_owners
from tests.cases.kinds.runs import KINDS, PARTS, RUN
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory


@dataclass(frozen=True)
class Stored:
    """What the owner has stored: two runs of one actor, the first with one of everything."""

    run: Run
    later_run: Run
    step: Step
    artifact: Artifact
    call: LLMCall
    key: str


async def seed(store: RunStore, tenant_id: UUID) -> Stored:
    # Unlike any other test's, so that no statement without a tenant would find those rows too.
    actor, key = f"actor {tenant_id}", f"key {tenant_id}"
    run = RunFactory(tenant_id=tenant_id, actor=actor, idempotency_key=key)
    later_run = RunFactory(tenant_id=tenant_id, actor=actor)
    of_run = {"tenant_id": tenant_id, "run_id": run.id}
    step = StepFactory(**of_run)
    stored = Stored(
        run, later_run, step, ArtifactFactory(**of_run), LLMCallFactory(**of_run, step_id=step.id), key
    )
    await store.save_run(run)
    await store.save_run(later_run)
    await store.save_step(step)
    await store.save_artifact(stored.artifact)
    await store.save_llm_call(stored.call)
    return stored


async def saved(store: RunStore, other: UUID) -> Run:
    """A run of the intruder's own."""
    run: Run = RunFactory(tenant_id=other)
    await store.save_run(run)
    return run


async def save_run(store: RunStore, own: Stored, other: UUID) -> object:
    """The id, the trace_id and the idempotency_key are free in the intruder's tenant."""
    run = as_of(own.run, other, status=RunStatus.FAILED)
    await store.save_run(run)
    return await store.get_run(other, run.id) == run


async def save_call_of_owners_step(store: RunStore, own: Stored, other: UUID) -> object:
    run = await saved(store, other)
    return await store.save_llm_call(LLMCallFactory(tenant_id=other, run_id=run.id, step_id=own.step.id))


async def save_step_under_owners_id(store: RunStore, own: Stored, other: UUID) -> object:
    run = await saved(store, other)
    step = as_of(own.step, other, run_id=run.id)
    await store.save_step(step)
    return await store.get_steps(other, run.id) == [step]


def subject(own: Stored, other: UUID) -> DataSubject:
    return DataSubject(other, frozenset([uuid4()]), external_ids=frozenset([own.run.actor]))


NOTHING: dict[str, list[object]] = {"runs": [], "steps": [], "artifacts": [], "llm_calls": []}


DOMAIN: Domain[RunStore, Stored] = Domain(
    store="runs",
    contract=RunStore,
    backends={"inmemory": InMemoryRunStore, "postgres": PostgresRunStore},
    seed=seed,
    cases=[
        *reads([RUN]),
        *saves_below_owners(PARTS),
        *deletions(KINDS),
        Case("save_run", save_run, expected=True, reaches=False),
        Case(
            "save_run",
            lambda store, own, other: store.save_run(as_of(own.run, other), if_revision=1),
            ConflictError,
        ),
        Case(
            "get_run_by_trace_id",
            lambda store, own, other: store.get_run_by_trace_id(other, own.run.trace_id),
            None,
        ),
        Case(
            "get_run_by_idempotency_key",
            lambda store, own, other: store.get_run_by_idempotency_key(other, own.key),
            None,
        ),
        Case("list_runs", lambda store, own, other: store.list_runs(other, own.run.actor), []),
        Case(
            "list_runs",
            lambda store, own, other: store.list_runs(
                other, own.run.actor, status=own.run.status, before=Cursor.after(own.later_run)
            ),
            [],
        ),
        Case("count_runs", lambda store, own, other: store.count_runs(other, own.run.actor), 0),
        Case(
            "count_runs",
            lambda store, own, other: store.count_runs(other, own.run.actor, status=own.run.status),
            0,
        ),
        Case("export_subject", lambda store, own, other: store.export_subject(subject(own, other)), NOTHING),
        Case("erase_subject", lambda store, own, other: store.erase_subject(subject(own, other)), NOTHING),
        Case("get_run_stats", lambda store, own, other: store.get_run_stats(other, own.run.id), None),
        Case("save_step", save_step_under_owners_id, expected=True, reaches=False),
        Case("save_llm_call", save_call_of_owners_step, NotFoundError, reaches=False),
        Case("get_steps", lambda store, own, other: store.get_steps(other, own.run.id), []),
        Case("get_artifacts", lambda store, own, other: store.get_artifacts(other, own.run.id), []),
        Case("get_llm_calls", lambda store, own, other: store.get_llm_calls(other, own.run.id), []),
    ],
)
