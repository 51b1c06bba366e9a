"""Reporting the stores' statements to an SQLAlchemy engine's listeners and log.

The stores run their statements on asyncpg's connections. If an engine has listeners for `before_cursor_execute` or
`after_cursor_execute`, or logs statements (`echo=True`, or the logger sqlalchemy.engine), each statement is reported
as SQLAlchemy reports its own. Otherwise nothing comes between the stores and asyncpg.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.base import ExceptionContextImpl
from sqlalchemy.sql.util import _repr_params  # What the engine's log shows of parameters.
from sqlalchemy.util import await_only, greenlet_spawn

from soldier_data.postgres.statements import quoted


def is_observed(target: Engine | Connection) -> bool:
    """Return True if the engine or connection has listeners for statements, or logs them."""
    # Its dispatch is slower to ask.
    if target._has_events or target.engine._has_events:  # noqa: SLF001 - as SQLAlchemy's own connection does.
        events = target.dispatch
        if events.before_cursor_execute or events.after_cursor_execute:
            return True
    return target.engine.logger.isEnabledFor(logging.INFO)


class ObservedConnection:
    """An asyncpg connection that reports its statements.

    Listeners get a real `Connection` and execution context, and the listeners for `handle_error` asyncpg's exception.
    A listener with `retval=True` may change the text of a statement, but not its parameters.

    Args:
        driver: The connection.
        connect: Returns the SQLAlchemy connection to pass to listeners.
    """

    def __init__(self, driver: Any, connect: Callable[[], Connection]) -> None:
        self._driver = driver
        self._connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        """Run a statement and return its rows."""
        return await self._run(sql, [arguments], lambda text: self._driver.fetch(text, *arguments))

    async def fetchmany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Any:
        """Run a statement once for each of `rows`, and return the rows of all results."""
        parameters = [tuple(row) for row in rows]
        return await self._run(sql, parameters, lambda text: self._driver.fetchmany(text, rows))

    async def execute(self, sql: str) -> Any:
        """Run a command without parameters, such as BEGIN, and return its status."""
        return await self._run(sql, [], self._driver.execute)

    async def copy_records_to_table(
        self, table: str, *, schema_name: str, columns: Sequence[str], records: list[tuple[Any, ...]]
    ) -> Any:
        """Insert rows with binary COPY."""
        names = ", ".join(map(quoted, columns))
        sql = f"COPY {quoted(schema_name)}.{quoted(table)} ({names}) FROM STDIN (FORMAT binary)"
        return await self._run(
            sql,
            records,
            lambda _: self._driver.copy_records_to_table(
                table, schema_name=schema_name, columns=columns, records=records
            ),
        )

    async def _run(
        self, sql: str, parameters: list[tuple[Any, ...]], send: Callable[[str], Awaitable[Any]]
    ) -> Any:
        # In a greenlet, because listeners may run statements on the connection that they get.
        return await greenlet_spawn(_report, self._connect, sql, parameters, send)


def _report(
    connect: Callable[[], Connection],
    sql: str,
    rows: list[tuple[Any, ...]],
    send: Callable[[str], Awaitable[Any]],
) -> Any:
    connection = connect()
    context: Any = connection.dialect.execution_ctx_cls._init_statement(  # noqa: SLF001 - as SQLAlchemy executes text.
        connection.dialect, connection, connection.connection, connection.get_execution_options(), sql, rows
    )
    many: bool = context.executemany
    parameters: Any = context.parameters if many else context.parameters[0]
    try:
        for listener in connection.dispatch.before_cursor_execute:
            sql, _ = listener(connection, context.cursor, sql, parameters, context, many)
        _log(connection.engine, sql, parameters, many=many)
        try:
            returned = await_only(send(sql))
        except BaseException as error:
            _report_failure(connection, sql, parameters, context, error)
            raise
        for listener in connection.dispatch.after_cursor_execute:
            listener(connection, context.cursor, sql, parameters, context, many)
        return returned
    finally:
        context.cursor.close()


def _log(engine: Engine, sql: str, parameters: Any, *, many: bool) -> None:
    engine.logger.info(sql)
    if engine.hide_parameters:
        engine.logger.info("[SQL parameters hidden due to hide_parameters=True]")
    else:
        engine.logger.info("[raw sql] %r", _repr_params(parameters, batches=10, ismulti=many))


def _report_failure(
    connection: Connection, sql: str, parameters: Any, context: ExecutionContext, error: BaseException
) -> None:
    dialect = connection.dialect
    failure = ExceptionContextImpl(
        error,
        None,
        connection.engine,
        dialect,
        connection,
        context.cursor,
        sql,
        parameters,
        context,
        is_disconnect=False,
        invalidate_pool_on_disconnect=False,
        is_pre_ping=False,
    )
    for listener in dialect.dispatch.handle_error:
        listener(failure)
