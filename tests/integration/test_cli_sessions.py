"""`soldier-data sessions`, as an operator uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from soldier_data.base.models import utcnow
from soldier_data.cli.app import app
from soldier_data.sessions import RedisSessionStore, Session, SessionTierConfig, create_redis_client
from soldier_data.settings import Settings
from tests.factories.sessions import SessionFactory


@pytest.fixture
def prefix(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key prefix of one test, set in the environment as an operator would."""
    prefix = f"t{uuid4().hex}"
    monkeypatch.setenv("SOLDIER_REDIS_URL", redis_url)
    monkeypatch.setenv("SOLDIER_SESSION_KEY_PREFIX", prefix)
    return prefix


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sessions", *arguments])


def with_store(
    prefix: str, work: Callable[[RedisSessionStore], Awaitable[None]], **config: timedelta
) -> None:
    async def do() -> None:
        client = create_redis_client(Settings())
        try:
            await work(RedisSessionStore(client, SessionTierConfig(key_prefix=prefix, **config)))
        finally:
            await client.aclose()

    asyncio.run(do())


def test_stats_count_each_tier(prefix: str) -> None:
    async def fill(store: RedisSessionStore) -> None:
        sessions: list[Session] = SessionFactory.create_batch(3)
        for session in sessions:
            await store.save(session)
        await store.demote_to_persistent(sessions[0].session_id)

    with_store(prefix, fill)

    done = run("stats")

    assert done.exit_code == 0, done.output
    counts = dict(line.replace("│", " ").split() for line in done.output.splitlines() if "│" in line)
    assert counts == {"hot": "2", "persistent": "1"}


def test_show_prints_one_session_and_leaves_it_in_its_tier(prefix: str) -> None:
    session: Session = SessionFactory()

    async def fill(store: RedisSessionStore) -> None:
        await store.save(session)
        await store.demote_to_persistent(session.session_id)

    with_store(prefix, fill)

    done = run("show", str(session.session_id))

    assert done.exit_code == 0, done.output
    assert Session.model_validate(json.loads(done.stdout)) == session
    assert "persistent" in done.stderr

    async def check(store: RedisSessionStore) -> None:
        assert await store.tier(session.session_id) == "persistent"

    with_store(prefix, check)


def test_show_of_an_unknown_session_says_so(prefix: str) -> None:
    unknown = str(uuid4())

    done = run("show", unknown)

    assert done.exit_code == 1
    assert f"no session {unknown}" in done.stderr.replace("\n", " ")


def test_sweep_removes_what_is_too_old(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill(store: RedisSessionStore) -> None:
        await store.save(SessionFactory(created_at=utcnow() - timedelta(days=2)))
        await store.save(SessionFactory())

    with_store(prefix, fill)
    monkeypatch.setenv("SOLDIER_SESSION_MAX_AGE", str(24 * 3600))

    done = run("sweep")

    assert done.exit_code == 0, done.output
    assert "Removed" in done.output
    assert "Removed 0" not in done.output

    async def check(store: RedisSessionStore) -> None:
        assert await store.stats() == {"hot": 1, "persistent": 0}

    with_store(prefix, check)


def test_repair_tells_what_it_did(
    prefix: str, shared_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Session = SessionFactory()

    async def fill(store: RedisSessionStore) -> None:
        await store.save(session)

    with_store(prefix, fill)
    done = run("repair")
    assert done.exit_code == 1
    assert "SOLDIER_SESSION_DURABILITY" in done.stderr
    monkeypatch.setenv("SOLDIER_SESSION_DURABILITY", "postgres")
    monkeypatch.setenv("SOLDIER_DATABASE_URL", shared_database_url)
    done = run("repair")
    assert done.exit_code == 0, done.output
    assert "1 sessions that PostgreSQL lacked were kept" in done.output
    assert "1 sessions that PostgreSQL lacked were saved" in run("repair", "--only-in-redis", "adopt").output
    done = run("repair", "--only-in-redis", "delete")
    assert "Checked" in done.output
    assert "lacked" not in done.output
    assert run("sweep").exit_code == 0


def test_an_unreachable_redis_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLDIER_REDIS_URL", "redis://user:hunter2@127.0.0.1:1/0")
    monkeypatch.setenv("SOLDIER_REDIS_TIMEOUT", "1")
    monkeypatch.setenv("SOLDIER_RETRY_BUDGET", "1")

    done = run("stats")

    assert done.exit_code == 1
    assert "Error: Redis " in done.stderr
    assert "SOLDIER_REDIS_URL" in done.stderr
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output
