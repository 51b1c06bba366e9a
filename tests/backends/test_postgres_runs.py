"""What `PostgresRunStore` does beyond the contract: round trips, units of work, races, plans, lost replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.statements import Statement
from soldier_data.runs import Cursor, PostgresRunStore, Run, RunStatus, RunStore
from soldier_data.runs import statements as sql
from tests.backends.connections import administrator, bound_role
from tests.backends.round_trips import Proxy
from tests.conftest import settings_for
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory


@pytest.fixture
def store(database: Database) -> PostgresRunStore:
    return PostgresRunStore(database)


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresRunStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresRunStore(database)


@pytest.fixture
async def run(store: PostgresRunStore, tenant_id: UUID) -> Run:
    """A stored run."""
    saved: Run = RunFactory(tenant_id=tenant_id)
    await store.save_run(saved)
    return saved


def _calls(store: RunStore, tenant_id: UUID) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call of every method of the store, in an order in which each has something to do."""
    run = RunFactory(tenant_id=tenant_id, idempotency_key=uuid4().hex)
    below = {"tenant_id": tenant_id, "run_id": run.id}
    step, artifact = StepFactory(**below), ArtifactFactory(**below)
    call = LLMCallFactory(**below, step_id=step.id)
    somebody = DataSubject(tenant_id, frozenset([uuid4()]))
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "save_run": lambda: store.save_run(run),
        "get_run": lambda: store.get_run(tenant_id, run.id),
        "get_run_by_trace_id": lambda: store.get_run_by_trace_id(tenant_id, run.trace_id),
        "get_run_by_idempotency_key": lambda: store.get_run_by_idempotency_key(
            tenant_id, run.idempotency_key
        ),
        "list_runs": lambda: store.list_runs(
            tenant_id, "ada", status=RunStatus.RUNNING, before=Cursor.after(run)
        ),
        "count_runs": lambda: store.count_runs(tenant_id, "ada"),
        "save_step": lambda: store.save_step(step),
        "get_steps": lambda: store.get_steps(tenant_id, run.id),
        "save_artifact": lambda: store.save_artifact(artifact),
        "get_artifacts": lambda: store.get_artifacts(tenant_id, run.id),
        "save_llm_call": lambda: store.save_llm_call(call),
        "get_llm_calls": lambda: store.get_llm_calls(tenant_id, run.id),
        "export_subject": lambda: store.export_subject(somebody),
        "erase_subject": lambda: store.erase_subject(somebody),
        "get_run_stats": lambda: store.get_run_stats(tenant_id, run.id),
        "delete_step": lambda: store.delete_step(tenant_id, step.id),
        "delete_run": lambda: store.delete_run(tenant_id, run.id),
    }
    assert set(calls) == RunStore.__abstractmethods__
    return calls


# -- round trips -----------------------------------------------------------------------------------------------


async def test_each_call_takes_one_round_trip_but_for_some_that_take_several(
    behind: tuple[Proxy, PostgresRunStore], tenant_id: UUID
) -> None:
    passing, store = behind
    # The first time statements are prepared.
    for call in _calls(store, tenant_id).values():
        await call()
    counted = {name: await passing.count(call) for name, call in _calls(store, tenant_id).items()}
    # Three tables are looked through, which takes two round trips a page.
    several = {"delete_step": 4, "export_subject": 6, "erase_subject": 6}
    assert counted == dict.fromkeys(counted, 1) | several


async def test_a_role_that_row_level_security_binds_can_do_everything(
    database_url: str, tenant_id: UUID
) -> None:
    async with bound_role(database_url) as url:
        bound = Database(settings_for(url, row_level_security=True))
        store = PostgresRunStore(bound)
        try:
            for call in _calls(store, tenant_id).values():
                assert await call() not in (None, False)
            await store.save_run(RunFactory(tenant_id=tenant_id))
            assert await store.count_runs(uuid4(), "ada") == 0
        finally:
            await bound.close()


# -- statistics ------------------------------------------------------------------------------------------------


async def test_the_statistics_of_ten_thousand_calls_are_exact(
    database: Database, store: PostgresRunStore, run: Run
) -> None:
    first = LLMCallFactory(tenant_id=run.tenant_id, run_id=run.id, cost_usd=Decimal("0.1"))
    await store.save_llm_call(first)
    connection = await open_connection(database.settings)
    try:
        # 0.1 cannot be written in binary: 10,000 floats of it add up to 1000.0000000001588.
        await connection.execute(
            "INSERT INTO llm_calls (tenant_id, id, run_id, model, provider, prompt_tokens, completion_tokens,"
            " total_tokens, cost_usd, created_at) SELECT tenant_id, gen_random_uuid(), run_id, model, provider, n, 1,"
            " n + 1, cost_usd, created_at FROM llm_calls, generate_series(1, 9999) n WHERE id = $1",
            first.id,
        )
    finally:
        await connection.close()
    stats = await store.get_run_stats(run.tenant_id, run.id)
    assert stats is not None
    assert (stats.llm_calls, str(stats.cost_usd)) == (10_000, "1000.0")
    assert stats.prompt_tokens == 100 + sum(range(10_000))
    assert len(await store.get_llm_calls(run.tenant_id, run.id)) == 10_000


# -- units of work ---------------------------------------------------------------------------------------------


async def test_every_refusal_leaves_a_unit_of_work_usable(
    database: Database, store: PostgresRunStore, run: Run
) -> None:
    other = RunFactory(tenant_id=run.tenant_id)
    step = StepFactory(tenant_id=run.tenant_id, run_id=run.id)
    async with database.transaction() as transaction:
        inside = PostgresRunStore(transaction)
        await inside.save_run(other)
        await inside.save_step(step)
        with pytest.raises(ConflictError, match=f"{run.id} of the tenant has this trace_id"):
            await inside.save_run(RunFactory(tenant_id=run.tenant_id, trace_id=run.trace_id))
        with pytest.raises(ConflictError, match="the id belongs to another run"):
            await inside.save_step(step.model_copy(update={"run_id": other.id}))
        for orphan in (uuid4(), step.id):
            with pytest.raises(NotFoundError):
                await inside.save_artifact(ArtifactFactory(tenant_id=run.tenant_id, run_id=orphan))
        with pytest.raises(NotFoundError):
            await inside.save_llm_call(
                LLMCallFactory(tenant_id=run.tenant_id, run_id=other.id, step_id=step.id)
            )
        await inside.save_llm_call(LLMCallFactory(tenant_id=run.tenant_id, run_id=run.id, step_id=step.id))
        assert await inside.delete_step(run.tenant_id, step.id)
    assert await store.get_run(run.tenant_id, other.id) == other
    assert [call.step_id for call in await store.get_llm_calls(run.tenant_id, run.id)] == [None]


# -- races -----------------------------------------------------------------------------------------------------


async def test_of_many_runs_with_one_idempotency_key_saved_at_once_one_wins(
    store: PostgresRunStore, tenant_id: UUID
) -> None:
    runs = [RunFactory(tenant_id=tenant_id, idempotency_key="k") for _ in range(20)]
    results = await asyncio.gather(*(store.save_run(run) for run in runs), return_exceptions=True)
    (winner,) = (result for result in results if isinstance(result, UUID))
    refused = [result for result in results if isinstance(result, ConflictError)]
    assert len(refused) == 19
    assert all(f"the run {winner} of the tenant has this idempotency_key" in str(error) for error in refused)
    found = await store.get_run_by_idempotency_key(tenant_id, "k")
    assert found is not None
    assert found.id == winner


async def test_a_run_may_be_saved_while_a_unit_of_work_adds_to_it(
    database: Database, store: PostgresRunStore, run: Run
) -> None:
    async with database.transaction() as transaction:
        await PostgresRunStore(transaction).save_step(StepFactory(tenant_id=run.tenant_id, run_id=run.id))
        run.status = RunStatus.COMPLETED
        await asyncio.wait_for(store.save_run(run), 5)
        deleting = asyncio.create_task(store.delete_run(run.tenant_id, run.id))
        await asyncio.sleep(0.1)
        assert not deleting.done()
    assert await deleting is True
    assert await store.get_run(run.tenant_id, run.id) is None


async def test_deleting_a_step_waits_for_the_call_that_is_added_and_unlinks_it(
    database: Database, store: PostgresRunStore, run: Run
) -> None:
    step = StepFactory(tenant_id=run.tenant_id, run_id=run.id)
    await store.save_step(step)
    call = LLMCallFactory(tenant_id=run.tenant_id, run_id=run.id, step_id=step.id)
    async with database.transaction() as transaction:
        await PostgresRunStore(transaction).save_llm_call(call)
        deleting = asyncio.create_task(store.delete_step(run.tenant_id, step.id))
        await asyncio.sleep(0.1)
        assert not deleting.done()
    assert await deleting is True
    call.step_id = None
    assert await store.get_llm_calls(run.tenant_id, run.id) == [call]


# -- lost replies ----------------------------------------------------------------------------------------------


async def test_a_save_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresRunStore], tenant_id: UUID
) -> None:
    passing, store = behind
    # The statements are prepared first, so that it is the reply to the write which gets lost.
    for call in _calls(store, tenant_id).values():
        await call()
    run = RunFactory(tenant_id=tenant_id, idempotency_key="k")
    passing.lose_next_reply()
    await store.save_run(run)
    assert run.revision == 1
    below = {"tenant_id": tenant_id, "run_id": run.id}
    step, artifact = StepFactory(**below), ArtifactFactory(**below)
    call = LLMCallFactory(**below, step_id=step.id)
    for save, part in (
        (store.save_step, step),
        (store.save_artifact, artifact),
        (store.save_llm_call, call),
    ):
        passing.lose_next_reply()
        assert await save(part) == part.id
    assert passing.lost == 4
    assert await store.get_run(tenant_id, run.id) == run
    assert await store.get_steps(tenant_id, run.id) == [step]
    assert await store.get_artifacts(tenant_id, run.id) == [artifact]
    assert await store.get_llm_calls(tenant_id, run.id) == [call]


# -- plans -----------------------------------------------------------------------------------------------------


def _statements() -> Iterator[tuple[Statement, set[str]]]:
    """Every statement that reads, and the indexes that it is to use."""
    yield sql.get_run, {"pk_runs"}
    yield sql.get_run_by_trace_id, {"uq_runs_trace_id"}
    yield sql.get_run_by_idempotency_key, {"uq_runs_idempotency_key"}
    yield sql.find_holder, {"uq_runs_idempotency_key", "uq_runs_trace_id"}
    for before in (False, True):
        yield sql.list_runs(status=False, before=before), {"ix_runs_page"}
        yield sql.list_runs(status=True, before=before), {"ix_runs_status"}
    yield sql.steps.listed, {"pk_runs", "ix_steps_run"}
    yield sql.llm_calls.listed, {"pk_runs", "ix_llm_calls_run"}
    yield sql.get_run_stats, {"pk_runs", "ix_steps_run", "ix_llm_calls_run"}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


_FILL = """
INSERT INTO runs (tenant_id, id, actor, request_payload, status, trace_id, idempotency_key, created_at, updated_at,
                  revision, write_id)
SELECT tenant_id, gen_random_uuid(), CASE WHEN n % 2 = 0 THEN 'ada' ELSE n::text END, '{}',
       CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END, n::text, n::text,
       created_at + n * interval '1 second', updated_at, 1, write_id
FROM runs, generate_series(1, 10000) n
"""


async def test_a_large_tenant_is_read_through_indexes(database_url: str, tenant_id: UUID) -> None:
    database = Database(settings_for(database_url))
    store = PostgresRunStore(database)
    run = RunFactory(tenant_id=tenant_id, created_at=datetime(2026, 3, 1, tzinfo=UTC))
    await store.save_run(run)
    await database.close()
    async with administrator(database_url) as connection:
        await connection.execute(_FILL)
        await connection.execute(
            "INSERT INTO steps (tenant_id, id, run_id, step_number, node_name, input_data, output_data, started_at,"
            " status) SELECT tenant_id, gen_random_uuid(), id, 1, 'plan', 'null', 'null', created_at, status FROM runs"
        )
        await connection.execute(
            "INSERT INTO llm_calls (tenant_id, id, run_id, model, provider, prompt_tokens, completion_tokens,"
            " total_tokens, cost_usd, created_at) SELECT tenant_id, gen_random_uuid(), id, 'm', 'p', 1, 1, 2, 0.1,"
            " created_at FROM runs"
        )
        await connection.execute("ANALYZE")
        values = {
            "tenant_id": tenant_id,
            "id": run.id,
            "run_id": run.id,
            "trace_id": "777",
            "idempotency_key": "777",
            "actor": "ada",
            "status": "failed",
            "limit": 20,
            "offset": 0,
            "before_at": datetime(2026, 3, 1, 1, tzinfo=UTC),
            "before_id": run.id,
        }
        # A prepared statement is planned for its values at first, and once for all of them later.
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for statement, indexes in _statements():
                explained = await connection.fetchval(
                    f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.arguments(values)
                )
                nodes = list(_nodes(json.loads(explained)[0]["Plan"]))
                assert "Seq Scan" not in {node["Node Type"] for node in nodes}, (mode, statement.sql)
                used = {node["Index Name"] for node in nodes if "Index Name" in node}
                assert used == indexes, (mode, statement.sql)
