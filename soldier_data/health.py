"""The health of a data layer: the database, its schema and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from pydantic import BaseModel

from soldier_data.errors import StoreError
from soldier_data.postgres.database import NO_TENANT, Database
from soldier_data.postgres.statements import Statement
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.sessions.store import SessionStore

_NO_SUCH_TABLE = "42P01"


class Check(BaseModel):
    """Result of one health check.

    Attributes:
        ok: True if the check passed.
        detail: The state that was found; on failure, the reason and the remedy.
        latency_ms: Duration of the check in milliseconds.
    """

    ok: bool
    detail: str
    latency_ms: float


class HealthReport(BaseModel):
    """Result of `DataLayer.health()`."""

    database: Check
    schema_at_head: Check
    redis: Check

    @property
    def ok(self) -> bool:
        """True if all checks passed."""
        return self.database.ok and self.schema_at_head.ok and self.redis.ok


async def check_health(database: Database | None, sessions: SessionStore) -> HealthReport:
    """Check the database, its schema and Redis, each once and within its timeout, without retries."""
    (server, schema), redis = await asyncio.gather(_check_database(database), _timed(_check_redis(sessions)))
    return HealthReport(database=server, schema_at_head=schema, redis=redis)


async def _check_database(database: Database | None) -> tuple[Check, Check]:
    if database is None:
        check = Check(ok=True, detail="in memory", latency_ms=0.0)
        return check, check
    expected, version = await asyncio.to_thread(_newest_revision, database.settings.version_table)
    started = perf_counter()
    read_only = False
    try:
        read_only = await database.is_read_only()
        rows = await database.fetch_now(version, {"tenant_id": NO_TENANT})
        revision = rows[0]["version_num"] if rows else None
    except StoreError as error:
        if getattr(error.cause, "sqlstate", None) == _NO_SUCH_TABLE:
            revision = None
        else:
            check = _check(str(error), started, ok=False)
            return check, check.model_copy(update={"detail": "unknown: the database does not respond"})
    server = _check("available", started)
    if read_only:
        server = _check("read-only: the server is a standby", started, ok=False)
    if revision == expected:
        return server, _check(f"revision {revision}", started)
    return server, _check(
        f"revision is {revision or 'none'}, expected {expected}: run `soldier-data db upgrade`",
        started,
        ok=False,
    )


def _newest_revision(version_table: str) -> tuple[str, Statement]:
    """Return the newest revision of this package, and the statement that reads the revision of the database."""
    # Importing Alembic takes a tenth of a second.
    from soldier_data.migrations import head_revision, schema_version  # noqa: PLC0415

    return head_revision(), schema_version(version_table)


async def _check_redis(sessions: SessionStore) -> str:
    if isinstance(sessions, RedisSessionStore):
        await sessions.ping()
        return "available"
    return "in memory"


def _check(detail: str, started: float, *, ok: bool = True) -> Check:
    return Check(ok=ok, detail=detail, latency_ms=(perf_counter() - started) * 1000)


async def _timed(probe: Awaitable[str]) -> Check:
    started = perf_counter()
    try:
        return _check(await probe, started)
    except StoreError as error:
        return _check(str(error), started, ok=False)
