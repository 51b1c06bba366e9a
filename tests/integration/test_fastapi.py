"""The router, the life span and the dependencies, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from structlog.testing import LogCapture

from soldier_data import Agent, DataLayer, Run, RunStatus, Settings
from soldier_data import fastapi as package
from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.fastapi import (
    Caller,
    CallerDep,
    ConfigStoreDep,
    DataLayerDep,
    UnitOfWorkDep,
    add_exception_handlers,
    get_caller,
    lifespan,
    router,
)
from tests.backends.connections import CANARY
from tests.backends.round_trips import Proxy, _listening, _through
from tests.conftest import settings_for
from tests.factories.config import AgentFactory
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory
from tests.integration.http_service import served

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_app(settings: Settings, tenant_id: UUID | None = None) -> FastAPI:
    """A service with the router; with a tenant, "ada" of that tenant calls."""
    app = FastAPI(lifespan=lifespan(settings))
    add_exception_handlers(app)
    app.include_router(router)
    if tenant_id is not None:
        app.dependency_overrides[get_caller] = lambda: Caller(tenant_id=tenant_id, actor="ada")
    return app


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What the service logs, which has configured structlog itself."""
    capture = LogCapture()
    structlog.configure(
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    yield capture.entries
    structlog.reset_defaults()


@pytest.fixture
def shared_settings(shared_database_url: str) -> Settings:
    return settings_for(shared_database_url, session_backend="inmemory")


@pytest.fixture
async def app(shared_settings: Settings, tenant_id: UUID) -> FastAPI:
    return make_app(shared_settings, tenant_id)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with served(app) as connected:
        yield connected


@pytest.fixture
def data(client: httpx2.AsyncClient, app: FastAPI) -> DataLayer:
    """The data layer that the life span opened."""
    opened = app.state.data_layer
    assert isinstance(opened, DataLayer)
    return opened


# -- the router ------------------------------------------------------------------------------------------------


async def test_a_run_is_shown_with_all_that_belongs_to_it(
    client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID
) -> None:
    run = RunFactory(tenant_id=tenant_id, created_at=NOON, completed_at=NOON + timedelta(seconds=2))
    step = StepFactory(tenant_id=tenant_id, run_id=run.id, input_data={"a": [1, None]})
    artifact = ArtifactFactory(tenant_id=tenant_id, run_id=run.id)
    async with data.unit_of_work() as uow:
        await uow.runs.save_run(run)
        await uow.runs.save_step(step)
        await uow.runs.save_artifact(artifact)
        for _ in range(2):
            call = LLMCallFactory(tenant_id=tenant_id, run_id=run.id, cost_usd=Decimal("0.1"))
            await uow.runs.save_llm_call(call)
    shown = await client.get(f"/runs/{run.id}")
    assert shown.status_code == 200
    assert Run.model_validate_json(shown.text) == run
    assert shown.json() == run.model_dump(mode="json") | {"artifacts": [artifact.model_dump(mode="json")]}
    assert (await client.get(f"/runs/{run.id}/steps")).json() == [step.model_dump(mode="json")]
    assert (await client.get(f"/runs/{run.id}/artifacts")).json() == [artifact.model_dump(mode="json")]
    stats = (await client.get(f"/runs/{run.id}/stats")).json()
    assert (stats["llm_calls"], stats["cost_usd"], stats["duration_seconds"]) == (2, "0.2", 2.0)


async def test_runs_are_listed_page_by_page_in_both_ways(
    client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID
) -> None:
    runs = [RunFactory(tenant_id=tenant_id, created_at=NOON - timedelta(minutes=n)) for n in range(5)]
    runs[1].status = RunStatus.FAILED
    for run in [*runs, RunFactory(tenant_id=tenant_id, actor="bob")]:
        await data.runs.save_run(run)
    ids = [str(run.id) for run in runs]

    async def page(**query: Any) -> dict[str, Any]:
        answer = await client.get("/runs", params=query)
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body | {"runs": [run["id"] for run in body["runs"]]}

    assert await page() == {"runs": ids, "total": 5, "next_cursor": None}
    assert await page(limit=5) == {"runs": ids, "total": 5, "next_cursor": None}
    assert (await page(limit=2, offset=2))["runs"] == ids[2:4]
    assert await page(status="failed") == {"runs": ids[1:2], "total": 1, "next_cursor": None}
    first = await page(limit=3)
    assert first["runs"] == ids[:3]
    assert await page(limit=3, before=first["next_cursor"]) == {
        "runs": ids[3:],
        "total": 5,
        "next_cursor": None,
    }


_PATHS = ("", "/steps", "/artifacts", "/stats")


@pytest.mark.parametrize("path", _PATHS)
async def test_runs_of_others_are_refused(
    client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID, path: str
) -> None:
    colleague, stranger = RunFactory(tenant_id=tenant_id, actor="bob"), RunFactory(actor="ada")
    for run in (colleague, stranger):
        await data.runs.save_run(run)
    assert (await client.get(f"/runs/{colleague.id}{path}")).status_code == 403
    assert (await client.get(f"/runs/{stranger.id}{path}")).status_code == 404
    assert (await client.get(f"/runs/{uuid4()}{path}")).status_code == 404


async def test_without_an_override_nobody_is_let_in(shared_settings: Settings) -> None:
    async with served(make_app(shared_settings)) as client:
        for path in ("/runs", *(f"/runs/{uuid4()}{path}" for path in _PATHS)):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "offset=-1", "offset=9999999999999", "status=odd", "before=odd"]
)
async def test_wrong_arguments_are_422_in_one_form(client: httpx2.AsyncClient, query: str) -> None:
    answer = await client.get(f"/runs?{query}")
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert {"loc", "msg", "type"} <= problem.keys()


# -- the life span ---------------------------------------------------------------------------------------------


async def test_the_data_layer_is_opened_checked_logged_and_closed(
    shared_settings: Settings, tenant_id: UUID, logs: list[Any]
) -> None:
    app = make_app(shared_settings, tenant_id)
    async with served(app) as client:
        health = await client.get("/health")
        assert health.json() == {"ok": True, "database": True, "schema_at_head": True, "redis": True}
    assert [entry["event"] for entry in logs] == ["data_layer.opened", "data_layer.closed"]
    with pytest.raises(StoreError, match="closed"):
        await app.state.data_layer.config.get_agent(tenant_id, uuid4())


async def test_a_service_starts_without_its_database_and_recovers(
    shared_database_url: str, tenant_id: UUID, logs: list[Any]
) -> None:
    with tempfile.TemporaryDirectory(prefix="away") as folder:
        url = _through(shared_database_url, folder)
        settings = settings_for(url, session_backend="inmemory", retry_budget=0)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(served(make_app(settings, tenant_id)))
            assert (await client.get("/health")).status_code == 503
            answer = await client.get("/runs")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "SOLDIER" not in answer.text
            async with _listening(Proxy(shared_database_url, url).serve, folder):
                assert (await client.get("/health")).status_code == 200
                assert (await client.get("/runs")).json()["total"] == 0
                await stack.aclose()
    assert logs[0]["event"] == "data_layer.opened_degraded"
    assert logs[0]["log_level"] == "warning"


async def test_a_database_that_is_not_migrated_is_503(empty_database_url: str, tenant_id: UUID) -> None:
    settings = settings_for(empty_database_url, session_backend="inmemory")
    async with served(make_app(settings, tenant_id)) as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["database"]) == (503, True)
        assert (await client.get("/runs")).status_code == 503


async def test_without_the_life_span_there_is_no_data(tenant_id: UUID) -> None:
    app = FastAPI()
    add_exception_handlers(app)
    app.include_router(router)
    async with served(app) as client:
        assert (await client.get("/health")).status_code == 503


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (NotFoundError("no such agent"), 404, True),
        (ConflictError("the name is taken"), 409, True),
        (ValidationError("name is too long", field="name"), 422, True),
        (StoreConnectionError("the server is away"), 503, False),
        (ConfigurationError("not migrated"), 503, False),
        (StoreError("unexpected"), 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, StoreError) else "",
)
async def test_store_errors_become_answers_that_leak_nothing(
    logs: list[Any], app: FastAPI, client: httpx2.AsyncClient, error: StoreError, code: int, told: bool
) -> None:
    error.cause = RuntimeError(CANARY)

    @app.get("/failing")
    async def failing() -> None:
        raise error

    logs.clear()
    answer = await client.get("/failing")
    assert answer.status_code == code
    assert (str(error) in answer.text) is told
    assert [(entry["path"], entry["error"]) for entry in logs] == ([] if told else [("/failing", str(error))])
    assert CANARY not in answer.text + str(logs)


async def test_an_entity_that_cannot_be_made_of_a_request_is_422_and_shows_no_value(
    app: FastAPI, client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)

    @app.post("/wrong")
    async def wrong(uow: UnitOfWorkDep) -> None:
        await uow.config.save_agent(agent)
        settings: Any = {"max_tokens": CANARY, CANARY[:3]: CANARY}
        Agent(tenant_id=tenant_id, name="", settings=settings)

    answer = await client.post("/wrong")
    assert answer.status_code == 422
    assert [(problem["loc"], problem["type"]) for problem in answer.json()["detail"]] == [
        (["name"], "string_too_short"),
        (["settings", "max_tokens"], "int_parsing"),
        (["settings", CANARY[:3]], "extra_forbidden"),
    ]
    assert answer.json()["detail"][0].keys() == {"loc", "msg", "type"}
    assert CANARY not in answer.text
    assert not await _saved(data, agent)


async def test_a_model_of_the_services_own_that_fails_is_a_fault_of_the_service(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    class Reply(BaseModel):
        text: str

    @app.get("/failing")
    async def failing() -> None:
        Reply.model_validate({})

    assert (await client.get("/failing")).status_code == 500


# -- units of work ---------------------------------------------------------------------------------------------


async def _saved(data: DataLayer, agent: Agent) -> bool:
    return await data.config.get_agent(agent.tenant_id, agent.id) is not None


async def test_a_unit_of_work_commits_before_the_answer_is_sent(
    app: FastAPI, client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    pieces: list[tuple[bool, int]] = []

    @app.post("/streaming")
    async def streaming(uow: UnitOfWorkDep) -> StreamingResponse:
        await uow.config.save_agent(agent)

        async def body() -> AsyncIterator[bytes]:
            database = data._database
            assert database is not None
            for _ in range(2):
                pieces.append((await _saved(data, agent), len(database._pool._in_use)))
                yield b"."
                await asyncio.sleep(0)

        return StreamingResponse(body())

    assert (await client.post("/streaming")).text == ".."
    assert pieces == [(True, 0), (True, 0)]


@pytest.mark.parametrize("error", [ValueError("of the service"), ConflictError("of the store")], ids=repr)
async def test_a_unit_of_work_rolls_back_when_the_endpoint_raises(
    app: FastAPI, client: httpx2.AsyncClient, data: DataLayer, tenant_id: UUID, error: Exception
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)

    @app.post("/raising")
    async def raising(uow: UnitOfWorkDep) -> None:
        await uow.config.save_agent(agent)
        raise error

    answer = await client.post("/raising")
    assert answer.status_code == (409 if isinstance(error, ConflictError) else 500)
    assert not await _saved(data, agent)


async def test_what_fails_on_committing_is_answered_as_an_error(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    def refuse() -> None:
        raise ConflictError("somebody was faster")

    @app.post("/late")
    async def late(uow: UnitOfWorkDep) -> str:
        uow.after_commit(refuse)
        return "done"

    assert (await client.post("/late")).status_code == 409


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreConnectionError("Redis is away"), 500),
        (StoreError("unexpected"), 500),
        (ConflictError("somebody was faster"), 409),
        (ValidationError("the session is too large"), 422),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_fails_after_committing_is_not_answered_as_if_nothing_were_saved(
    app: FastAPI,
    client: httpx2.AsyncClient,
    data: DataLayer,
    tenant_id: UUID,
    error: StoreError,
    code: int,
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)

    def fail() -> None:
        raise error

    @app.post("/late")
    async def late(uow: UnitOfWorkDep) -> None:
        await uow.config.save_agent(agent)
        uow.after_commit(fail)

    answer = await client.post("/late")
    assert answer.status_code == code
    assert "The request was saved" in answer.text
    assert "retry-after" not in answer.headers
    assert await _saved(data, agent)


async def test_endpoints_get_the_stores_of_the_data_layer(
    app: FastAPI, client: httpx2.AsyncClient, tenant_id: UUID
) -> None:
    stores = {
        "config": package.get_config_store,
        "memory": package.get_memory_store,
        "audit": package.get_audit_store,
        "profiles": package.get_profile_store,
        "runs": package.get_run_store,
        "vectors": package.get_vector_store,
        "sessions": package.get_session_store,
    }
    data = app.state.data_layer
    for name, get in stores.items():
        assert await get(data) is getattr(data, name)

    @app.get("/injected")
    async def injected(caller: CallerDep, layer: DataLayerDep, config: ConfigStoreDep) -> list[bool]:
        return [caller.tenant_id == tenant_id, layer is data, config is data.config]

    assert (await client.get("/injected")).json() == [True, True, True]
