"""Hypothesis does at random, to every store in memory and on its server, what services can do, and compares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from soldier_data.data_layer import DataLayer
from tests.cases.case import public_methods
from tests.conftest import settings_for
from tests.reliability.conftest import Counts, Found
from tests.reliability.operations import config, memory, people, records
from tests.reliability.side_by_side import TENANTS, Operations, machine_for

STORES = [
    config.OPERATIONS,
    memory.OPERATIONS,
    records.AUDIT,
    people.PROFILE_OPERATIONS,
    records.RUN_OPERATIONS,
    records.VECTOR_OPERATIONS,
    people.SESSION_OPERATIONS,
]

every_store = pytest.mark.parametrize("operations", STORES, ids=lambda operations: operations.store)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop of the machine's own: Hypothesis calls its steps without one."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as started:
        yield started


@pytest.fixture
def durability() -> str:
    """Where sessions are durable."""
    return "redis"


@pytest.fixture
def real(
    shared_database_url: str, redis_url: str, runner: asyncio.Runner, durability: str
) -> Iterator[DataLayer]:
    layer = DataLayer(
        settings_for(
            shared_database_url,
            redis_url=redis_url,
            session_key_prefix=f"t{uuid4().hex}",
            session_durability=durability,
        )
    )
    yield layer
    runner.run(layer.close())


@pytest.mark.parametrize(
    ("operations", "durability"),
    [
        *(pytest.param(operations, "redis", id=operations.store) for operations in STORES),
        pytest.param(people.DURABLE_SESSION_OPERATIONS, "postgres", id="durable sessions"),
    ],
)
def test_random_operations_have_the_same_outcome_in_memory_and_on_the_server(
    operations: Operations, real: DataLayer, runner: asyncio.Runner, count: Counts, report: Found
) -> None:
    def layers() -> tuple[DataLayer, DataLayer]:
        # A new one in memory each time, because it looks through all that it holds.
        return DataLayer(real.settings.in_memory()), real

    machine = machine_for(operations, layers, runner)
    runs, steps = count(15, 1_000), count(12, 30)
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            derandomize=not count.soak,
            database=None,
            print_blob=True,
            # To make a failing run as short as it can be takes minutes.
            phases=[Phase.generate, Phase.shrink] if count.soak else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    report(
        f"random operations of {len(TENANTS)} tenants on {operations.contract.__name__}, units of work included, in "
        "memory and on the server side by side",
        bar="no divergence in any value or class of error",
        found=f"{runs:,} runs of up to {steps} steps, 0 divergences",
    )


@every_store
def test_the_machine_calls_every_method(operations: Operations) -> None:
    called = {calls.method for calls in [*operations.reads, *operations.writes]}
    assert called == public_methods(operations.contract)
