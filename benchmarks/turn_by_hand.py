"""The demo's turn by hand: its reads, one statement that writes, one read and one write of Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Table
from sqlalchemy.dialects.postgresql import dialect

from benchmarks import by_hand
from benchmarks.turn_others import FIRING_RULES, FIRING_SCORE, Other, SessionsInRedis, sessions_in_redis
from benchmarks.turn_rows import Values, Writes, row_of
from soldier_data import Agent, Rule, Session
from soldier_data.demo.agent import SupportDesk
from soldier_data.schema import metadata

_FIND_RULES = """
SELECT id FROM rules WHERE tenant_id = $1 AND agent_id = $2 AND deleted_at IS NULL AND enabled
AND embedding IS NOT NULL AND embedding <=> $3 <= $4 ORDER BY embedding <=> $3, id LIMIT $5
"""
_FIND_PROFILE = """
SELECT profile_id FROM channel_identities WHERE tenant_id = $1 AND channel = $2 AND channel_user_id = $3
"""
_FIND_IN_GRAPH = """
SELECT id FROM entities WHERE tenant_id = $1 AND id = ANY($2)
UNION ALL SELECT id FROM relationships WHERE tenant_id = $1 AND id = ANY($2)
"""
_POSTGRES = dialect()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def opened(database_url: str, redis_url: str, desk: SupportDesk) -> AsyncIterator[Other]:
    """Open one connection to each server."""
    connection = await connect(database_url)
    try:
        await store_rules(connection, desk)
        async with sessions_in_redis(redis_url) as sessions:
            yield _ByHand(connection, sessions)
    finally:
        await connection.close()


class Reads(Other):
    """The reads of a turn, each with one statement on one connection."""

    def __init__(self, connection: Any, sessions: SessionsInRedis) -> None:
        self.connection = connection
        self.sessions = sessions

    async def get_session(self, session_id: UUID) -> Session:
        return await self.sessions.get(session_id)

    async def find_rules(self, agent: Agent, query: list[float]) -> list[UUID]:
        rows = await self.connection.fetch(
            _FIND_RULES, agent.tenant_id, agent.id, query, 1 - FIRING_SCORE, FIRING_RULES
        )
        return [row["id"] for row in rows]

    async def find_profile(self, session: Session) -> UUID | None:
        found: UUID | None = await self.connection.fetchval(
            _FIND_PROFILE, session.tenant_id, session.channel, session.user_channel_id
        )
        return found

    async def find_in_graph(self, tenant_id: UUID, ids: list[UUID]) -> set[UUID]:
        return {row["id"] for row in await self.connection.fetch(_FIND_IN_GRAPH, tenant_id, ids)}


class _ByHand(Reads):
    def __init__(self, connection: Any, sessions: SessionsInRedis) -> None:
        super().__init__(connection, sessions)
        self._statements: dict[tuple[str, ...], str] = {}

    async def write(self, session: Session, writes: Writes) -> None:
        tables = tuple(writes)
        if tables not in self._statements:
            self._statements[tables] = _insert_all(tables)
        arguments: list[Any] = []
        for table, rows in writes.items():
            for column, convert in _CONVERTERS[table]:
                arguments.append([convert(row.get(column)) for row in rows])
        await self.connection.execute(self._statements[tables], *arguments)
        await self.sessions.save(session)


async def connect(url: str) -> Any:
    """Open a connection that also takes arrays of vectors, each as bytes."""
    connection = await by_hand.connect(url)
    await connection.set_type_codec(
        "vector",
        schema="public",
        encoder=lambda value: value if isinstance(value, bytes) else by_hand.encode_vector(value),
        decoder=by_hand.decode_vector,
        format="binary",
    )
    return connection


async def store_rules(connection: Any, desk: SupportDesk) -> None:
    """Insert the agent and its rules, unless they are stored."""
    agent = row_of("agents", desk.agent, revision=1)
    agent["settings"] = desk.agent.settings.model_dump()
    for table, rows in (
        ("agents", [agent]),
        ("rules", [row_of("rules", part, revision=1) for part in desk.parts if isinstance(part, Rule)]),
    ):
        await insert(connection, table, rows)


async def insert(connection: Any, table: str, rows: list[Values]) -> None:
    """Insert rows one by one in one round trip, by asyncpg's `executemany`."""
    converters = _CONVERTERS[table]
    columns = ", ".join(f'"{name}"' for name, _ in converters)
    parameters = ", ".join(
        f"${number}::{_transport(metadata.tables[table].columns[name])}::{_type(metadata.tables[table].columns[name])}"
        for number, (name, _) in enumerate(converters, start=1)
    )
    await connection.executemany(
        f'INSERT INTO "{table}" ({columns}) VALUES ({parameters}) ON CONFLICT DO NOTHING',  # noqa: S608 - constants.
        [[convert(row.get(name)) for name, convert in converters] for row in rows],
    )


def _insert_all(tables: tuple[str, ...]) -> str:
    """Insert the rows of several tables with one statement."""
    inserts, number = [], 0
    for name in tables:
        table, names = metadata.tables[name], [column for column, _ in _CONVERTERS[name]]
        columns = ", ".join(f'"{column}"' for column in names)
        selected = ", ".join(f'r."{column}"::{_type(table.columns[column])}' for column in names)
        arrays = ", ".join(
            f"${number + place}::{_transport(table.columns[column])}[]"
            for place, column in enumerate(names, start=1)
        )
        number += len(names)
        conflict = (
            'ON CONFLICT (tenant_id, id) DO UPDATE SET "text" = EXCLUDED."text", revision = templates.revision + 1'
            if name == "templates"
            else "ON CONFLICT DO NOTHING"
        )
        inserts.append(
            f'in_{name} AS (INSERT INTO "{name}" ({columns}) SELECT {selected} '  # noqa: S608 - constants.
            f"FROM unnest({arrays}) AS r({columns}) {conflict})"
        )
    return f"WITH {', '.join(inserts)} SELECT"


def _type(column: Column[Any]) -> str:
    return column.type.compile(_POSTGRES)


def _transport(column: Column[Any]) -> str:
    """Type of a parameter: an array of arrays would have to be a matrix, so that they travel as text."""
    type_ = _type(column)
    return "text" if type_.endswith("[]") else "public.vector" if "VECTOR" in type_ else type_


def _converters(table: Table) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(column.name, _converter(_type(column))) for column in table.columns]


def _converter(type_: str) -> Callable[[Any], Any]:
    if type_.startswith("JSON"):
        return lambda value: None if value is None else json.dumps(value)
    if type_.endswith("[]"):
        return lambda value: None if value is None else "{" + ",".join(map(str, value)) + "}"
    if "VECTOR" in type_:
        return lambda value: None if value is None else by_hand.encode_vector(value)
    return lambda value: value


_CONVERTERS = {name: _converters(table) for name, table in metadata.tables.items()}
