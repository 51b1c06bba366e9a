"""`embed_missing`, and the command that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from soldier_data.cli.app import app
from soldier_data.config import ConfigStore, InMemoryConfigStore, Rule
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ValidationError
from soldier_data.memory import InMemoryMemoryStore
from soldier_data.providers import (
    EmbeddingProvider,
    EmbedReport,
    HashingEmbeddingProvider,
    InvalidRequestError,
    OpenAIEmbeddingProvider,
    ProviderUnavailableError,
    embed_missing,
)
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory
from tests.factories.memory import EpisodeFactory
from tests.integration.providers.conftest import CANARY_KEY, base_url
from tests.integration.providers.wire import FakeClock, Fault, VendorServer


class Refusing(HashingEmbeddingProvider):
    """Refuses some texts, and breaks off after some batches."""

    def __init__(self, refused: str = "", batches: int = 1_000) -> None:
        super().__init__(DIMENSIONS)
        self.refused = refused
        self.batches = batches

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        self.batches -= 1
        if self.batches < 0:
            raise ProviderUnavailableError("gone")
        if self.refused in texts:
            raise InvalidRequestError("too long")
        return await super().embed_batch(texts)


async def _filled(number: int, *texts: str) -> tuple[InMemoryConfigStore, list[Rule]]:
    store = InMemoryConfigStore(DIMENSIONS)
    agent = AgentFactory()
    owned = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    rules = RuleFactory.build_batch(number, **owned)
    rules += [RuleFactory(condition_text=text, **owned) for text in texts]
    await store.save_many([agent, *rules])
    return store, rules


async def _embeddings(store: ConfigStore, rules: list[Rule]) -> list[Any]:
    found = [await store.get_rule(rule.tenant_id, rule.id) for rule in rules]
    return [rule.embedding if rule else None for rule in found]


async def test_every_text_gets_the_embedding_of_its_own_words_and_the_models_name() -> None:
    provider = HashingEmbeddingProvider(DIMENSIONS)
    config, rules = await _filled(5)
    scenario = ScenarioFactory(
        tenant_id=rules[0].tenant_id, agent_id=rules[0].agent_id, entry_condition_text="Wants a refund"
    )
    await config.save_scenario(scenario)
    memory = InMemoryMemoryStore(DIMENSIONS)
    episode = EpisodeFactory(content="The parcel is late")
    await memory.add_episode(episode)

    assert await embed_missing(config, provider, batch_size=2) == EmbedReport(embedded=6, skipped=0)
    assert await embed_missing(memory, provider) == EmbedReport(embedded=1, skipped=0)

    for rule in rules:
        found = await config.get_rule(rule.tenant_id, rule.id)
        assert found is not None
        assert found.embedding == pytest.approx(await provider.embed(rule.condition_text))
        assert found.embedding_model == provider.model_id
    begun = await config.get_scenario(scenario.tenant_id, scenario.id)
    assert begun is not None
    assert begun.entry_condition_embedding_model == provider.model_id
    assert begun.entry_condition_embedding == pytest.approx(await provider.embed("Wants a refund"))
    remembered = await memory.get_episode(episode.tenant_id, episode.id)
    assert remembered is not None
    assert remembered.embedding == pytest.approx(await provider.embed("The parcel is late"))


async def test_a_second_run_finds_nothing_and_another_model_finds_everything() -> None:
    config, _ = await _filled(5)
    await embed_missing(config, HashingEmbeddingProvider(DIMENSIONS))

    assert await embed_missing(config, HashingEmbeddingProvider(DIMENSIONS)) == EmbedReport(0, 0)

    class Another(HashingEmbeddingProvider):
        model_id = "another"

    assert await embed_missing(config, Another(DIMENSIONS)) == EmbedReport(embedded=5, skipped=0)


async def test_a_run_that_broke_off_keeps_its_batches_and_is_resumed_by_the_next() -> None:
    config, rules = await _filled(7)

    with pytest.raises(ProviderUnavailableError):
        await embed_missing(config, Refusing(batches=2), batch_size=2)
    assert sum(vector is not None for vector in await _embeddings(config, rules)) == 4

    assert await embed_missing(config, Refusing(), batch_size=2) == EmbedReport(embedded=3, skipped=0)
    assert None not in await _embeddings(config, rules)


async def test_a_text_that_the_provider_refuses_holds_up_no_other() -> None:
    config, rules = await _filled(9, "too long")

    report = await embed_missing(config, Refusing("too long"), batch_size=5)

    assert report == EmbedReport(embedded=9, skipped=1)
    vectors = await _embeddings(config, rules)
    assert vectors.pop() is None
    assert None not in vectors


async def test_a_text_that_changes_meanwhile_is_left_for_the_next_run() -> None:
    config, rules = await _filled(2)

    class Slow(HashingEmbeddingProvider):
        async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
            rules[0].condition_text = "Changed"
            await config.save_rule(rules[0])
            return await super().embed_batch(texts)

    assert await embed_missing(config, Slow(DIMENSIONS)) == EmbedReport(embedded=1, skipped=1)
    assert (await _embeddings(config, rules))[0] is None


async def test_progress_is_told_after_each_batch() -> None:
    config, _ = await _filled(5)
    told: list[tuple[int, int]] = []

    await embed_missing(
        config,
        HashingEmbeddingProvider(DIMENSIONS),
        batch_size=2,
        on_progress=lambda *done: told.append(done),
    )

    assert told == [(2, 5), (4, 5), (5, 5)]


async def test_the_rate_is_kept_by_waiting_before_the_next_batch() -> None:
    config, _ = await _filled(6)
    clock = FakeClock()

    await embed_missing(
        config, HashingEmbeddingProvider(DIMENSIONS), batch_size=2, max_per_minute=10, clock=clock
    )

    # Two texts at ten a minute are twelve seconds; after the last batch nobody waits.
    assert clock.slept == [12.0, 12.0]


async def test_one_tenant_is_embedded_alone() -> None:
    config, rules = await _filled(2)
    assert await embed_missing(
        config, HashingEmbeddingProvider(DIMENSIONS), tenant_id=uuid4()
    ) == EmbedReport(0, 0)
    assert await embed_missing(
        config, HashingEmbeddingProvider(DIMENSIONS), tenant_id=rules[0].tenant_id
    ) == EmbedReport(2, 0)


async def test_a_provider_of_another_length_is_refused_by_the_store() -> None:
    config, _ = await _filled(2)
    with pytest.raises(ValidationError, match="SOLDIER_EMBEDDING_DIMENSIONS"):
        await embed_missing(config, HashingEmbeddingProvider(DIMENSIONS + 1))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_per_minute": 0}, {"max_per_minute": -1}])
async def test_wrong_options_are_refused_by_name(options: dict[str, Any]) -> None:
    config, _ = await _filled(0)
    provider: EmbeddingProvider = HashingEmbeddingProvider(DIMENSIONS)
    with pytest.raises(ValidationError, match=next(iter(options))):
        await embed_missing(config, provider, **options)


async def test_openai_embeds_what_is_missing_on_postgresql(
    data: DataLayer, server: VendorServer, tenant_id: UUID
) -> None:
    provider = OpenAIEmbeddingProvider(
        CANARY_KEY, base_url=base_url(server, "openai"), dimensions=DIMENSIONS, clock=FakeClock()
    )
    episodes = EpisodeFactory.build_batch(5, tenant_id=tenant_id)
    await data.memory.add_episodes(episodes)
    server.script = [Fault(429)]

    report = await embed_missing(data.memory, provider, batch_size=3)

    assert report == EmbedReport(embedded=5, skipped=0)
    assert len(server.requests) == 3
    for episode in episodes:
        found = await data.memory.get_episode(tenant_id, episode.id)
        assert found is not None
        assert found.embedding == await provider.embed(episode.content)
        assert found.embedding_model == provider.model_id
    await provider.close()


# -- soldier-data vectors embed --------------------------------------------------------------------------------


def _run(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """The command on the servers of `settings`, in a process of its own as far as the event loop goes."""
    monkeypatch.setenv("SOLDIER_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SOLDIER_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("SOLDIER_EMBEDDING_DIMENSIONS", str(DIMENSIONS))
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["vectors", "embed", *arguments])
    return result.exit_code, result.output


async def test_the_command_embeds_all_tenants_and_shows_how_far_it_is(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        agent = AgentFactory()
        rules = RuleFactory.build_batch(3, tenant_id=agent.tenant_id, agent_id=agent.id)
        await data.config.save_many([agent, *rules])
        await data.memory.add_episode(EpisodeFactory(tenant_id=agent.tenant_id))

    code, output = await asyncio.to_thread(_run, settings, monkeypatch, "--provider", "hashing")

    assert code == 0, output
    assert "6/6" in output
    assert "Embedded 8 texts." in output
    model = HashingEmbeddingProvider(DIMENSIONS).model_id
    assert await data.config.count_to_embed(model) == await data.memory.count_to_embed(model) == 0


async def test_the_command_embeds_one_tenant_by_openai_and_tells_what_the_provider_refuses(
    data: DataLayer, settings: Settings, server: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY_KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", base_url(server, "openai"))
    mine, theirs = EpisodeFactory(), EpisodeFactory()
    await data.memory.add_episode(mine)
    await data.memory.add_episode(theirs)
    server.script = [Fault(400)]
    arguments = ("--provider", "openai", "--tenant", str(mine.tenant_id))

    code, output = await asyncio.to_thread(_run, settings, monkeypatch, *arguments)
    assert code == 0, output
    assert "Skipped 1" in output

    code, output = await asyncio.to_thread(_run, settings, monkeypatch, *arguments)
    assert code == 0, output
    assert "Embedded 1 texts." in output
    assert server.requests[-1].body["dimensions"] == DIMENSIONS
    assert await data.memory.count_to_embed(Settings().openai_embedding_model) == 1


async def test_the_command_stops_with_one_line_that_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, output = await asyncio.to_thread(_run, settings, monkeypatch, "--provider", "openai")
    assert code == 1
    assert "OPENAI_API_KEY" in output
    assert "Traceback" not in output

    monkeypatch.setenv("SOLDIER_ROW_LEVEL_SECURITY", "true")
    code, output = await asyncio.to_thread(_run, settings, monkeypatch, "--provider", "hashing")
    assert code == 2
    assert "--tenant" in output
