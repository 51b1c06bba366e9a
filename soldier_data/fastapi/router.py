"""Endpoints for a caller's runs, and for the health of the data layer."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response, status
from pydantic import BaseModel

from soldier_data.fastapi.dependencies import CallerDep, DataLayerDep, RunStoreDep
from soldier_data.fastapi.errors import Problem
from soldier_data.runs import Artifact, Cursor, Run, RunStats, RunStatus, Step

_LARGEST_PAGE = 200
_LAST_OFFSET = 2**31 - 1


class RunWithArtifacts(Run):
    """A run and its artifacts.

    Attributes:
        artifacts: Artifacts in order of creation.
    """

    artifacts: list[Artifact]


class RunPage(BaseModel):
    """One page of runs.

    Attributes:
        runs: Runs of this page, newest first.
        total: Number of runs on all pages.
        next_cursor: Value of `before` for the next page; None on the last page.
    """

    runs: list[Run]
    total: int
    next_cursor: str | None


class Health(BaseModel):
    """Health of the parts of the data layer. The reasons of failures are not disclosed."""

    ok: bool
    database: bool
    schema_at_head: bool
    redis: bool


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    meaning = {
        401: "Not authenticated",
        403: "The run belongs to another actor",
        404: "The tenant has no such run",
        503: "The data is temporarily unavailable",
    }
    return {code: {"model": Problem, "description": meaning[code]} for code in codes}


router = APIRouter()


async def _own_run(
    run_id: Annotated[UUID, Path(description="Id of the run.")], caller: CallerDep, runs: RunStoreDep
) -> Run:
    """Return the run if it belongs to the caller."""
    run = await runs.get_run(caller.tenant_id, run_id)
    if run is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "No such run")
    if run.actor != caller.actor:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "The run belongs to another actor")
    return run


OwnRun = Annotated[Run, Depends(_own_run)]


@router.get("/runs", tags=["runs"], summary="List your runs", responses=_problems(401, 503))
async def list_runs(
    caller: CallerDep,
    runs: RunStoreDep,
    status: Annotated[RunStatus | None, Query(description="Return only runs with this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE, description="Size of the page.")] = 50,
    offset: Annotated[int, Query(ge=0, le=_LAST_OFFSET, description="Number of runs to skip.")] = 0,
    before: Annotated[
        str | None, Query(max_length=200, description="next_cursor of the previous page.")
    ] = None,
) -> RunPage:
    """Return one page of the caller's runs, newest first."""
    position = None if before is None else Cursor.parse(before)
    # One more than requested, to see whether there is a next page.
    found = await runs.list_runs(
        caller.tenant_id, caller.actor, status=status, limit=limit + 1, offset=offset, before=position
    )
    page = found[:limit]
    return RunPage(
        runs=page,
        total=await runs.count_runs(caller.tenant_id, caller.actor, status=status),
        next_cursor=str(Cursor.after(page[-1])) if len(found) > limit else None,
    )


@router.get("/runs/{run_id}", tags=["runs"], summary="Show a run", responses=_problems(401, 403, 404, 503))
async def get_run(run: OwnRun, runs: RunStoreDep) -> RunWithArtifacts:
    """Return a run of the caller with its artifacts."""
    artifacts = await runs.get_artifacts(run.tenant_id, run.id)
    return RunWithArtifacts(**run.__dict__, artifacts=artifacts)


@router.get(
    "/runs/{run_id}/steps",
    tags=["runs"],
    summary="List the steps of a run",
    responses=_problems(401, 403, 404, 503),
)
async def get_steps(run: OwnRun, runs: RunStoreDep) -> list[Step]:
    """Return all steps of the run, in order."""
    return await runs.get_steps(run.tenant_id, run.id)


@router.get(
    "/runs/{run_id}/artifacts",
    tags=["runs"],
    summary="List the artifacts of a run",
    responses=_problems(401, 403, 404, 503),
)
async def get_artifacts(run: OwnRun, runs: RunStoreDep) -> list[Artifact]:
    """Return all artifacts of the run, in order of creation."""
    return await runs.get_artifacts(run.tenant_id, run.id)


@router.get(
    "/runs/{run_id}/stats",
    tags=["runs"],
    summary="Show the statistics of a run",
    responses=_problems(401, 403, 404, 503),
)
async def get_run_stats(run: OwnRun, runs: RunStoreDep) -> RunStats:
    """Return the number of steps and LLM calls of the run, their tokens and their cost."""
    stats = await runs.get_run_stats(run.tenant_id, run.id)
    if stats is None:
        # Deleted since the dependency read it.
        raise HTTPException(status.HTTP_404_NOT_FOUND, "No such run")
    return stats


@router.get(
    "/health",
    tags=["health"],
    summary="Check the health of the data layer",
    responses={503: {"model": Health, "description": "A check failed"}},
)
async def health(data: DataLayerDep, response: Response) -> Health:
    """Check the database, its schema and Redis. For probes, so no authentication is required."""
    report = await data.health()
    if not report.ok:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Health(
        ok=report.ok,
        database=report.database.ok,
        schema_at_head=report.schema_at_head.ok,
        redis=report.redis.ok,
    )
