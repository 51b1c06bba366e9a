"""The contract of the run store."""

from __future__ import annotations

from abc import abstractmethod
from uuid import UUID

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import SubjectStore
from soldier_data.runs.models import Artifact, LLMCall, Run, RunStats, RunStatus, Step


class RunStore(SubjectStore):
    """Runs, and the steps, artifacts and LLM calls of each.

    Every save inserts, or replaces what is stored under (tenant_id, id), and returns the id. What is returned by
    reads is the caller's own copy. A run saved with `deleted_at` set is softly deleted: no read finds it or what
    belongs to it any more, and its trace_id and idempotency_key are free again.

    Of a person (`SubjectStore`) are the runs whose actor is one of their identities or external ids, and was when
    the run was created (`ProfileStore` says whose that is if several customers have had it); those that
    mention the person in actor, trace_id, idempotency_key or request_payload, and those with a step or an artifact
    that does; with all that belongs to them.

    A call whose reply is lost with the connection is repeated, and has one effect. Only if somebody else saves the
    run between the two attempts, a `save_run` without `if_revision` wins over that and counts twice, and one with
    it raises ConflictError though it took effect first.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; a text holds NUL or half of a
            surrogate pair, a JSON value is no JSON, a number does not fit 64 bits, a datetime lies at the very
            end of the calendar; an actor, a trace_id or an idempotency_key is longer than 2,000 bytes; a limit or
            offset is negative. Names the field.

    Raises (save_step, save_artifact, save_llm_call):
        NotFoundError: The tenant has no run run_id, or that run has no step step_id.
        ConflictError: What is stored under the id belongs to another run. It stays there.
    """

    # -- runs ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def save_run(self, run: Run, *, if_revision: int | None = None) -> UUID:
        """Save the run; sets `updated_at` and `revision` on it.

        Args:
            run: The run.
            if_revision: Save only if this is the stored revision; 0 means that nothing is stored yet.

        Raises:
            ConflictError: Another run of the tenant has the trace_id or the idempotency_key, and the message
                names that run; or `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def get_run(self, tenant_id: UUID, run_id: UUID) -> Run | None:
        """The run, or None."""

    @abstractmethod
    async def get_run_by_trace_id(self, tenant_id: UUID, trace_id: str) -> Run | None:
        """The run that has the trace_id, or None."""

    @abstractmethod
    async def get_run_by_idempotency_key(self, tenant_id: UUID, idempotency_key: str) -> Run | None:
        """The run that has the idempotency_key, or None."""

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
        """One page of the actor's runs, newest first: by created_at, then by id, both falling.

        Args:
            tenant_id: The tenant.
            actor: Whose runs; compared exactly.
            status: Only runs of this status.
            limit: The size of the page.
            offset: How many runs to pass over, from the newest or from `before` on.
            before: `Cursor.after` the last run of the page before. Any page costs what the first one costs.
        """

    @abstractmethod
    async def count_runs(self, tenant_id: UUID, actor: str, *, status: RunStatus | None = None) -> int:
        """How many runs `list_runs` finds on all pages together."""

    @abstractmethod
    async def delete_run(self, tenant_id: UUID, run_id: UUID) -> bool:
        """Remove the run for good, softly deleted or not, with all that belongs to it; True if there was one.

        A removal leaves nothing to know it by: repeated because its reply was lost, it returns False.
        """

    @abstractmethod
    async def get_run_stats(self, tenant_id: UUID, run_id: UUID) -> RunStats | None:
        """What the run amounts to, exact however many calls it has, or None if there is no such run."""

    # -- what belongs to a run -------------------------------------------------------------------------------

    @abstractmethod
    async def save_step(self, step: Step) -> UUID:
        """Save the step."""

    @abstractmethod
    async def get_steps(self, tenant_id: UUID, run_id: UUID) -> list[Step]:
        """The steps of the run by step_number, then by started_at and id."""

    @abstractmethod
    async def delete_step(self, tenant_id: UUID, step_id: UUID) -> bool:
        """Remove the step for good; True if there was one. Its LLM calls stay in the run, with no step_id."""

    @abstractmethod
    async def save_artifact(self, artifact: Artifact) -> UUID:
        """Save the artifact."""

    @abstractmethod
    async def get_artifacts(self, tenant_id: UUID, run_id: UUID) -> list[Artifact]:
        """The artifacts of the run by created_at, then by id."""

    @abstractmethod
    async def save_llm_call(self, call: LLMCall) -> UUID:
        """Save the LLM call."""

    @abstractmethod
    async def get_llm_calls(self, tenant_id: UUID, run_id: UUID) -> list[LLMCall]:
        """The LLM calls of the run by created_at, then by id."""
