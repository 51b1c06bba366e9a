"""Handwritten asyncpg code for the operations of the config store: the lower limit of their cost."""

from __future__ import annotations

import json
from array import array
from itertools import cycle
from typing import Any
from uuid import UUID

import asyncpg

from benchmarks import samples
from benchmarks.config_sample import (
    GET_AGENT,
    GET_PLAIN_RULE,
    GET_RULE,
    LIST_RULES,
    SAVE_AGENT,
    SAVE_NEW_RULE,
    SAVE_RULE,
    SEARCH_RULES,
    Sample,
)
from benchmarks.harness import Case
from soldier_data import Agent, DataLayer, Rule
from soldier_data.base.models import new_id, utcnow

_AGENT_FIELDS = ", ".join(Agent.model_fields)
_RULE_FIELDS = ", ".join(Rule.model_fields)
_KEY = "tenant_id = $1 AND id = $2 AND deleted_at IS NULL"

SELECT_AGENT = f"SELECT {_AGENT_FIELDS} FROM agents WHERE {_KEY}"  # noqa: S608 - constants.


async def config_cases(connection: Any, data: DataLayer, sample: Sample) -> dict[str, Case]:
    """The same operations with one prepared statement each, and plain validation."""
    tenant_id = sample.tenant_id
    prepare = connection.prepare
    get_agent = await prepare(SELECT_AGENT)
    get_rule = await prepare(f"SELECT {_RULE_FIELDS} FROM rules WHERE {_KEY}")  # noqa: S608 - constants.
    list_rules = await prepare(
        f"SELECT {_RULE_FIELDS} FROM rules WHERE tenant_id = $1 AND agent_id = $2 AND deleted_at IS NULL "  # noqa: S608 - constants.
        "AND enabled ORDER BY priority DESC, created_at, id"
    )
    search = await prepare(
        f"SELECT {_RULE_FIELDS}, embedding <=> $3 AS distance FROM rules WHERE tenant_id = $1 AND agent_id = $2 "  # noqa: S608 - constants.
        "AND deleted_at IS NULL AND enabled AND embedding IS NOT NULL ORDER BY distance, id LIMIT $4"
    )
    save_agent = await prepare(upsert("agents", list(Agent.model_fields)))
    save_rule = await prepare(upsert("rules", list(Rule.model_fields)))
    agents, own_agents = cycle(sample.agents), cycle(await sample.own_agents(data))
    rules, plain = cycle(sample.listed_rules), cycle(sample.plain_rules)
    own_rules, vectors, queries = (
        cycle(await sample.own_rules(data)),
        cycle(sample.new_vectors),
        cycle(sample.queries),
    )
    next_rule: Rule

    async def make_rule() -> None:
        nonlocal next_rule
        (next_rule,) = samples.rules(sample.written, [next(vectors)])

    async def agent(id_: UUID) -> Agent:
        return to_agent(await get_agent.fetchrow(tenant_id, id_))

    async def rule(id_: UUID) -> Rule:
        return Rule.model_validate(dict(await get_rule.fetchrow(tenant_id, id_)))

    async def listed() -> list[Rule]:
        return [Rule.model_validate(dict(row)) for row in await list_rules.fetch(tenant_id, sample.listed.id)]

    async def searched() -> list[tuple[Rule, float]]:
        rows = await search.fetch(tenant_id, sample.large.id, next(queries), 10)
        return [(Rule.model_validate(dict(row)), 1.0 - row["distance"]) for row in rows]

    return {
        GET_AGENT: Case(lambda: agent(next(agents).id)),
        GET_PLAIN_RULE: Case(lambda: rule(next(plain).id)),
        GET_RULE: Case(lambda: rule(next(rules).id)),
        LIST_RULES: Case(listed),
        SAVE_AGENT: Case(lambda: save_agent.fetchval(*agent_arguments(next(own_agents)))),
        SAVE_RULE: Case(lambda: save_rule.fetchval(*rule_arguments(next(own_rules)))),
        SAVE_NEW_RULE: Case(lambda: save_rule.fetchval(*rule_arguments(next_rule)), make_rule),
        SEARCH_RULES: Case(searched),
    }


def to_agent(row: Any) -> Agent:
    """Return the entity of a row, by plain validation."""
    return Agent.model_validate({**row, "settings": json.loads(row["settings"])})


def upsert(table: str, fields: list[str]) -> str:
    """Insert or replace one row, with the obvious statement."""
    columns = [*fields, "write_id"]
    parameters = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    changed = ", ".join(
        f"{name} = EXCLUDED.{name}" for name in columns if name not in ("tenant_id", "id", "revision")
    )
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({parameters}) ON CONFLICT (tenant_id, id) "  # noqa: S608 - constants.
        f"DO UPDATE SET {changed}, revision = {table}.revision + 1 RETURNING revision"
    )


def insert(table: str, columns: list[str]) -> str:
    """Insert one row, with the obvious statement."""
    parameters = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({parameters}) RETURNING id"  # noqa: S608 - constants.


def agent_arguments(agent: Agent) -> list[Any]:
    """Return the parameters of `upsert` for an agent."""
    values = {**agent.__dict__, "updated_at": utcnow(), "settings": agent.settings.model_dump_json()}
    return [*values.values(), new_id()]


def rule_arguments(rule: Rule) -> list[Any]:
    """Return the parameters of `upsert` for a rule."""
    return [*{**rule.__dict__, "updated_at": utcnow()}.values(), new_id()]


async def connect(url: str) -> Any:
    """Open a connection of asyncpg that reads and writes vectors in binary format."""
    connection = await asyncpg.connect(url)
    await register_vector(connection)
    return connection


async def register_vector(connection: Any) -> None:
    """Decode vectors to lists, in the fastest way of the standard library."""
    await connection.set_type_codec(
        "vector", schema="public", encoder=encode_vector, decoder=decode_vector, format="binary"
    )


def encode_vector(value: list[float]) -> bytes:
    """Return a vector in pgvector's binary format."""
    numbers = array("f", value)
    numbers.byteswap()
    return len(value).to_bytes(2) + b"\0\0" + numbers.tobytes()


def decode_vector(value: bytes) -> list[float]:
    """Return the numbers of a vector in pgvector's binary format."""
    numbers = array("f")
    numbers.frombytes(value[4:])
    numbers.byteswap()
    return numbers.tolist()
