"""The run store on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.base.values import check_key, check_storable
from soldier_data.errors import ConflictError
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import columns_except, cursor_values
from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.postgres.subjects import PostgresSearch, StoredRecords, erase_in_batches
from soldier_data.postgres.transaction import Transaction
from soldier_data.runs import statements as sql
from soldier_data.runs import subjects
from soldier_data.runs.checks import (
    Part,
    check_list,
    check_run,
    elsewhere,
    missing,
    taken,
)
from soldier_data.runs.models import Artifact, LLMCall, Run, RunStats, RunStatus, Step
from soldier_data.runs.store import RunStore


class PostgresRunStore(RunStore, PostgresStore, SubjectRecords):
    """`RunStore` on a `Database`, or on the `Transaction` of a unit of work."""

    def __init__(self, database: Executor) -> None:
        self._db = database

    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        check_run(run)
        values = {**run.__dict__, "request_payload": _dumped(run.request_payload)}
        try:
            return await sql.runs.save(self._db, run, values, if_revision)
        except ConflictError as error:
            refusal = error
        holder = await self._run(sql.find_holder, values)
        raise refusal if holder is None else taken(run, holder)

    async def get_run(self, tenant_id: UUID, run_id: UUID) -> Run | None:
        return await self._run(sql.get_run, {"tenant_id": tenant_id, "id": run_id})

    async def get_run_by_trace_id(self, tenant_id: UUID, trace_id: str) -> Run | None:
        check_key(trace_id, "trace_id")
        return await self._run(sql.get_run_by_trace_id, {"tenant_id": tenant_id, "trace_id": trace_id})

    async def get_run_by_idempotency_key(self, tenant_id: UUID, idempotency_key: str) -> Run | None:
        check_key(idempotency_key, "idempotency_key")
        values = {"tenant_id": tenant_id, "idempotency_key": idempotency_key}
        return await self._run(sql.get_run_by_idempotency_key, values)

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
        statement = sql.list_runs(status=status is not None, before=before is not None)
        values = {
            "tenant_id": tenant_id,
            "actor": actor,
            "status": status,
            "limit": limit,
            "offset": offset,
            **cursor_values(before),
        }
        return [_run(row) for row in await self._db.fetch_all(statement, values)]

    async def count_runs(self, tenant_id: UUID, actor: str, *, status: RunStatus | None = None) -> int:
        check_key(actor, "actor")
        values = {"tenant_id": tenant_id, "actor": actor, "status": status}
        row = await self._db.fetch_one(sql.count_runs(status=status is not None), values)
        assert row is not None
        how_many: int = row["how_many"]
        return how_many

    async def delete_run(self, tenant_id: UUID, run_id: UUID) -> bool:
        return await self._db.fetch_one(sql.delete_run, {"tenant_id": tenant_id, "id": run_id}) is not None

    async def get_run_stats(self, tenant_id: UUID, run_id: UUID) -> RunStats | None:
        row = await self._db.fetch_one(sql.get_run_stats, {"tenant_id": tenant_id, "id": run_id})
        if row is None:
            return None
        ended = row["completed_at"]
        duration = None if ended is None else (ended - row["created_at"]).total_seconds()
        return RunStats.model_validate({**row, "run_id": run_id, "duration_seconds": duration})

    async def save_step(self, step: Step) -> UUID:
        check_storable(step)
        documents = {"input_data": _dumped(step.input_data), "output_data": _dumped(step.output_data)}
        return await self._save(step, sql.steps, sql.steps.save, documents)

    async def get_steps(self, tenant_id: UUID, run_id: UUID) -> list[Step]:
        rows = await self._db.fetch_all(sql.steps.listed, {"tenant_id": tenant_id, "run_id": run_id})
        return [_step(row) for row in rows]

    async def delete_step(self, tenant_id: UUID, step_id: UUID) -> bool:
        key = {"tenant_id": tenant_id, "id": step_id}
        # If the reply to the COMMIT is lost, the repeated attempt does not find the step that the first one deleted.
        found = False

        async def work(transaction: Transaction) -> None:
            nonlocal found
            if await transaction.fetch_one(sql.lock_step, key) is not None:
                found = await transaction.fetch_one(sql.delete_step, key) is not None

        await self._db.atomically(work, sql.delete_step.operation)
        return found

    async def save_artifact(self, artifact: Artifact) -> UUID:
        check_storable(artifact)
        documents = {"metadata": _dumped(artifact.metadata)}
        return await self._save(artifact, sql.artifacts, sql.artifacts.save, documents)

    async def get_artifacts(self, tenant_id: UUID, run_id: UUID) -> list[Artifact]:
        rows = await self._db.fetch_all(sql.artifacts.listed, {"tenant_id": tenant_id, "run_id": run_id})
        return [_artifact(row) for row in rows]

    async def save_llm_call(self, call: LLMCall) -> UUID:
        check_storable(call)
        save = sql.llm_calls.save if call.step_id is None else sql.save_llm_call_of_step
        return await self._save(call, sql.llm_calls, save, {})

    async def get_llm_calls(self, tenant_id: UUID, run_id: UUID) -> list[LLMCall]:
        rows = await self._db.fetch_all(sql.llm_calls.listed, {"tenant_id": tenant_id, "run_id": run_id})
        return [_llm_call(row) for row in rows]

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(PostgresSearch(subject, self._db, "looking for the customer's runs"))

    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        return await _RECORDS[table].read(self._db, tenant_id, ids, with_embeddings=with_embeddings)

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        runs = {"runs": found["runs"]}
        erased = await erase_in_batches(self._db, tenant_id, runs, _erase, "erasing the customer's runs")
        return {table: [] for table in _RECORDS} | erased

    async def _run(self, statement: Statement, values: Values) -> Run | None:
        row = await self._db.fetch_one(statement, values)
        return _run(row) if row else None

    async def _save(
        self, part: Part, statements: sql.PartStatements, save: Statement, documents: dict[str, str]
    ) -> UUID:
        """Save a part. The values of its columns are its fields, but for the JSON columns in `documents`."""

        async def write(db: Executor, rows: Sequence[Values]) -> None:
            [values] = rows
            if await db.fetch_one(save, values) is None:
                stored = await db.fetch_one(statements.stored, values)
                elsewhere_ = stored is not None and stored["run_id"] != values["run_id"]
                raise elsewhere(part) if elsewhere_ else missing(part)

        values = {**part.__dict__, **documents}
        await self._db.collect(CollectedWrite(statements.insertion, [values], write))
        return part.id


async def _erase(
    transaction: Transaction, tenant_id: UUID, table: str, ids: Sequence[UUID]
) -> dict[str, list[UUID]]:
    # Nothing can be added to a run that is locked.
    locked = await _RECORDS[table].lock(transaction, tenant_id, ids)
    values = {"tenant_id": tenant_id, "run_ids": locked}
    parts = {
        name: [row["id"] for row in await transaction.fetch_all(statement, values)]
        for name, statement in sql.list_parts.items()
    }
    # Its parts are deleted with a run.
    await _RECORDS[table].delete(transaction, tenant_id, ids)
    return {table: locked, **parts}


def _dumped(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _run(row: Row) -> Run:
    return Run.model_validate({**row, "request_payload": json.loads(row["request_payload"])})


def _step(row: Row) -> Step:
    documents = {name: json.loads(row[name]) for name in ("input_data", "output_data")}
    return Step.model_validate({**row, **documents})


def _artifact(row: Row) -> Artifact:
    return Artifact.model_validate({**row, "metadata": json.loads(row["metadata"])})


def _llm_call(row: Row) -> LLMCall:
    return LLMCall.model_validate(dict(row))


_RECORDS = {
    str(table.name): StoredRecords(table, columns_except(table, "write_id"), to_entity, "the customer's runs")
    for table, to_entity in (
        (sql.RUNS, _run),
        (sql.STEPS, _step),
        (sql.ARTIFACTS, _artifact),
        (sql.LLM_CALLS, _llm_call),
    )
}
