"""A PostgreSQL primary and a standby that streams from it, of which the one may die and the other take over."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from soldier_data.embedded.postgres import PostgresServer
from soldier_data.embedded.process import (
    ServerPlace,
    Supervisor,
    make_folder,
    server_account,
    wait_until_ended,
)
from soldier_data.errors import ConfigurationError
from tests.backends.redis_helpers import wait_until


class Node(PostgresServer):
    """One server of the pair: a primary, or a standby made from one."""

    def __init__(self, place: ServerPlace) -> None:
        super().__init__(place, {})
        self.sockets = self._sockets

    def become_standby_of(self, primary: Node) -> None:
        """Throw the data away, and take and follow what `primary` has."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._place.supervisor.run(
            [
                str(primary._programs / "pg_basebackup"),
                f"--pgdata={self._data}",
                f"--dbname=host={primary.sockets} port=5432 user=postgres",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
            ],
            self._place.account,
        )
        self.prepare()
        self.start()

    def kill(self) -> None:
        """End the server by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until_ended("PostgreSQL", self.pid)

    async def run(self, sql: str) -> Any:
        """Run a statement as the superuser; returns its one value."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    def _is_ready(self) -> bool:
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")


class Pair:
    """A primary and its standby.

    Attributes:
        primary: The server that takes writes.
        standby: The one that follows it.
        url: Names both of them.
    """

    def __init__(self, one: Node, other: Node) -> None:
        self.primary, self.standby = one, other
        self.url = f"postgresql://postgres@/postgres?host={one.sockets},{other.sockets}&port=5432"

    async def follow(self) -> None:
        """Make the standby from the primary; commits wait for it from then on."""
        self.standby.become_standby_of(self.primary)
        await self.primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.primary.run("SELECT pg_reload_conf()")

        async def is_synchronous() -> bool:
            return bool(
                await self.primary.run("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
            )

        await wait_until(is_synchronous)

    async def fail_over(self) -> None:
        """Kill the primary and promote the standby, which is the primary then, without a standby."""
        self.primary.kill()
        await self.standby.run("SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary


@contextmanager
def replicated() -> Iterator[Pair]:
    """A pair whose standby is not made yet; both servers end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="pair", dir="/tmp"))
    account = server_account(folder / "postgres")
    if account is not None:
        os.chown(folder, 0, account.gid)
        folder.chmod(0o710)
    supervisor = Supervisor(folder, None)
    try:
        nodes = []
        for name in ("a", "b"):
            make_folder(folder / name, account)
            nodes.append(Node(ServerPlace(supervisor, folder / name, folder / name, account, durable=False)))
        try:
            nodes[0].prepare()
            nodes[0].start()
        except ConfigurationError as error:
            pytest.skip(f"no servers of the test's own, which it kills: {error}")
        yield Pair(*nodes)
    finally:
        supervisor.stop()
