"""How the config store on PostgreSQL removes for good what was deleted long ago, some rows at a time."""

from __future__ import annotations

from functools import cache, partial
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Uuid, and_, any_, delete, or_, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.config.statements import AGENTS, ARCHIVES, PARTS, PLANS, SCENARIOS
from soldier_data.postgres.database import Executor
from soldier_data.postgres.purging import BEFORE, ROWS_AT_A_TIME, oldest
from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import Statement, param
from soldier_data.postgres.transaction import Transaction, Values

_OPERATION = "purging deleted rows"

_AGENTS_AT_A_TIME = 50
"""For each agent PostgreSQL looks through the tenant's parts, to see that none refers to it any more."""

_SCENARIOS_AT_A_TIME = 100
"""With each go its archived versions and its migration plans."""

_IDS = any_(param("ids", ARRAY(Uuid)))
_OLD_AGENTS = any_(param("old_agents", ARRAY(Uuid)))

_lock_agents = Statement(_OPERATION, oldest(AGENTS, _AGENTS_AT_A_TIME).with_for_update())
"""Nobody brings one of these back while their parts go."""


def _goes(table: Table) -> ColumnElement[bool]:
    return and_(of_tenant(table), or_(table.c.deleted_at < BEFORE, table.c.agent_id == _OLD_AGENTS))


def _at_a_time(table: Table) -> int:
    return _SCENARIOS_AT_A_TIME if table is SCENARIOS else ROWS_AT_A_TIME


@cache
def _find(table: Table, *, old_agents: bool) -> Statement:
    """The ids of some parts that go. No one index has the old ones and all of an agent."""
    found = [oldest(table, _at_a_time(table))]
    if old_agents:
        of_agents = select(table.c.id).where(of_tenant(table), table.c.agent_id == _OLD_AGENTS)
        younger = (table.c.deleted_at.is_(None), table.c.deleted_at >= BEFORE)
        found += [of_agents.where(deleted_at).limit(_at_a_time(table)) for deleted_at in younger]
    return Statement(_OPERATION, union_all(*(select(ids.subquery()) for ids in found)))


def _remove(table: Table) -> Statement:
    return Statement(_OPERATION, delete(table).where(_goes(table), table.c.id == _IDS).returning(table.c.id))


_remove_parts = {table: _remove(table) for table in PARTS}
_remove_of_scenarios = (
    Statement(_OPERATION, delete(ARCHIVES).where(of_tenant(ARCHIVES), ARCHIVES.c.id == _IDS)),
    Statement(_OPERATION, delete(PLANS).where(of_tenant(PLANS), PLANS.c.scenario_id == _IDS)),
)
_remove_agents = Statement(_OPERATION, delete(AGENTS).where(of_tenant(AGENTS), AGENTS.c.id == _IDS))


async def purge(db: Executor, values: Values) -> int:
    """Remove all old rows, some in each transaction; returns how many agents and parts went.

    Args:
        db: The database, or the transaction of a unit of work that all of it belongs to.
        values: The tenant_id, and the moment `before`.
    """
    how_many, more = 0, True
    while more:
        # What is removed again because the reply to the COMMIT was lost counts once.
        removed: set[tuple[str, UUID]] = set()
        more = await db.atomically(partial(_remove_some, values=values, removed=removed), _OPERATION)
        how_many += len(removed)
    return how_many


async def _remove_some(transaction: Transaction, values: Values, removed: set[tuple[str, UUID]]) -> bool:
    """Remove some old rows and note which; returns whether there may be more."""

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
    # An agent waits until no part is left behind, which a foreign key binds to it.
    if more or not agents:
        return more
    await ids_by(_remove_agents, ids=agents)
    removed.update((AGENTS.name, id_) for id_ in agents)
    return len(agents) >= _AGENTS_AT_A_TIME
