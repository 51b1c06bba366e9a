"""A reply that is lost after the write was done: every method that changes something has exactly one effect."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import uuid4

import pytest

from soldier_data.postgres.database import Database
from soldier_data.schema import metadata
from soldier_data.sessions import Session
from tests.backends.connections import administrator
from tests.backends.redis_helpers import FaultyRedisProxy, store_at
from tests.cases.case import Case, Domain
from tests.conftest import settings_for
from tests.factories.sessions import SessionFactory
from tests.reliability.conftest import Counts, Found
from tests.reliability.faulty_proxy import FaultyProxy, faulty_proxy
from tests.reliability.mutations import MUTATIONS, mutating_methods

CALLS = [(domain, case) for domain in MUTATIONS if "postgres" in domain.backends for case in domain.cases]
MODES: list[dict[str, bool]] = [{}, {"row_level_security": True}, {"pgbouncer": True}]
REDIS = next(domain for domain in MUTATIONS if "redis" in domain.backends)

TELLING_WHAT_WAS_LEFT = {
    "ConfigStore.delete_migration_plan": False,
    "MemoryStore.purge_deleted": 0,
    "RunStore.delete_run": False,
    "VectorStore.delete_by_source": 0,
}
"""What those return when they are repeated of which the contract says that they cannot know."""

_EFFECT = " UNION ALL ".join(
    f"""SELECT '{name}' AS "table", row ->> 'revision' AS revision,
        row ->> 'deleted_at' IS NOT NULL AS deleted, row ->> 'replaced_at' IS NOT NULL AS replaced
        FROM (SELECT to_jsonb(r) FROM {name} AS r WHERE tenant_id = $1) AS of_tenant (row)"""  # noqa: S608 - our tables.
    for name in metadata.tables
)


@pytest.mark.parametrize("domain", MUTATIONS, ids=lambda domain: domain.contract.__name__)
def test_every_method_that_changes_something_has_a_call(domain: Domain[Any, Any]) -> None:
    assert mutating_methods(domain.contract) == {case.method for case in domain.cases}, (
        "a method has no Case in tests/reliability/mutations.py, or a Case has no method"
    )


class Caller:
    """Calls methods by way of a proxy, each on behalf of a new tenant, and looks at the rows that come of it."""

    def __init__(self, passing: FaultyProxy, direct: Database, far: Database, connection: Any) -> None:
        self._passing = passing
        self._direct = direct
        self._far = far
        self._connection = connection

    async def outcome(
        self, domain: Domain[Any, Any], case: Case[Any, Any], *, lose: int | None = None
    ) -> tuple[object, list[str]]:
        """What the call returned and left behind; `lose` is the place of the reply that gets lost."""
        tenant_id, store = uuid4(), domain.backends["postgres"]
        own = await domain.seed(store(self._direct), tenant_id)
        if lose is not None:
            self._passing.lose_reply(lose)
        returned = await case.call(store(self._far), own, tenant_id)
        rows = await self._connection.fetch(_EFFECT, tenant_id)
        return returned, sorted(str(row) for row in rows)

    async def assert_one_effect(self, domain: Domain[Any, Any], case: Case[Any, Any]) -> None:
        """Lose each reply once."""
        # The first time, statements are prepared.
        await self.outcome(domain, case)
        before = self._passing.asked
        returned, effect = await self.outcome(domain, case)
        assert returned == case.expected
        method = f"{domain.contract.__name__}.{case.method}"
        for place in range(self._passing.asked - before):
            already_lost = self._passing.lost
            returned, again = await self.outcome(domain, case, lose=place)
            assert self._passing.lost == already_lost + 1
            assert again == effect, (method, place)
            assert returned in (case.expected, TELLING_WHAT_WAS_LEFT.get(method, case.expected)), (
                method,
                place,
            )


async def test_a_lost_reply_of_postgresql_leaves_one_effect(
    shared_database_url: str, count: Counts, report: Found
) -> None:
    direct = Database(settings_for(shared_database_url))
    modes = MODES[: count(1, len(MODES))]
    async with faulty_proxy(shared_database_url) as passing, administrator(shared_database_url) as connection:
        for mode in modes:
            far = Database(settings_for(passing.url, pool_size=1, **mode))
            caller = Caller(passing, direct, far, connection)
            for domain, case in CALLS:
                await caller.assert_one_effect(domain, case)
            await far.close()
    await direct.close()
    report(
        f"each reply lost of {len(CALLS)} calls, of every method that writes to PostgreSQL, in {len(modes)} modes",
        bar="exactly one effect",
        found=f"one effect, {passing.lost} replies lost",
    )


async def test_a_lost_reply_of_redis_leaves_one_effect(redis_url: str, report: Found) -> None:
    proxy = FaultyRedisProxy(redis_url)
    prefix = f"t{uuid4().hex}"
    async with (
        store_at(redis_url, seconds=5, key_prefix=prefix) as direct,
        proxy.running() as url,
        store_at(url, seconds=5, key_prefix=prefix) as far,
    ):

        async def outcome(case: Case[Any, Any], *, lose: int | None = None) -> tuple[object, ...]:
            tenant_id = uuid4()
            own: Session = await REDIS.seed(direct, tenant_id)
            proxy.lose_reply(lose)
            returned = await case.call(far, own, tenant_id)
            kept = await direct.get(own.session_id)
            listed = await direct.list_by_agent(tenant_id, own.agent_id)
            return returned, kept and (kept.revision, kept.pending_migration), len(listed)

        for case in REDIS.cases:
            # The first time, the connection is made and scripts are loaded.
            found = await outcome(case)
            assert found[0] == case.expected
            for place in itertools.count():
                already_lost = proxy.lost
                assert await outcome(case, lose=place) == found, (case.method, place)
                if proxy.lost == already_lost:
                    # There were no more.
                    assert place > 0
                    break
    report(
        f"each reply lost of {len(REDIS.cases)} calls, of every method that writes to Redis",
        bar="exactly one effect",
        found=f"one effect, {proxy.lost} replies lost",
    )


async def test_a_repeated_deletion_leaves_alone_what_was_saved_after_it(redis_url: str) -> None:
    arguments: list[tuple[Any, ...]] = []
    async with store_at(redis_url, seconds=5, key_prefix=f"t{uuid4().hex}") as store:
        script = store._redis.script

        async def recording(*call: Any) -> Any:
            arguments.append(call)
            return await script(*call)

        session = SessionFactory()
        await store.save(session)
        store._redis.script = recording  # type: ignore[method-assign,assignment] # To send the same deletion again.
        assert await store.delete(session.session_id) is True
        await store.save(session)
        assert await script(*arguments[0]) == 1
        assert await store.get(session.session_id) == session
        assert await store.delete(session.session_id) is True
