"""The in-memory run store: a reference implementation of the contract, and a fake for tests of services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from decimal import Decimal, localcontext
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from soldier_data.base.inmemory import InMemoryStore, MemoryTable, TableSet, copies
from soldier_data.base.models import mark_saved, utcnow
from soldier_data.base.paging import Cursor
from soldier_data.base.subject_rules import InMemoryRecords, InMemorySearch
from soldier_data.base.subjects import DataSubject
from soldier_data.base.values import check_key, check_revision, check_storable
from soldier_data.errors import ConflictError
from soldier_data.runs import subjects
from soldier_data.runs.checks import check_list, check_run, elsewhere, missing, taken
from soldier_data.runs.models import Artifact, LLMCall, Run, RunStats, RunStatus, Step
from soldier_data.runs.store import RunStore

P = TypeVar("P", Step, Artifact, LLMCall)

# More digits than any sum of costs has.
_PRECISION = 200


class _Tables(TableSet):
    def __init__(self) -> None:
        self.runs = MemoryTable[Run]()
        self.steps = MemoryTable[Step]()
        self.artifacts = MemoryTable[Artifact]()
        self.llm_calls = MemoryTable[LLMCall]()


class InMemoryRunStore(RunStore, InMemoryRecords, InMemoryStore):
    """`RunStore` without a database."""

    _tables: _Tables

    def __init__(self) -> None:
        self._tables = _Tables()

    def check_unique(self, entity: Any) -> None:
        if not isinstance(entity, Run) or entity.is_deleted:
            return
        others = [other for other in self._tables.runs.living(entity.tenant_id) if other.id != entity.id]
        for other in others:
            if entity.idempotency_key is not None and other.idempotency_key == entity.idempotency_key:
                raise taken(entity, other)
        for other in others:
            if other.trace_id == entity.trace_id:
                raise taken(entity, other)

    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        check_run(run)
        check_revision(if_revision)
        stored = self._tables.runs.peek((run.tenant_id, run.id))
        revision = 0 if stored is None else stored.revision
        if if_revision is not None and if_revision != revision:
            raise ConflictError(
                f"saving the run {run.id}: revision {if_revision} was expected, but {revision} is stored: read it "
                "again and repeat the change"
            )
        self.check_unique(run)
        mark_saved(run, utcnow(), revision + 1)
        self._tables.runs.put((run.tenant_id, run.id), run)
        return run.id

    async def get_run(self, tenant_id: UUID, run_id: UUID) -> Run | None:
        return _first(run for run in self._tables.runs.living(tenant_id) if run.id == run_id)

    async def get_run_by_trace_id(self, tenant_id: UUID, trace_id: str) -> Run | None:
        check_key(trace_id, "trace_id")
        return _first(run for run in self._tables.runs.living(tenant_id) if run.trace_id == trace_id)

    async def get_run_by_idempotency_key(self, tenant_id: UUID, idempotency_key: str) -> Run | None:
        check_key(idempotency_key, "idempotency_key")
        return _first(
            run for run in self._tables.runs.living(tenant_id) if run.idempotency_key == idempotency_key
        )

    async def list_runs(
        self,
        tenant_id: UUID,
        actor: str,
        *,
        status: RunStatus | None = None,
        limit: int = 50,
        offset: int = 0,
        before: Cursor | None = None,
    ) -> list[Run]:
        check_list(actor, limit, offset, before)
        position = None if before is None else (before.at.astimezone(UTC), before.id)
        found = [
            run
            for run in self._of_actor(tenant_id, actor, status)
            if position is None or run.position() < position
        ]
        found.sort(key=Run.position, reverse=True)
        return copies(found[offset : offset + limit])

    async def count_runs(self, tenant_id: UUID, actor: str, *, status: RunStatus | None = None) -> int:
        check_key(actor, "actor")
        return sum(1 for _ in self._of_actor(tenant_id, actor, status))

    async def delete_run(self, tenant_id: UUID, run_id: UUID) -> bool:
        for name in subjects.PARTS:
            table = self._tables[name]
            parts = [part.id for part in table.of_tenant(tenant_id) if part.run_id == run_id]
            table.remove_all(tenant_id, parts)
        return self._tables.runs.remove((tenant_id, run_id))

    async def get_run_stats(self, tenant_id: UUID, run_id: UUID) -> RunStats | None:
        run = await self.get_run(tenant_id, run_id)
        if run is None:
            return None
        calls = self._parts(self._tables.llm_calls, tenant_id, run_id)
        duration = None if run.completed_at is None else (run.completed_at - run.created_at).total_seconds()
        return RunStats(
            run_id=run_id,
            status=run.status,
            step_count=len(self._parts(self._tables.steps, tenant_id, run_id)),
            llm_calls=len(calls),
            prompt_tokens=sum(call.prompt_tokens for call in calls),
            completion_tokens=sum(call.completion_tokens for call in calls),
            total_tokens=sum(call.total_tokens for call in calls),
            cost_usd=_exact_sum(call.cost_usd for call in calls),
            duration_seconds=duration,
        )

    async def save_step(self, step: Step) -> UUID:
        return self._save(self._tables.steps, step)

    async def get_steps(self, tenant_id: UUID, run_id: UUID) -> list[Step]:
        found = self._parts(self._tables.steps, tenant_id, run_id)
        return sorted(found, key=lambda step: (step.step_number, step.started_at, step.id))

    async def delete_step(self, tenant_id: UUID, step_id: UUID) -> bool:
        for call in list(self._tables.llm_calls.of_tenant(tenant_id)):
            if call.step_id == step_id:
                self._tables.llm_calls.put((tenant_id, call.id), call.model_copy(update={"step_id": None}))
        return self._tables.steps.remove((tenant_id, step_id))

    async def save_artifact(self, artifact: Artifact) -> UUID:
        return self._save(self._tables.artifacts, artifact)

    async def get_artifacts(self, tenant_id: UUID, run_id: UUID) -> list[Artifact]:
        found = self._parts(self._tables.artifacts, tenant_id, run_id)
        return sorted(found, key=lambda artifact: (artifact.created_at, artifact.id))

    async def save_llm_call(self, call: LLMCall) -> UUID:
        return self._save(self._tables.llm_calls, call)

    async def get_llm_calls(self, tenant_id: UUID, run_id: UUID) -> list[LLMCall]:
        found = self._parts(self._tables.llm_calls, tenant_id, run_id)
        return sorted(found, key=lambda call: (call.created_at, call.id))

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(InMemorySearch(subject, self._tables))

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        runs = set(found["runs"])
        erased = {
            name: sorted(part.id for part in self._tables[name].of_tenant(tenant_id) if part.run_id in runs)
            for name in subjects.PARTS
        }
        erased["runs"] = [run_id for run_id in found["runs"] if await self.delete_run(tenant_id, run_id)]
        return erased

    def _of_actor(self, tenant_id: UUID, actor: str, status: RunStatus | None) -> Iterator[Run]:
        return (
            run
            for run in self._tables.runs.living(tenant_id)
            if run.actor == actor and status in (None, run.status)
        )

    def _is_living(self, tenant_id: UUID, run_id: UUID) -> bool:
        run = self._tables.runs.peek((tenant_id, run_id))
        return run is not None and not run.is_deleted

    def _parts(self, table: MemoryTable[P], tenant_id: UUID, run_id: UUID) -> list[P]:
        if not self._is_living(tenant_id, run_id):
            return []
        return copies(part for part in table.of_tenant(tenant_id) if part.run_id == run_id)

    def _save(self, table: MemoryTable[P], part: P) -> UUID:
        check_storable(part)
        table.collect(partial(self._save_all, table), [part])
        return part.id

    def _save_all(self, table: MemoryTable[P], parts: Sequence[P]) -> None:
        for part in parts:
            stored = table.peek((part.tenant_id, part.id))
            if stored is not None and stored.run_id != part.run_id:
                raise elsewhere(part)
            if not self._is_living(part.tenant_id, part.run_id) or not self._has_step(part):
                raise missing(part)
            table.put((part.tenant_id, part.id), part)

    def _has_step(self, part: Step | Artifact | LLMCall) -> bool:
        if not isinstance(part, LLMCall) or part.step_id is None:
            return True
        step = self._tables.steps.peek((part.tenant_id, part.step_id))
        return step is not None and step.run_id == part.run_id


def _first(runs: Iterator[Run]) -> Run | None:
    found = next(runs, None)
    return None if found is None else found.model_copy(deep=True)


def _exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    with localcontext(prec=_PRECISION):
        return sum(amounts, Decimal(0))
