"""The contract of the run store."""

from __future__ import annotations

from abc import abstractmethod
from uuid import UUID

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import SubjectStore
from soldier_data.runs.models import Artifact, LLMCall, Run, RunStats, RunStatus, Step


class RunStore(SubjectStore):
    """Runs, and the steps, artifacts and LLM calls that belong to them.

    Saving inserts an entity, or replaces the one with the same tenant and id. A run saved with `deleted_at` set is
    softly deleted: reads no longer return it or what belongs to it, and its trace_id and idempotency_key are free
    again. Reads return copies, which the caller may change.

    The records of a data subject (see `SubjectStore`) are these runs, with everything that belongs to them:

    - runs whose actor is an identity or external id of the person, and was theirs when the run was created
      (`ProfileStore` says whose it was if several customers have had it);
    - runs that mention the person in actor, trace_id, idempotency_key or request_payload;
    - runs with a step that mentions the person in input_data or output_data, or an artifact that does in url or
      metadata.

    Calls are repeated after a lost connection and take effect once, with one exception: if another caller saves the
    same run between two attempts, a `save_run` without `if_revision` overwrites that change and increases the
    revision twice, and a `save_run` with it raises ConflictError although it took effect first.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; a field of an entity has an invalid
            value; a text contains NUL or an unpaired surrogate; a value is not valid JSON; a number does not fit 64
            bits; a datetime is at the very end of the calendar; an actor, trace_id or idempotency_key is longer than
            2,000 bytes; a limit or offset is negative. Names the field.
    """

    # -- runs ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a run; return its id.

        Sets `updated_at` and `revision` on `run`; on an error it leaves `run` unchanged.

        Args:
            run: The run.
            if_revision: Save the run only if this is the stored revision; 0 means that nothing is stored. By default
                the run is saved in any case.

        Raises:
            ConflictError: Another run of the tenant has the trace_id or the idempotency_key, and the message names
                that run; or `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def get_run(self, tenant_id: UUID, run_id: UUID) -> Run | None:
        """Return the run, or None if the tenant has no run with this id."""

    @abstractmethod
    async def get_run_by_trace_id(self, tenant_id: UUID, trace_id: str) -> Run | None:
        """Return the run with this trace_id, or None if the tenant has none."""

    @abstractmethod
    async def get_run_by_idempotency_key(self, tenant_id: UUID, idempotency_key: str) -> Run | None:
        """Return the run with this idempotency_key, or None if the tenant has none."""

    @abstractmethod
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
        """Return one page of an actor's runs, newest first: by created_at and id, descending.

        Args:
            tenant_id: The tenant.
            actor: The actor, compared exactly.
            status: Return only runs with this status; None for all.
            limit: Maximum number of runs.
            offset: Number of runs to skip, after `before` if that is given.
            before: `Cursor.after` the last run of the previous page; None for the first page. Unlike with `offset`,
                later pages take no longer than the first.
        """

    @abstractmethod
    async def count_runs(self, tenant_id: UUID, actor: str, *, status: RunStatus | None = None) -> int:
        """Return the number of runs that `list_runs` lists on all pages together."""

    @abstractmethod
    async def delete_run(self, tenant_id: UUID, run_id: UUID) -> bool:
        """Remove a run for good, with everything that belongs to it; return whether it existed.

        Softly deleted runs are removed, too. A call that is repeated after a lost connection returns False if the
        first attempt removed the run.
        """

    @abstractmethod
    async def get_run_stats(self, tenant_id: UUID, run_id: UUID) -> RunStats | None:
        """Return the exact totals of a run, or None if the tenant has no run with this id."""

    # -- parts of runs ---------------------------------------------------------------------------------------

    @abstractmethod
    async def save_step(self, step: Step) -> UUID:
        """Insert or replace a step; return its id.

        Raises:
            NotFoundError: The tenant has no run with the run_id.
            ConflictError: The id is that of a step of another run, which stays as it is.
        """

    @abstractmethod
    async def get_steps(self, tenant_id: UUID, run_id: UUID) -> list[Step]:
        """Return the steps of a run, by step_number, started_at and id; empty if there is no such run."""

    @abstractmethod
    async def delete_step(self, tenant_id: UUID, step_id: UUID) -> bool:
        """Remove a step for good; return whether it existed. Its LLM calls stay, with step_id set to None."""

    @abstractmethod
    async def save_artifact(self, artifact: Artifact) -> UUID:
        """Insert or replace an artifact; return its id.

        Raises:
            NotFoundError: The tenant has no run with the run_id.
            ConflictError: The id is that of an artifact of another run, which stays as it is.
        """

    @abstractmethod
    async def get_artifacts(self, tenant_id: UUID, run_id: UUID) -> list[Artifact]:
        """Return the artifacts of a run, by created_at and id; empty if there is no such run."""

    @abstractmethod
    async def save_llm_call(self, call: LLMCall) -> UUID:
        """Insert or replace an LLM call; return its id.

        Raises:
            NotFoundError: The tenant has no run with the run_id, or that run has no step with the step_id.
            ConflictError: The id is that of an LLM call of another run, which stays as it is.
        """

    @abstractmethod
    async def get_llm_calls(self, tenant_id: UUID, run_id: UUID) -> list[LLMCall]:
        """Return the LLM calls of a run, by created_at and id; empty if there is no such run."""
