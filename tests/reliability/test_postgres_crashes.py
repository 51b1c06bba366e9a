"""PostgreSQL killed, or every backend terminated, while 16 writers write: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.errors import ConfigurationError
from tests.backends.connections import administrator
from tests.conftest import settings_for
from tests.reliability.conftest import Counts, Found
from tests.reliability.writers import WRITERS, Writers


@pytest.fixture(scope="module")
def crashing(count: Counts) -> Iterator[EmbeddedServers]:
    """Servers of the test's own; in a soak, what PostgreSQL has committed is on the disk."""
    on_disk = {"fsync": "on", "full_page_writes": "on"} if count.soak else {}
    try:
        servers = EmbeddedServers.start(postgres_settings=on_disk)
    except ConfigurationError as error:
        pytest.skip(f"no servers of the test's own, which it kills: {error}")
    with servers:
        yield servers


@pytest.mark.timeout(900)
async def test_no_acknowledged_write_is_lost_and_no_error_seen_when_the_server_is_killed(
    crashing: EmbeddedServers, count: Counts, report: Found
) -> None:
    kills, terminations = count(1, 15), count(2, 20)
    settings = settings_for(crashing.database_url, redis_url=crashing.redis_url, retry_budget=15)
    async with DataLayer.open(settings, migrate=True) as data:
        writers = Writers(data)
        working = asyncio.ensure_future(writers.work())
        recoveries = []
        await writers.all_advance(working)
        for _ in range(kills):
            os.kill(crashing.postgres_pid, signal.SIGKILL)
            await asyncio.to_thread(crashing.restart_postgres)
            recoveries.append(await writers.all_advance(working))
        for _ in range(terminations):
            async with administrator(crashing.database_url) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await writers.all_advance(working)
        writers.end()
        await working
        acknowledged = await writers.assert_all_is_there()
    report(
        f"{kills} kill -9 of PostgreSQL and {terminations} terminations of all its backends under {WRITERS} writers",
        bar="0 acknowledged writes lost, 0 errors reach callers of idempotent calls",
        found=f"0 of {acknowledged:,} writes lost, 0 errors; every writer wrote again within "
        f"{max(recoveries):.1f} s of the server's being up",
    )
