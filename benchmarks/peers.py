"""The same operations with other libraries, if they are installed (`benchmarks/requirements.txt`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from itertools import cycle
from typing import Any, TypeAlias

from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks import by_hand
from benchmarks.config_sample import (
    GET_AGENT,
    GET_PLAIN_RULE,
    GET_RULE,
    LIST_RULES,
    SAVE_AGENT,
    SAVE_RULE,
    SEARCH_RULES,
    Sample,
)
from benchmarks.harness import Bench, Case
from soldier_data import Agent, Rule
from soldier_data.base.models import new_id, utcnow
from soldier_data.config.orm import AgentRow, RuleRow

Cases: TypeAlias = dict[str, Case]
"""Cases by operation."""

Opener: TypeAlias = Callable[[Bench, Any], AbstractAsyncContextManager[Cases]]


async def open_peers(
    stack: AsyncExitStack, bench: Bench, sample: Any, openers: Mapping[str, Opener]
) -> dict[str, Cases]:
    """Open each installed peer; return the cases by operation and by peer."""
    found: dict[str, Cases] = {}
    for name, opener in openers.items():
        try:
            cases = await stack.enter_async_context(opener(bench, sample))
        except ModuleNotFoundError as missing:
            bench.note(
                f"{name} was not measured: {missing.name} is not installed (benchmarks/requirements.txt)."
            )
            continue
        for operation, case in cases.items():
            found.setdefault(operation, {})[name] = case
    return found


@asynccontextmanager
async def for_config(bench: Bench, sample: Sample) -> AsyncIterator[dict[str, Cases]]:
    """Open the peers of the config store."""
    openers: dict[str, Opener] = {
        "SQLAlchemy's ORM": _orm,
        "advanced-alchemy": _advanced_alchemy,
        "langgraph's AsyncPostgresStore": _langgraph,
    }
    async with AsyncExitStack() as stack:
        yield await open_peers(stack, bench, sample, openers)


@asynccontextmanager
async def _engine(bench: Bench) -> AsyncIterator[AsyncEngine]:
    url = bench.data.settings.database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(url)

    @event.listens_for(engine.sync_engine, "connect")
    def _register(connection: Any, _record: Any) -> None:
        connection.run_async(by_hand.register_vector)

    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _orm(bench: Bench, sample: Sample) -> AsyncIterator[Cases]:
    """ORM instances in a session, converted to the same entities. A save merges and commits."""
    tenant_id = sample.tenant_id
    agents, rules, plain = cycle(sample.agents), cycle(sample.listed_rules), cycle(sample.plain_rules)
    own_agents = cycle(await sample.own_agents(bench.data))
    own_rules = cycle(await sample.own_rules(bench.data))
    listed = (
        select(RuleRow)
        .where(RuleRow.tenant_id == tenant_id, RuleRow.agent_id == sample.listed.id)
        .where(RuleRow.deleted_at.is_(None), RuleRow.enabled)
        .order_by(RuleRow.priority.desc(), RuleRow.created_at, RuleRow.id)
    )
    async with _engine(bench) as engine:

        async def get_agent(agent: Agent) -> Agent:
            async with AsyncSession(engine) as session:
                row = await session.get(AgentRow, (tenant_id, agent.id))
                return Agent.model_validate(row, from_attributes=True)

        async def get_rule(rule: Rule) -> Rule:
            async with AsyncSession(engine) as session:
                row = await session.get(RuleRow, (tenant_id, rule.id))
                return Rule.model_validate(row, from_attributes=True)

        async def list_rules() -> list[Rule]:
            async with AsyncSession(engine) as session:
                rows = await session.scalars(listed)
                return [Rule.model_validate(row, from_attributes=True) for row in rows]

        async def save(row: AgentRow | RuleRow) -> None:
            async with AsyncSession(engine) as session:
                await session.merge(row)
                await session.commit()

        yield {
            GET_AGENT: Case(lambda: get_agent(next(agents))),
            GET_RULE: Case(lambda: get_rule(next(rules))),
            GET_PLAIN_RULE: Case(lambda: get_rule(next(plain))),
            LIST_RULES: Case(list_rules),
            SAVE_AGENT: Case(lambda: save(_agent_row(next(own_agents)))),
            SAVE_RULE: Case(lambda: save(_rule_row(next(own_rules)))),
        }


@asynccontextmanager
async def _advanced_alchemy(bench: Bench, sample: Sample) -> AsyncIterator[Cases]:
    """Its repository on the same tables, with conversion to the same entities."""
    base = import_module("advanced_alchemy.repository").SQLAlchemyAsyncRepository
    agents_of = type("Agents", (base,), {"model_type": AgentRow})
    rules_of = type("Rules", (base,), {"model_type": RuleRow})
    tenant_id, agent_id = sample.tenant_id, sample.listed.id
    agents, rules, plain = cycle(sample.agents), cycle(sample.listed_rules), cycle(sample.plain_rules)
    own_agents = cycle(await sample.own_agents(bench.data))
    own_rules = cycle(await sample.own_rules(bench.data))
    order = [("priority", True), ("created_at", False), ("id", False)]
    async with _engine(bench) as engine:

        async def get_agent(agent: Agent) -> Agent:
            async with AsyncSession(engine) as session:
                row = await agents_of(session=session).get_one(
                    tenant_id=tenant_id, id=agent.id, deleted_at=None
                )
                return Agent.model_validate(row, from_attributes=True)

        async def get_rule(rule: Rule) -> Rule:
            async with AsyncSession(engine) as session:
                row = await rules_of(session=session).get_one(
                    tenant_id=tenant_id, id=rule.id, deleted_at=None
                )
                return Rule.model_validate(row, from_attributes=True)

        async def list_rules() -> list[Rule]:
            async with AsyncSession(engine) as session:
                rows = await rules_of(session=session).list(
                    tenant_id=tenant_id, agent_id=agent_id, deleted_at=None, enabled=True, order_by=order
                )
                return [Rule.model_validate(row, from_attributes=True) for row in rows]

        async def save(repository: Any, row: AgentRow | RuleRow) -> None:
            async with AsyncSession(engine, expire_on_commit=False) as session:
                await repository(session=session, auto_commit=True).upsert(
                    row, match_fields=["tenant_id", "id"], auto_refresh=False
                )

        yield {
            GET_AGENT: Case(lambda: get_agent(next(agents))),
            GET_RULE: Case(lambda: get_rule(next(rules))),
            GET_PLAIN_RULE: Case(lambda: get_rule(next(plain))),
            LIST_RULES: Case(list_rules),
            SAVE_AGENT: Case(lambda: save(agents_of, _agent_row(next(own_agents)))),
            SAVE_RULE: Case(lambda: save(rules_of, _rule_row(next(own_rules)))),
        }


@asynccontextmanager
async def _langgraph(bench: Bench, sample: Sample) -> AsyncIterator[Cases]:
    """Its store of documents: entities as JSON, with embeddings from a stand-in for the model."""
    store_class = import_module("langgraph.store.postgres.aio").AsyncPostgresStore
    settings = bench.data.settings
    vectors: dict[str, list[float]] = {}

    async def embed(texts: list[str]) -> list[list[float]]:
        return [vectors[text] for text in texts]

    index = {
        "dims": settings.embedding_dimensions,
        "embed": embed,
        "fields": ["id"],
    }
    tenant = str(sample.tenant_id)
    agents, plain = cycle(sample.agents), cycle(sample.plain_rules)
    own_rules, queries = cycle(await sample.own_rules(bench.data)), cycle(sample.queries)
    large = (tenant, "rules", str(sample.large.id))

    def document(entity: Agent | Rule) -> tuple[str, dict[str, Any]]:
        values = entity.model_dump(mode="json", exclude={"embedding"})
        if isinstance(entity, Rule) and entity.embedding is not None:
            vectors[values["id"]] = entity.embedding
        return values["id"], values

    async with store_class.from_conn_string(settings.database_url, index=index) as store:
        await store.setup()
        await without_vector_index(settings.database_url)
        for agent in sample.agents:
            await store.aput((tenant, "agents"), *document(agent), index=False)
        for rule in sample.plain_rules:
            await store.aput((tenant, "plain"), *document(rule), index=False)
        put = import_module("langgraph.store.base").PutOp
        for start in range(0, len(sample.large_rules), 100):
            some = sample.large_rules[start : start + 100]
            await store.abatch([put(large, *document(rule)) for rule in some])

        async def get(namespace: tuple[str, ...], model: type[Agent | Rule], entity: Agent | Rule) -> object:
            item = await store.aget(namespace, str(entity.id))
            return model.model_validate(item.value)

        async def save_agent() -> None:
            await store.aput((tenant, "agents"), *document(next(agents)), index=False)

        async def save_rule() -> None:
            await store.aput((tenant, "rules"), *document(next(own_rules)))

        async def search() -> object:
            # The query is a text; the stand-in returns its embedding.
            vectors["query"] = next(queries)
            items = await store.asearch(large, query="query", limit=10)
            return [(Rule.model_validate(item.value), item.score) for item in items]

        yield {
            GET_AGENT: Case(lambda: get((tenant, "agents"), Agent, next(agents))),
            GET_PLAIN_RULE: Case(lambda: get((tenant, "plain"), Rule, next(plain))),
            SAVE_AGENT: Case(save_agent),
            SAVE_RULE: Case(save_rule),
            SEARCH_RULES: Case(search),
        }


async def without_vector_index(url: str) -> None:
    """Make langgraph search exactly, as here; its own option for this ("flat") fails in its `setup`."""
    connection = await by_hand.connect(url)
    for name in await connection.fetch(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'store_vectors' AND indexdef LIKE '%USING hnsw%'"
    ):
        await connection.execute(f'DROP INDEX "{name[0]}"')
    await connection.close()


def _agent_row(agent: Agent) -> AgentRow:
    settings = agent.settings.model_dump()
    return AgentRow(**_unconditional({**agent.__dict__, "settings": settings}))


def _rule_row(rule: Rule) -> RuleRow:
    return RuleRow(**_unconditional(rule.__dict__))


def _unconditional(values: dict[str, Any]) -> dict[str, Any]:
    # Without a revision, because a merge refuses one that is not stored any more.
    rest = {name: value for name, value in values.items() if name != "revision"}
    return {**rest, "updated_at": utcnow(), "write_id": new_id()}
