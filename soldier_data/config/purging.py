"""Purging for the config store on PostgreSQL: the permanent removal of old deleted rows, in batches."""

from __future__ import annotations

from functools import cache, partial
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Uuid, and_, any_, delete, or_, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.config.statements import AGENTS, ARCHIVES, PARTS, PLANS, SCENARIOS
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.purging import BEFORE, ROWS_AT_A_TIME, oldest
from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import Statement, Values, param
from soldier_data.postgres.transaction import Transaction

_OPERATION = "purging deleted rows"

_AGENTS_AT_A_TIME = 50
"""For each agent PostgreSQL searches the parts of the tenant for references to it."""

_SCENARIOS_AT_A_TIME = 100
"""Archived versions and migration plans are removed with their scenario."""

_IDS = any_(param("ids", ARRAY(Uuid)))
_OLD_AGENTS = any_(param("old_agents", ARRAY(Uuid)))

_lock_agents = Statement(_OPERATION, lambda: oldest(AGENTS, _AGENTS_AT_A_TIME).with_for_update())
"""The lock keeps an agent from being restored while its parts are removed."""


def _goes(table: Table) -> ColumnElement[bool]:
    return and_(of_tenant(table), or_(table.c.deleted_at < BEFORE, table.c.agent_id == _OLD_AGENTS))


def _at_a_time(table: Table) -> int:
    return _SCENARIOS_AT_A_TIME if table is SCENARIOS else ROWS_AT_A_TIME


@cache
def _find(table: Table, *, old_agents: bool) -> Statement:
    """Select the ids of a batch of parts to remove.

    Old parts and parts of old agents are found separately, because no single index covers both.
    """
    found = [oldest(table, _at_a_time(table))]
    if old_agents:
        of_agents = select(table.c.id).where(of_tenant(table), table.c.agent_id == _OLD_AGENTS)
        younger = (table.c.deleted_at.is_(None), table.c.deleted_at >= BEFORE)
        found += [of_agents.where(deleted_at).limit(_at_a_time(table)) for deleted_at in younger]
    return Statement(_OPERATION, union_all(*(select(ids.subquery()) for ids in found)))


def _remove(table: Table) -> Statement:
    return Statement(
        _OPERATION, lambda: delete(table).where(_goes(table), table.c.id == _IDS).returning(table.c.id)
    )


_remove_parts = {table: _remove(table) for table in PARTS}
_remove_of_scenarios = (
    Statement(_OPERATION, lambda: delete(ARCHIVES).where(of_tenant(ARCHIVES), ARCHIVES.c.id == _IDS)),
    Statement(_OPERATION, lambda: delete(PLANS).where(of_tenant(PLANS), PLANS.c.scenario_id == _IDS)),
)
_remove_agents = Statement(_OPERATION, lambda: delete(AGENTS).where(of_tenant(AGENTS), AGENTS.c.id == _IDS))


async def purge(db: Executor, values: Values) -> int:
    """Remove all old rows, each batch in a transaction; return the number of agents and parts.

    Args:
        db: The database, or the transaction of a unit of work, which then contains all batches.
        values: The tenant_id, and the time `before`.
    """
    how_many, more = 0, True
    while more:
        # A set, because a batch is removed again if the reply to its COMMIT was lost.
        removed: set[tuple[str, UUID]] = set()
        more = await db.atomically(partial(_remove_some, values=values, removed=removed), _OPERATION)
        how_many += len(removed)
    return how_many


async def _remove_some(transaction: Transaction, values: Values, removed: set[tuple[str, UUID]]) -> bool:
    """Remove a batch and add its ids to `removed`; return whether there may be more."""

    async def ids_by(statement: Statement, **more: list[UUID]) -> list[UUID]:
        return [row["id"] for row in await transaction.fetch_all(statement, {**values, **more})]

    agents = await ids_by(_lock_agents)
    more = False
    for table in PARTS:
        found = await ids_by(_find(table, old_agents=bool(agents)), old_agents=agents)
        if found:
            gone = await ids_by(_remove_parts[table], old_agents=agents, ids=found)
            removed.update((table.name, id_) for id_ in gone)
            for statement in _remove_of_scenarios if table is SCENARIOS else ():
                await ids_by(statement, ids=gone)
        more |= len(found) >= _at_a_time(table)
    # Agents are removed after all of their parts, because foreign keys refer to them.
    if more or not agents:
        return more
    await ids_by(_remove_agents, ids=agents)
    removed.update((AGENTS.name, id_) for id_ in agents)
    return len(agents) >= _AGENTS_AT_A_TIME
