"""The router under requests that schemathesis makes up from the service's own OpenAPI document."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from soldier_data.fastapi import Caller, add_exception_handlers, get_caller, lifespan, router
from soldier_data.postgres.database import Database
from soldier_data.runs import PostgresRunStore, Run
from tests.conftest import settings_for
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory

TENANT = uuid4()
RUN = uuid4()


async def _fill(url: str) -> None:
    """One run with something of everything."""
    database = Database(settings_for(url))
    store = PostgresRunStore(database)
    run: Run = RunFactory(tenant_id=TENANT, id=RUN)
    await store.save_run(run)
    await store.save_step(StepFactory(tenant_id=TENANT, run_id=RUN, input_data=[1, None]))
    await store.save_artifact(ArtifactFactory(tenant_id=TENANT, run_id=RUN))
    await store.save_llm_call(LLMCallFactory(tenant_id=TENANT, run_id=RUN))
    await database.close()


async def _caller() -> Caller:
    return Caller(tenant_id=TENANT, actor="ada")


@pytest.fixture(scope="module")
def url(shared_database_url: str) -> Iterator[str]:
    """The service, in a thread of its own: schemathesis waits for answers without an event loop."""
    app = FastAPI(lifespan=lifespan(settings_for(shared_database_url, session_backend="inmemory")))
    add_exception_handlers(app)
    app.include_router(router)
    app.dependency_overrides[get_caller] = _caller
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        serving = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        serving.start()
        while not server.started and serving.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        serving.join()


@pytest.fixture(scope="module")
def filled(shared_database_url: str) -> UUID:
    """The id of the run that is there."""
    done = threading.Thread(target=lambda: asyncio.run(_fill(shared_database_url)))
    done.start()
    done.join()
    return RUN


SERVICE = schemathesis.openapi.from_dict(FastAPI(routes=router.routes).openapi())
PATHS = [
    "/runs",
    "/runs/{run_id}",
    "/runs/{run_id}/steps",
    "/runs/{run_id}/artifacts",
    "/runs/{run_id}/stats",
    "/health",
]


def test_every_path_is_fuzzed() -> None:
    assert sorted(SERVICE) == sorted(PATHS)


def _asked(path: str, mode: GenerationMode) -> st.SearchStrategy[Any]:
    return SERVICE[path]["GET"].as_strategy(generation_mode=mode)


# Hypothesis itself draws the cases: the plugin of schemathesis does not work with pytest 9.2.
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_as_the_document_says(url: str, filled: UUID, path: str) -> None:
    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=_asked(path, GenerationMode.POSITIVE), known=st.booleans())
    def check(case: schemathesis.Case[Any], known: bool) -> None:
        if known and "run_id" in case.path_parameters:
            case.path_parameters["run_id"] = str(filled)
        # No schema tells the cursors that a page gave out from other texts.
        unchecked: list[Any] = [positive_data_acceptance] if "before" in case.query else []
        case.call_and_validate(base_url=url, excluded_checks=unchecked)

    check()


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/health"])
def test_what_the_document_forbids_is_refused(url: str, path: str) -> None:
    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=_asked(path, GenerationMode.NEGATIVE))
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=url)

    check()
