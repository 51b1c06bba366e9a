"""The primary killed and its standby promoted while 16 writers write: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest

from soldier_data.data_layer import DataLayer
from tests.conftest import settings_for
from tests.reliability.conftest import Counts, Found
from tests.reliability.replication import replicated
from tests.reliability.writers import WRITERS, Writers


@pytest.mark.timeout(900)
async def test_no_acknowledged_write_is_lost_when_the_standby_takes_over(
    redis_url: str, count: Counts, report: Found
) -> None:
    times = count(1, 5)
    with replicated() as pair:
        settings = settings_for(pair.url, redis_url=redis_url, retry_budget=30)
        async with DataLayer.open(settings, migrate=True) as data:
            writers = Writers(data)
            working = asyncio.ensure_future(writers.work())
            recoveries = []
            for _ in range(times):
                await pair.follow()
                await writers.all_advance(working)
                await pair.fail_over()
                recoveries.append(await writers.all_advance(working))
            assert (await data.health()).database.ok
            writers.end()
            await working
            acknowledged = await writers.assert_all_is_there()
    report(
        f"the primary killed and its synchronous standby promoted, {times} times under {WRITERS} writers",
        bar="0 acknowledged writes lost, every writer writes again within 5 s of the promotion",
        found=f"0 of {acknowledged:,} writes lost; every writer wrote again within {max(recoveries):.1f} s",
    )
    assert max(recoveries) < 5 or not count.soak
