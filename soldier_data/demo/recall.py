"""Tables of the demonstration about the stored data: searches, a profile, the graph, and runs."""

from __future__ import annotations

from rich.table import Table

from soldier_data.data_layer import DataLayer
from soldier_data.demo.records import GRAPH, customer_entity_id
from soldier_data.demo.replay import Replay, Stopwatch
from soldier_data.demo.tables import Column, make_table, one_line
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.sessions.models import Session

_FOUND_SHOWN = 3
_NAMES_SHOWN = 6
_RUNS_SHOWN = 5


async def episode_searches(data: DataLayer, replay: Replay, provider: EmbeddingProvider) -> Table:
    """Search episodes by the vector of a sentence, by its longest word, and by both."""
    tenant_id = replay.desk.agent.tenant_id
    sentence = max(replay.sentences.values(), key=len)
    word = max((word for word in sentence.split() if word.isalpha()), key=len, default=sentence)
    vector = await provider.embed(sentence)
    table = make_table(
        f"Episodes similar to: {one_line(sentence)[:50]}…",
        Column("Search"),
        Column("Score", right=True),
        Column("Source"),
        Column("Content", share=1),
    )
    measure = replay.stopwatch.measure
    with measure("search episodes by vector"):
        by_vector = await data.memory.vector_search_episodes(vector, tenant_id, limit=_FOUND_SHOWN)
    with measure("search episodes by text"):
        by_text = await data.memory.text_search_episodes(word, tenant_id, limit=_FOUND_SHOWN)
    with measure("search episodes by both"):
        by_both = await data.memory.hybrid_search_episodes(word, vector, tenant_id, limit=_FOUND_SHOWN)
    searches = {
        "by vector": [(episode, f"{score:.2f}") for episode, score in by_vector],
        f"by text: {word}": [(episode, "") for episode in by_text],
        "by both": [(episode, f"{score:.4f}") for episode, score in by_both],
    }
    for search, found in searches.items():
        for place, (episode, score) in enumerate(found):
            table.add_row(search if place == 0 else "", score, episode.source, one_line(episode.content))
        table.add_section()
    return table


async def profile(data: DataLayer, session: Session, stopwatch: Stopwatch) -> Table:
    """Show the profile of the customer of `session`, with the previous values of its fields."""
    assert session.customer_profile_id is not None, "every replayed session has a profile"
    with stopwatch.measure("read a profile"):
        found = await data.profiles.get_by_id(session.tenant_id, session.customer_profile_id)
    assert found is not None
    identity = found.channel_identities[0]
    table = make_table(
        f"The profile of {identity.channel_user_id} on {identity.channel}",
        Column("Field"),
        Column("Value", share=2),
        Column("Source"),
        Column("Learned on"),
        Column("Previous values", share=2),
    )
    for name, field in sorted(found.fields.items()):
        history = await data.profiles.get_field_history(session.tenant_id, found.id, name)
        earlier = [str(entry.value) for entry in history if entry.replaced_at is not None]
        table.add_row(
            name,
            str(field.value),
            field.source.value,
            f"{field.updated_at:%Y-%m-%d}",
            ", ".join(dict.fromkeys(earlier)),
        )
    return table


async def neighbourhood(data: DataLayer, session: Session, stopwatch: Stopwatch) -> Table:
    """Traverse the graph from the customer of `session`: their tasks, and other customers with the same tasks."""
    table = make_table(
        "Tasks of this customer, and customers with the same tasks",
        Column("Distance"),
        Column("Found", right=True),
        Column("Names", share=1),
    )
    start = customer_entity_id(session)
    known = {start}
    for depth, label in ((1, "1: tasks"), (2, "2: customers with the same tasks")):
        with stopwatch.measure(f"traverse the graph to depth {depth}"):
            reached = await data.memory.traverse_from_entities([start], session.tenant_id, GRAPH, depth=depth)
        new = [entity for entity in reached if entity.id not in known]
        known.update(entity.id for entity in new)
        names = ", ".join(entity.name for entity in new[:_NAMES_SHOWN])
        table.add_row(label, f"{len(new):,}", names)
    return table


async def longest_runs(data: DataLayer, replay: Replay) -> Table:
    """Show the statistics of the runs with the most steps."""
    table = make_table(
        f"Runs with the most steps, of {len(replay.runs):,}",
        Column("Conversation", share=1),
        Column("Status"),
        *(Column(header, right=True) for header in ("Steps", "LLM calls", "Words", "Cost (USD)", "Duration")),
    )
    found = []
    for run_id in replay.runs:
        with replay.stopwatch.measure("read the statistics of a run"):
            stats = await data.runs.get_run_stats(replay.desk.agent.tenant_id, run_id)
        assert stats is not None, "every replayed conversation is a run"
        found.append(stats)
    for stats in sorted(found, key=lambda stats: (-stats.step_count, stats.run_id))[:_RUNS_SHOWN]:
        table.add_row(
            replay.runs[stats.run_id],
            stats.status.value,
            f"{stats.step_count:,}",
            f"{stats.llm_calls:,}",
            f"{stats.total_tokens:,}",
            f"{stats.cost_usd:f}",
            f"{stats.duration_seconds or 0:.2f} s",
        )
    return table
