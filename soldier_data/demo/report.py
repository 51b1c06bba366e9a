"""Tables of the demonstration about a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median, quantiles
from time import perf_counter

from rich.console import Console
from rich.table import Table

from soldier_data.data_layer import DataLayer
from soldier_data.demo.recall import episode_searches, longest_runs, neighbourhood, profile
from soldier_data.demo.replay import Replay, Stopwatch
from soldier_data.demo.tables import Column, make_table, one_line
from soldier_data.postgres.engine import open_connection
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.schema import metadata
from soldier_data.sessions.models import Session
from soldier_data.sessions.redis import RedisSessionStore, Tier

_SENTENCES_SHOWN = 5
_SESSIONS_SHOWN = 8
_SESSIONS_READ = 10_000


async def show(console: Console, data: DataLayer, replay: Replay, provider: EmbeddingProvider) -> None:
    """Print all tables."""
    console.print(await found_rules(data, replay, provider))
    sessions = await data.sessions.list_by_agent(
        replay.desk.agent.tenant_id, replay.desk.agent.id, limit=_SESSIONS_READ
    )
    console.print(active_sessions(sessions, replay))
    console.print(await episode_searches(data, replay, provider))
    customer = most_frequent_customer(sessions)
    console.print(await profile(data, customer, replay.stopwatch))
    console.print(await neighbourhood(data, customer, replay.stopwatch))
    console.print(await longest_runs(data, replay))
    if isinstance(data.sessions, RedisSessionStore):
        console.print(await tiers(data.sessions, sessions[0], replay.stopwatch))
    console.print(await rows_per_table(data, replay))
    console.print(operations(replay.stopwatch))


async def found_rules(data: DataLayer, replay: Replay, provider: EmbeddingProvider) -> Table:
    """Search for the rules that are most similar to some of the customers' messages."""
    agent = replay.desk.agent
    table = make_table(
        "Rules found by vector search",
        Column("Customer's message", share=5),
        Column("Score", right=True),
        Column("Rule", share=3),
        Column("Action", share=4),
    )
    for sentence in list(replay.sentences.values())[:_SENTENCES_SHOWN]:
        with replay.stopwatch.measure("find rules by vector search"):
            found = await data.config.vector_search_rules(
                await provider.embed(sentence), agent.tenant_id, agent.id, limit=3
            )
        for place, (rule, score) in enumerate(found):
            message = sentence if place == 0 else ""
            table.add_row(one_line(message), f"{score:.2f}", rule.name, one_line(rule.action_text))
        table.add_section()
    return table


def most_frequent_customer(sessions: Sequence[Session]) -> Session:
    """Return a session of the customer with the most sessions."""
    counts = Counter(session.user_channel_id for session in sessions)
    return max(sessions, key=lambda session: (counts[session.user_channel_id], session.user_channel_id))


def active_sessions(sessions: Sequence[Session], replay: Replay) -> Table:
    """Show the sessions with the most turns."""
    names = {scenario.id: scenario.name for scenario in replay.desk.scenarios.values()}
    table = make_table(
        f"The most active of {len(sessions):,} sessions",
        Column("Conversation"),
        Column("Customer", share=3),
        Column("Turns", right=True),
        Column("Steps", right=True),
        Column("Scenario", share=3),
        Column("Step", share=4),
        Column("Status"),
    )
    for session in sorted(sessions, key=lambda session: -session.turn_count)[:_SESSIONS_SHOWN]:
        visit = session.last_visit
        table.add_row(
            str(session.variables["conversation_id"]),
            str(session.variables["customer_name"] or "unknown"),
            str(session.turn_count),
            str(len(session.step_history)),
            names[session.active_scenario_id] if session.active_scenario_id else "none",
            visit.step_name if visit else "",
            session.status.value,
        )
    return table


async def tiers(store: RedisSessionStore, session: Session, stopwatch: Stopwatch) -> Table:
    """Demote a session to the persistent tier, and promote it by reading it."""
    table = make_table(
        "A session demoted and promoted again",
        Column("Operation"),
        Column("Tier before"),
        Column("Tier after"),
        Column("Duration", right=True),
    )

    async def row(operation: str, before: Tier | None, started: float) -> Tier | None:
        milliseconds = (perf_counter() - started) * 1000
        after = await store.tier(session.session_id)
        table.add_row(operation, before or "none", after or "none", f"{milliseconds:.2f} ms")
        return after

    tier = await store.tier(session.session_id)
    started = perf_counter()
    with stopwatch.measure("demote a session"):
        await store.demote_to_persistent(session.session_id)
    tier = await row("demote it, as after 30 idle minutes", tier, started)
    started = perf_counter()
    with stopwatch.measure("read a session and promote it"):
        found = await store.get(session.session_id)
    await row(f"read it, with {found.turn_count if found else 'no'} turns", tier, started)
    return table


async def rows_per_table(data: DataLayer, replay: Replay) -> Table:
    """Count the tenant's rows in each table."""
    table = make_table("Stored rows", Column("Table"), Column("Rows", right=True))
    connection = await open_connection(data.settings)
    try:
        for name in sorted(metadata.tables):
            count = await connection.fetchval(
                f'SELECT count(*) FROM "{name}" WHERE tenant_id = $1',  # noqa: S608 - a name of the metadata.
                replay.desk.agent.tenant_id,
            )
            table.add_row(name, f"{count:,}")
    finally:
        await connection.close()
    if isinstance(data.sessions, RedisSessionStore):
        for tier, count in (await data.sessions.stats()).items():
            table.add_row(f"sessions in Redis, {tier}", f"{count:,}")
    return table


def operations(stopwatch: Stopwatch) -> Table:
    """Show the number and the durations of the operations."""
    table = make_table(
        "Time per operation",
        Column("Operation", share=1),
        *(Column(header, right=True) for header in ("Count", "Median", "95th percentile", "Slowest")),
    )
    for operation, seconds in stopwatch.seconds.items():
        within = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
        table.add_row(
            operation,
            f"{len(seconds):,}",
            *(f"{value * 1000:,.2f} ms" for value in (median(seconds), within, max(seconds))),
        )
    return table
