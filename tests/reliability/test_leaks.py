"""No secret and nothing that was stored shows in an error, a traceback, a repr, a log line or a command's output."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import make_url
from typer.testing import CliRunner

# Not imported here: that takes seconds, in each test process.
if not (find_spec("anthropic") and find_spec("openai")):
    pytest.skip("needs the SDKs of Anthropic and OpenAI", allow_module_level=True)

from soldier_data.cli.app import app
from soldier_data.data_layer import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.postgres.errors import TransientError
from soldier_data.providers import AnthropicProvider, OpenAIEmbeddingProvider, OpenAIProvider, ProviderError
from soldier_data.providers.errors import (
    AuthenticationError,
    ContentFilterError,
    InvalidRequestError,
    ModelError,
    ProviderUnavailableError,
    RateLimitError,
    StructuredOutputError,
)
from soldier_data.sessions import RedisSessionStore
from soldier_data.settings import Settings
from tests.backends.connections import administrator
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.audit import TurnRecordFactory
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileFieldFactory
from tests.factories.runs import LLMCallFactory, RunFactory
from tests.factories.sessions import SessionFactory
from tests.factories.vectors import EmbeddingFactory
from tests.integration.providers.wire import FakeClock, Fault, Reply, VendorServer
from tests.reliability.conftest import Counts, Found
from tests.reliability.witness import KEY, PASSWORD, TEXT, Witness, leaves, witnessing


@pytest.fixture
def witness() -> Iterator[Witness]:
    with witnessing() as witness:
        yield witness


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedServers]:
    """Servers that ask for a password, and take the canary for it."""
    try:
        servers = EmbeddedServers.start()
    except ConfigurationError as error:
        pytest.skip(f"no servers of the test's own, which it has to reconfigure: {error}")
    with servers:
        rules = servers.path / "postgres" / "pg_hba.conf"
        rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        yield servers


@pytest.fixture
async def urls(guarded: EmbeddedServers) -> AsyncIterator[dict[str, str]]:
    """A database without any migration, and Redis, with the right password in the URLs, which is a canary."""
    role = f"clerk_{uuid4().hex}"
    async with administrator(guarded.database_url) as connection:
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute(f"CREATE DATABASE {role}")
    redis = Redis.from_url(guarded.redis_url)
    await redis.config_set("requirepass", PASSWORD)
    database = make_url(guarded.database_url).set(username=role, password=PASSWORD, database=role)
    scheme, _, socket = guarded.redis_url.partition("://")
    yield {
        "database_url": database.render_as_string(hide_password=False),
        "redis_url": f"{scheme}://:{quote(PASSWORD)}@{socket}",
    }
    async with administrator(guarded.database_url) as connection:
        await connection.execute(f"DROP DATABASE {role} WITH (FORCE)")
    with_password = Redis.from_url(guarded.redis_url, password=PASSWORD)
    await with_password.config_set("requirepass", "")
    for client in (redis, with_password):
        await client.aclose()


def _wrong(url: str) -> str:
    return url.replace(PASSWORD, f"wrong-{PASSWORD}")


async def test_no_error_of_a_store_shows_a_secret_or_what_was_stored(
    witness: Witness, urls: dict[str, str], report: Found
) -> None:
    settings = settings_for(urls["database_url"], redis_url=urls["redis_url"], retry_budget=0.1)
    await _provoke_connections(witness, settings)
    async with DataLayer.open(settings, migrate=True) as data:
        witness.shown += [repr(data), repr(data.config), repr(data.sessions), repr(settings), str(settings)]
        await _provoke_refusals(witness, data)
        await _provoke_conflicts(witness, data)
        await _provoke_sessions(witness, data)
        await _provoke_transactions(witness, data)
        health = await data.health()
        witness.shown.append(repr(health))
        assert health.ok
    await witness.raised(StoreError, lambda: data.config.get_agent(uuid4(), uuid4()))
    assert witness.classes >= leaves(StoreError)
    for logged in ("session_saved", "session_unreadable", "redis_failed"):
        assert any(logged in text for text in witness.shown)
    witness.assert_clean()
    report(
        "canary passwords and payloads in URLs and entities, every class of store error provoked",
        bar="found nowhere",
        found=f"0 found in {len(witness.shown)} messages, tracebacks and log lines",
    )


async def _provoke_connections(witness: Witness, settings: Settings) -> None:
    """Servers that refuse the password, are not there, or are not migrated; URLs that are none."""
    not_there = {
        "database_url": f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
        "redis_url": f"redis://:{PASSWORD}@127.0.0.1:1/0",
    }
    refused = {name: _wrong(getattr(settings, name)) for name in not_there}
    kinds = {"database_url": TransientError, "redis_url": StoreConnectionError}
    for changed in (not_there, refused):
        async with DataLayer.open(settings.model_copy(update=changed)) as data:
            kind = kinds["database_url"] if changed is not_there else StoreConnectionError
            await witness.raised(kind, lambda data=data: data.config.get_agent(uuid4(), uuid4()))  # type: ignore[misc] # bound now.
            await witness.raised(StoreConnectionError, lambda data=data: data.sessions.get(uuid4()))  # type: ignore[misc] # as above.
    async with DataLayer.open(settings.model_copy(update=refused)) as data:
        health = await data.health()
        assert not health.ok
        witness.shown.append(repr(health))
    async with DataLayer.open(settings) as data:
        await witness.raised(ConfigurationError, lambda: data.runs.save_run(RunFactory(error_message=TEXT)))
    malformed = (
        {"database_url": f"postgresql://u:{PASSWORD}@a:1,b:x/db"},
        {"redis_url": f"redis://:{PASSWORD}@host:port/0"},
        {"redis_url": f"redis://:{PASSWORD}@host/0?socket_timeout={PASSWORD}"},
    )
    for changed in malformed:

        async def use(changed: dict[str, str] = changed) -> None:
            async with DataLayer.open(settings.model_copy(update=changed)) as data:
                await data.config.get_agent(uuid4(), uuid4())

        await witness.raised(ConfigurationError, use)
    for wrong in (
        {"database_url": f"mysql://u:{PASSWORD}@host/db"},
        {"redis_url": PASSWORD},
        {"pool_size": PASSWORD},
        {"session_key_prefix": f"{{{PASSWORD}"},
    ):

        async def make(wrong: dict[str, str] = wrong) -> None:
            Settings(**wrong)

        await witness.raised(ConfigurationError, make)


async def _provoke_refusals(witness: Witness, data: DataLayer) -> None:
    """Values that cannot be stored, and rows that are not there."""
    nul, tenant = f"{TEXT}\x00", uuid4()
    profile = CustomerProfileFactory(tenant_id=tenant)
    profile.fields["city"].value = {TEXT: [nul]}
    in_tenant = {"tenant_id": tenant}
    invalid: list[Callable[[], Awaitable[object]]] = [
        lambda: data.profiles.save(profile),
        lambda: data.profiles.update_field(tenant, uuid4(), ProfileFieldFactory(value={TEXT: float("nan")})),
        lambda: data.profiles.save(CustomerProfileFactory(external_id=TEXT * 1_000)),
        lambda: data.config.save_agent(AgentFactory(description=nul)),
        lambda: data.config.save_rule(RuleFactory(action_text=TEXT, embedding=[1.0])),
        lambda: data.memory.add_episode(EpisodeFactory(content=f"{TEXT}\ud800")),
        lambda: data.memory.add_entity(EntityFactory(attributes={TEXT: {1: TEXT}})),
        lambda: data.memory.text_search_episodes(nul, tenant),
        lambda: data.audit.save_turn(TurnRecordFactory(user_message=nul)),
        lambda: data.runs.save_run(RunFactory(request_payload={TEXT: {TEXT}})),
        lambda: data.vectors.add_embedding(EmbeddingFactory(content=nul)),
        lambda: data.vectors.search([0.0] * DIMENSIONS, tenant, metadata_filter={TEXT: nul}),
        lambda: data.sessions.save(SessionFactory(variables={TEXT: nul})),
        lambda: data.sessions.save(SessionFactory(variables={TEXT: 10**5_000})),
    ]
    missing: list[Callable[[], Awaitable[object]]] = [
        lambda: data.config.save_rule(RuleFactory(action_text=TEXT)),
        lambda: data.memory.add_relationship(RelationshipFactory(attributes={TEXT: TEXT})),
        lambda: data.runs.save_llm_call(LLMCallFactory(**in_tenant, model=TEXT)),
    ]
    for kind, calls in ((ValidationError, invalid), (NotFoundError, missing)):
        for call in calls:
            await witness.raised(kind, call)


async def _provoke_conflicts(witness: Witness, data: DataLayer) -> None:
    """Values that are taken, and records that differ."""
    tenant = {"tenant_id": uuid4()}
    agent, run = AgentFactory(**tenant, name=TEXT), RunFactory(**tenant, trace_id=TEXT, actor=TEXT)
    profile = CustomerProfileFactory(**tenant, external_id=TEXT)
    turn, episode = TurnRecordFactory(**tenant, user_message=TEXT), EpisodeFactory(**tenant, content=TEXT)
    await data.config.save_agent(agent)
    await data.runs.save_run(run)
    await data.profiles.save(profile)
    await data.audit.save_turn(turn)
    await data.memory.add_episode(episode)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: data.config.save_agent(AgentFactory(**tenant, name=TEXT)),
        lambda: data.config.save_agent(agent, if_revision=7),
        lambda: data.runs.save_run(RunFactory(**tenant, trace_id=TEXT)),
        lambda: data.profiles.save(CustomerProfileFactory(**tenant, external_id=TEXT)),
        lambda: data.profiles.save(profile, if_revision=7),
        lambda: data.audit.save_turn(turn.model_copy(update={"agent_response": f"another {TEXT}"})),
        lambda: data.memory.add_episode(episode),
        lambda: data.memory.add_episodes([EpisodeFactory(**tenant), episode]),
    ]
    for call in calls:
        await witness.raised(ConflictError, call)


async def _provoke_sessions(witness: Witness, data: DataLayer) -> None:
    """Sessions that conflict, that cannot be read, and a command that Redis refuses."""
    session = SessionFactory(variables={TEXT: TEXT}, user_channel_id=TEXT)
    await data.sessions.save(session)
    assert await data.sessions.get_by_channel(session.tenant_id, session.channel, TEXT) == session
    await witness.raised(ConflictError, lambda: data.sessions.save(session, if_revision=7))
    stolen = session.model_copy(update={"tenant_id": uuid4()})
    await witness.raised(ConflictError, lambda: data.sessions.save(stolen))
    assert isinstance(data.sessions, RedisSessionStore)
    for key in data.sessions._keys.session(session.session_id):
        await data.sessions.client.set(key, f"1 1 {TEXT}")
    await witness.raised(StoreError, lambda: data.sessions.get(session.session_id))
    assert await data.sessions.list_by_agent(session.tenant_id, session.agent_id) == []
    await data.sessions.client.lpush(data.sessions._keys.agent(uuid4(), session.agent_id), TEXT)
    other = uuid4()
    await data.sessions.client.lpush(data.sessions._keys.customer(session.tenant_id, other), TEXT)
    await witness.raised(StoreError, lambda: data.sessions.list_by_customer(session.tenant_id, other))


async def _provoke_transactions(witness: Witness, data: DataLayer) -> None:
    """A deadlock, a statement that takes too long, and a unit of work that is over."""
    tenant_id = uuid4()
    agents = [AgentFactory(tenant_id=tenant_id, description=TEXT) for _ in range(2)]
    for agent in agents:
        await data.config.save_agent(agent)

    async def cross(first: int, second: int, met: asyncio.Barrier) -> None:
        async with data.unit_of_work() as uow:
            await uow.config.save_agent(agents[first].model_copy())
            await met.wait()
            await uow.config.save_agent(agents[second].model_copy())

    met = asyncio.Barrier(2)
    outcomes = await asyncio.gather(cross(0, 1, met), cross(1, 0, met), return_exceptions=True)
    [deadlock] = [outcome for outcome in outcomes if outcome is not None]
    assert type(deadlock) is TransientError
    witness.saw(deadlock)

    slow = data.settings.model_copy(update={"command_timeout": timedelta(seconds=0.2)})
    async with DataLayer.open(slow) as hurried, data.unit_of_work() as uow:
        await uow.config.save_agent(agents[0].model_copy())
        await witness.raised(StoreConnectionError, lambda: hurried.config.save_agent(agents[0].model_copy()))
    await witness.raised(StoreError, lambda: uow.config.save_agent(agents[0]))

    async def fail_inside() -> None:
        async with data.unit_of_work() as broken:
            with contextlib.suppress(ConflictError):
                await broken.config.save_agent(AgentFactory(tenant_id=tenant_id, name=agents[0].name))
            raise StoreError("the service's own")

    await witness.raised(StoreError, fail_inside)


# -- providers -------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    """What structured output is asked for."""

    number: int


_REPEATS = f'{{"error": {{"type": "{TEXT}", "code": "{TEXT}", "message": "{KEY} {TEXT}"}}}}'
_DECLINED = f'{{"error": {{"code": "content_filter", "message": "{TEXT}"}}}}'

FAILURES: list[tuple[type[ProviderError], Fault | Reply]] = [
    (AuthenticationError, Fault(401, body=_REPEATS)),
    (AuthenticationError, Fault(403, body=_REPEATS)),
    (ModelError, Fault(404, body=_REPEATS)),
    (InvalidRequestError, Fault(400, body=_REPEATS)),
    (ContentFilterError, Fault(400, body=_DECLINED)),
    (ContentFilterError, Reply(text=TEXT, refused=True)),
    (RateLimitError, Fault(429, body=_REPEATS, headers={"retry-after": "1"})),
    (ProviderUnavailableError, Fault(500, body=_REPEATS)),
    (ProviderUnavailableError, Fault(cut=True, body=_REPEATS)),
    (ProviderError, Fault(409, body=_REPEATS)),
    (ProviderError, Fault(body=f"<html>{KEY} {TEXT}</html>")),
]


async def test_no_error_of_a_provider_shows_the_key_the_prompt_or_the_reply(
    witness: Witness, report: Found
) -> None:
    async with VendorServer().running() as server:
        options: dict[str, Any] = {"clock": FakeClock(), "max_retries": 1}
        llms = [
            AnthropicProvider(KEY, base_url=server.url, **options),
            OpenAIProvider(KEY, base_url=f"{server.url}/v1", **options),
        ]
        embeddings = OpenAIEmbeddingProvider(KEY, base_url=f"{server.url}/v1", **options)
        providers: list[Any] = [*llms, embeddings]
        witness.shown += [repr(provider) for provider in providers]
        for llm in llms:
            for kind, failure in FAILURES:
                server.script = [failure] * 2
                await witness.raised(kind, lambda llm=llm: llm.generate(TEXT, system_prompt=TEXT))  # type: ignore[misc] # bound now.
            server.script = [Reply(text=f'{{"number": "{TEXT}"}}')] * 4
            await witness.raised(
                StructuredOutputError,
                lambda llm=llm: llm.generate_structured(TEXT, Answer),  # type: ignore[misc] # as above.
            )
        for kind, failure in FAILURES:
            if isinstance(failure, Fault):
                server.script = [failure] * 2
                await witness.raised(kind, lambda: embeddings.embed(TEXT))
        for provider in providers:
            await provider.close()
    assert witness.classes >= leaves(ProviderError)
    witness.assert_clean()
    report(
        "canary keys, prompts and replies, every class of provider error provoked",
        bar="found nowhere",
        found=f"0 found in {len(witness.shown)} messages, tracebacks and log lines",
    )


# -- commands --------------------------------------------------------------------------------------------------

COMMANDS = [
    ["doctor"],
    ["db", "current"],
    ["db", "check"],
    ["db", "upgrade"],
    ["db", "grants", "nobody", "--run"],
    ["sessions", "stats"],
    ["sessions", "sweep"],
    ["vectors", "embed", "--provider", "hashing"],
    ["customers", "export", "--tenant", str(UUID(int=1)), str(UUID(int=2))],
]


async def test_no_command_shows_a_password(
    witness: Witness, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch, count: Counts, report: Found
) -> None:
    commands = COMMANDS[:: count(4, 1)]
    away = {
        "database_url": f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
        "redis_url": f"redis://:{PASSWORD}@127.0.0.1:1/0",
    }
    malformed = {
        "database_url": f"postgresql://u:{PASSWORD}@a:1,b:x/db",
        "redis_url": f"redis://:{PASSWORD}@a:x",
    }
    none = {"database_url": PASSWORD, "redis_url": PASSWORD}
    refused = {name: _wrong(url) for name, url in urls.items()}
    monkeypatch.setenv("SOLDIER_RETRY_BUDGET", "0")
    monkeypatch.setenv("SOLDIER_EMBEDDING_DIMENSIONS", str(DIMENSIONS))
    monkeypatch.setenv("SOLDIER_LOG_LEVEL", "debug")
    for servers in (away, malformed, none, refused, urls):
        for name, url in servers.items():
            monkeypatch.setenv(f"SOLDIER_{name.upper()}", url)
        for command in commands:
            # In a thread, because commands run an event loop of their own.
            done = await asyncio.to_thread(CliRunner().invoke, app, command)
            witness.shown += [done.output, done.stderr]
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                witness.saw(done.exception)
    witness.assert_clean()
    report(
        "canary passwords in both URLs, every command on servers that refuse, are away, or answer",
        bar="found nowhere",
        found=f"0 found in the output of {5 * len(commands)} commands",
    )
