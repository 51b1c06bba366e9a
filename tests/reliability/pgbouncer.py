"""A real PgBouncer in transaction mode, as Debian packages it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from soldier_data.postgres.engine import driver_url

_PORT = 6432

_SETTINGS = """
[databases]
* = host={host} port={port}

[pgbouncer]
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
unix_socket_dir = {folder}
listen_port = {listen_port}
auth_type = trust
auth_file = {folder}/users.txt
logfile = {folder}/pgbouncer.log
"""


def program() -> str:
    """The path of PgBouncer; skips the test where there is none."""
    # Debian puts it where servers are, which is not on everybody's PATH.
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("pgbouncer is not on PATH: install the operating system's package")
    return found


@asynccontextmanager
async def pgbouncer(target: str, *, size: int) -> AsyncIterator[str]:
    """PgBouncer before the database of the URL `target`, with up to `size` server connections; yields its URL."""
    path, url = program(), make_url(target)
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as name:
        folder = Path(name)
        (folder / "users.txt").write_text(f'"{url.username}" "{url.password or ""}"\n')
        (folder / "pgbouncer.ini").write_text(
            _SETTINGS.format(
                host=url.query.get("host", url.host),
                port=url.query.get("port", url.port or 5432),
                size=size,
                folder=folder,
                listen_port=_PORT,
            )
        )
        process = _start(path, folder)
        through = url._replace(host=None, port=None).set(query={"host": name, "port": str(_PORT)})
        by_pooler = through.render_as_string(hide_password=False)
        try:
            await _until_it_answers(by_pooler, process, folder)
            yield by_pooler
        finally:
            process.terminate()
            process.wait(10)


def _start(path: str, folder: Path) -> subprocess.Popen[bytes]:
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        # It refuses to be root. The embedded servers are of the same account, in whose folder their sockets are.
        account = pwd.getpwnam("nobody")
        other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        for file in (folder, *folder.iterdir()):
            os.chown(file, account.pw_uid, account.pw_gid)
    return subprocess.Popen(
        [path, "--quiet", str(folder / "pgbouncer.ini")], cwd=folder, stderr=subprocess.DEVNULL, **other
    )


async def _until_it_answers(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    log = folder / "pgbouncer.log"
    for _ in range(200):
        try:
            await (await asyncpg.connect(driver_url(url))).close()
        except (OSError, asyncpg.PostgresError):
            if process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        else:
            return
    pytest.fail(f"PgBouncer does not answer: {log.read_text() if log.exists() else 'it has no log'}")
