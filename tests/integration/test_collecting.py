"""Units of work collect what is only added, and send it as one statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, func, select

from soldier_data import ConflictError, DataLayer, NotFoundError, StoreError, ValidationError
from soldier_data.base.collected import MOST_COLLECTED
from soldier_data.memory import Entity, Episode, Relationship
from soldier_data.orm import EpisodeRow
from soldier_data.runs import Run
from soldier_data.settings import Settings
from tests.backends.connections import administrator, bound_role, pool_of
from tests.conftest import DIMENSIONS, settings_for, with_database
from tests.factories.audit import AuditEventFactory, TurnRecordFactory
from tests.factories.config import AgentFactory
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory
from tests.factories.vectors import EmbeddingFactory


@pytest.fixture(scope="module")
async def on_server(shared_database_url: str) -> AsyncIterator[DataLayer]:
    settings = settings_for(shared_database_url, session_backend="inmemory")
    async with DataLayer.open(settings) as data:
        # The first transaction asks for the isolation level.
        async with data.unit_of_work() as uow:
            await uow.config.get_agent(uuid4(), uuid4())
        yield data


@pytest.fixture(params=["inmemory", "postgres", "distributed"])
async def data(
    request: pytest.FixtureRequest, on_server: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DataLayer]:
    """A data layer in memory, and one on PostgreSQL, also as if it was distributed by Citus."""
    if request.param != "inmemory":
        server = {"isolation": "read committed", "distributed": request.param == "distributed"}
        monkeypatch.setattr(on_server._database, "_server", server)
        yield on_server
        return
    async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as in_memory:
        yield in_memory


@pytest.fixture
def sent() -> Any:
    """The first word of each statement."""
    words: list[str] = []

    def note(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        words.append(sql.split(maxsplit=1)[0].rstrip(";"))

    event.listen(Engine, "before_cursor_execute", note)
    yield words
    event.remove(Engine, "before_cursor_execute", note)


def make(factory: Any, **fields: Any) -> Any:
    return factory(**fields)


class Turn:
    """Everything that a turn adds, below a run."""

    def __init__(self, run: Run) -> None:
        tenant = {"tenant_id": run.tenant_id}
        self.run = run
        self.record = make(TurnRecordFactory, **tenant)
        self.events = AuditEventFactory.build_batch(3, **tenant)
        self.episodes: list[Episode] = EpisodeFactory.build_batch(2, **tenant, embedding=[1.0] * DIMENSIONS)
        self.ends: list[Entity] = EntityFactory.build_batch(2, **tenant)
        self.relationship: Relationship = make(
            RelationshipFactory, **tenant, from_entity_id=self.ends[0].id, to_entity_id=self.ends[1].id
        )
        self.step = make(StepFactory, **tenant, run_id=run.id)
        self.call = make(LLMCallFactory, **tenant, run_id=run.id, step_id=self.step.id)
        self.artifact = make(ArtifactFactory, **tenant, run_id=run.id)
        self.embedding = make(EmbeddingFactory, **tenant)

    async def add(self, stores: Any) -> None:
        await stores.audit.save_turn(self.record)
        await stores.audit.save_events(self.events)
        await stores.memory.add_episodes(self.episodes)
        for end in self.ends:
            await stores.memory.add_entity(end)
        await stores.memory.add_relationship(self.relationship)
        await stores.runs.save_step(self.step)
        await stores.runs.save_llm_call(self.call)
        await stores.runs.save_artifact(self.artifact)
        await stores.vectors.add_embedding(self.embedding)

    async def check(self, stores: Any) -> None:
        tenant_id = self.run.tenant_id
        assert await stores.audit.get_turn(tenant_id, self.record.turn_id) == self.record
        assert [await stores.audit.get_event(tenant_id, one.id) for one in self.events] == self.events
        assert [await stores.memory.get_episode(tenant_id, one.id) for one in self.episodes] == self.episodes
        assert [await stores.memory.get_entity(tenant_id, one.id) for one in self.ends] == self.ends
        assert await stores.memory.get_relationship(tenant_id, self.relationship.id) == self.relationship
        assert await stores.runs.get_steps(tenant_id, self.run.id) == [self.step]
        assert await stores.runs.get_llm_calls(tenant_id, self.run.id) == [self.call]
        assert await stores.runs.get_artifacts(tenant_id, self.run.id) == [self.artifact]
        [hit] = await stores.vectors.search(self.embedding.embedding, tenant_id)
        assert hit.embedding == self.embedding


@pytest.fixture
async def run(data: DataLayer, tenant_id: UUID) -> Run:
    saved: Run = RunFactory(tenant_id=tenant_id)
    await data.runs.save_run(saved)
    return saved


@pytest.fixture
def turn(run: Run) -> Turn:
    return Turn(run)


async def test_a_unit_commits_what_it_has_collected(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        await turn.add(uow)
    await turn.check(data)


async def test_a_unit_sees_what_it_has_collected(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        await turn.add(uow)
        await turn.check(uow)
        assert await data.audit.get_turn(turn.run.tenant_id, turn.record.turn_id) is None
    await turn.check(data)


async def test_calls_side_by_side_see_what_was_collected(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        await uow.memory.add_episodes(turn.episodes)
        found = await asyncio.gather(
            *(uow.memory.get_episode(one.tenant_id, one.id) for one in turn.episodes * 3)
        )
        assert found == turn.episodes * 3


async def test_flushed_writes_are_rolled_back_with_the_unit(data: DataLayer, turn: Turn) -> None:
    async def work() -> None:
        async with data.unit_of_work() as uow:
            await turn.add(uow)
            await uow.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    async with data.unit_of_work() as uow:
        await turn.add(uow)
        await uow.rollback()
    assert await data.audit.list_turns_by_tenant(turn.run.tenant_id) == []
    assert await data.runs.get_steps(turn.run.tenant_id, turn.run.id) == []


async def test_a_turn_is_read_and_written_in_one_statement_each(
    on_server: DataLayer, tenant_id: UUID, sent: list[str]
) -> None:
    run: Run = RunFactory(tenant_id=tenant_id)
    await on_server.runs.save_run(run)
    sent.clear()
    assert on_server._database is not None
    pool = pool_of(on_server._database)
    async with on_server.unit_of_work() as uow:
        await uow.runs.get_run(tenant_id, run.id)
        turn = Turn(run)
        await turn.add(uow)
        assert pool._in_use == set()
        # A read of another store does not need to see them.
        await uow.config.get_agents(tenant_id)
    assert sent == ["SELECT", "SELECT", "WITH"]
    await turn.check(on_server)


async def test_the_statement_is_not_planned_anew_for_each_unit(database_url: str, tenant_id: UUID) -> None:
    async with DataLayer.open(settings_for(database_url, session_backend="inmemory", pool_size=1)) as data:
        run: Run = RunFactory(tenant_id=tenant_id)
        await data.runs.save_run(run)
        for _ in range(12):
            async with data.unit_of_work() as uow:
                await Turn(run).add(uow)
        assert data._database is not None
        [lease] = pool_of(data._database)._free
        query = (
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE 'WITH into%'"
        )
        # PostgreSQL compares the costs of both kinds of plans after five of the one kind.
        assert [tuple(row) for row in await lease.driver.fetch(query)] == [(7, 5)]


REJECTED: dict[str, tuple[Callable[[Any, Turn], Any], type[StoreError], str]] = {
    "episode": (lambda uow, turn: uow.memory.add_episode(turn.episodes[0]), ConflictError, "already taken"),
    "entities": (
        lambda uow, turn: uow.memory.add_entity(turn.ends[1].model_copy(update={"name": "other"})),
        ConflictError,
        "already taken",
    ),
    "turn record": (
        lambda uow, turn: uow.audit.save_turn(turn.record.model_copy(update={"user_message": "other"})),
        ConflictError,
        "differ",
    ),
    "step of no run": (
        lambda uow, turn: uow.runs.save_step(turn.step.model_copy(update={"id": uuid4(), "run_id": uuid4()})),
        NotFoundError,
        "no run with this run_id",
    ),
    "call of no step": (
        lambda uow, turn: uow.runs.save_llm_call(
            turn.call.model_copy(update={"id": uuid4(), "step_id": uuid4()})
        ),
        NotFoundError,
        "no step with this step_id",
    ),
    "relationship to nothing": (
        lambda uow, turn: uow.memory.add_relationship(
            turn.relationship.model_copy(update={"id": uuid4(), "to_entity_id": uuid4()})
        ),
        NotFoundError,
        "entit",
    ),
}


@pytest.mark.parametrize("rejected", REJECTED)
async def test_a_rejected_write_is_told_when_it_is_sent_and_leaves_the_others(
    data: DataLayer, turn: Turn, rejected: str
) -> None:
    add, error, message = REJECTED[rejected]
    await turn.add(data)
    other = Turn(turn.run)
    async with data.unit_of_work() as uow:
        await uow.audit.save_turn(other.record)
        await add(uow, turn)
        await uow.memory.add_episodes(other.episodes)
        with pytest.raises(error, match=message):
            await uow.flush()
        # It is told once.
        await uow.flush()
    assert await data.audit.get_turn(other.record.tenant_id, other.record.turn_id) == other.record
    for episode in other.episodes:
        assert await data.memory.get_episode(episode.tenant_id, episode.id) == episode


@pytest.mark.parametrize("rejected", REJECTED)
async def test_a_write_that_is_rejected_at_the_end_rolls_the_unit_back(
    data: DataLayer, turn: Turn, rejected: str
) -> None:
    add, error, _ = REJECTED[rejected]
    await turn.add(data)
    other = Turn(turn.run)
    called: list[str] = []

    async def work() -> None:
        async with data.unit_of_work() as uow:
            uow.after_commit(lambda: called.append("never"))
            await uow.audit.save_turn(other.record)
            await add(uow, turn)

    with pytest.raises(error):
        await work()
    assert await data.audit.get_turn(other.record.tenant_id, other.record.turn_id) is None
    assert called == []


async def test_errors_of_several_writes_are_told_together(data: DataLayer, turn: Turn) -> None:
    await turn.add(data)
    async with data.unit_of_work() as uow:
        for episode in turn.episodes:
            await uow.memory.add_episode(episode)
        with pytest.raises(ConflictError, match=str(turn.episodes[0].id)) as caught:
            await uow.flush()
        [note] = caught.value.__notes__
        assert str(turn.episodes[1].id) in note


async def test_what_cannot_be_stored_is_told_at_the_call(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        with pytest.raises(ValidationError, match="content"):
            await uow.memory.add_episode(turn.episodes[0].model_copy(update={"content": "\0"}))


async def test_the_same_record_twice_is_one(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        await uow.audit.save_turn(turn.record)
        await uow.audit.save_turn(turn.record)
    await data.audit.save_turn(turn.record)
    async with data.unit_of_work() as uow:
        await uow.audit.save_turn(turn.record)
    assert await data.audit.list_turns_by_tenant(turn.run.tenant_id) == [turn.record]


async def test_a_step_that_is_saved_twice_has_the_later_fields(data: DataLayer, turn: Turn) -> None:
    later = turn.step.model_copy(update={"node_name": "later"})
    async with data.unit_of_work() as uow:
        await uow.runs.save_step(turn.step)
        await uow.runs.save_step(later)
    assert await data.runs.get_steps(turn.run.tenant_id, turn.run.id) == [later]


async def test_an_entity_that_is_changed_after_the_call_is_stored_as_it_was(
    data: DataLayer, turn: Turn
) -> None:
    [episode, _] = turn.episodes
    before = episode.model_copy(deep=True)
    async with data.unit_of_work() as uow:
        await uow.memory.add_episode(episode)
        episode.content = "changed"
        episode.entity_ids.append(uuid4())
        assert episode.embedding is not None
        episode.embedding[0] = 0.5
    assert await data.memory.get_episode(episode.tenant_id, episode.id) == before


async def test_many_at_once_are_not_collected(data: DataLayer, tenant_id: UUID) -> None:
    many = EpisodeFactory.build_batch(MOST_COLLECTED + 1, tenant_id=tenant_id)
    async with data.unit_of_work() as uow:
        await uow.memory.add_episodes(many)
        with pytest.raises(ConflictError):
            await uow.memory.add_episodes(many)
    async with data.unit_of_work() as uow:
        await uow.memory.add_episodes(many[:MOST_COLLECTED])
        with pytest.raises(ConflictError):
            await uow.flush()
    assert len(await data.memory.get_episodes(tenant_id, many[0].group_id, limit=1000)) == len(many)


async def test_an_ended_unit_collects_nothing(data: DataLayer, turn: Turn) -> None:
    async with data.unit_of_work() as uow:
        pass
    with pytest.raises(StoreError, match="has ended"):
        await uow.memory.add_episode(turn.episodes[0])


async def test_a_statement_of_the_session_sees_what_was_collected(
    on_server: DataLayer, tenant_id: UUID
) -> None:
    count = select(func.count()).select_from(EpisodeRow).where(EpisodeRow.tenant_id == tenant_id)
    async with on_server.unit_of_work() as uow:
        await uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
        assert await uow.session.scalar(count) == 1
        await uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
        assert await uow.connection.scalar(count) == 2
        async with uow.session.begin_nested():
            await uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
        await uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
    async with on_server.unit_of_work() as uow:
        assert await uow.session.scalar(count) == 4


async def test_policies_hold_for_collected_rows_of_several_tenants(database_url: str) -> None:
    async with bound_role(database_url) as bound:
        settings = settings_for(bound, row_level_security=True, session_backend="inmemory")
        async with DataLayer.open(settings) as data:
            episodes = [EpisodeFactory() for _ in range(2)]
            for together in (episodes, [EpisodeFactory()]):
                async with data.unit_of_work() as uow:
                    for episode in together:
                        await uow.memory.add_episode(episode)
                for episode in together:
                    assert await data.memory.get_episode(episode.tenant_id, episode.id) == episode


@pytest.mark.parametrize("data", ["distributed"], indirect=True)
async def test_a_distributed_database_gets_one_insert_after_the_other(
    data: DataLayer, turn: Turn, sent: list[str]
) -> None:
    sent.clear()
    async with data.unit_of_work() as uow:
        await uow.audit.save_turn(turn.record)
        await uow.memory.add_episodes(turn.episodes)
    assert sent == ["BEGIN", "INSERT", "RELEASE", "COPY", "COMMIT"]


async def test_with_policies_a_unit_sends_four_messages(
    database_url: str, tenant_id: UUID, sent: list[str]
) -> None:
    async with bound_role(database_url) as bound:
        settings = settings_for(bound, row_level_security=True, session_backend="inmemory")
        async with DataLayer.open(settings) as data:
            run: Run = RunFactory(tenant_id=tenant_id)
            await data.runs.save_run(run)
            sent.clear()
            turn = Turn(run)
            async with data.unit_of_work(tenant_id) as uow:
                assert await uow.runs.get_run(tenant_id, run.id) == run
                await turn.add(uow)
            assert sent == ["BEGIN", "SELECT", "WITH", "COMMIT"]
            await turn.check(data)


async def test_a_rejected_write_restores_the_tenant_of_the_unit(database_url: str) -> None:
    async with bound_role(database_url) as bound:
        settings = settings_for(bound, row_level_security=True, session_backend="inmemory")
        async with DataLayer.open(settings) as data:
            [first, second] = agents = AgentFactory.build_batch(2)
            for agent in agents:
                await data.config.save_agent(agent)
            async with data.unit_of_work(first.tenant_id) as uow:
                assert await uow.config.get_agent(second.tenant_id, second.id) == second
                with pytest.raises(ConflictError):
                    await uow.config.save_agent(AgentFactory(tenant_id=first.tenant_id, name=first.name))
                for agent in agents:
                    assert await uow.config.get_agent(agent.tenant_id, agent.id) == agent
                with pytest.raises(ConflictError):
                    await uow.config.save_agent(AgentFactory(tenant_id=second.tenant_id, name=second.name))
                for agent in agents:
                    assert await uow.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_a_higher_isolation_level_holds_from_the_first_read(
    database_url: str, server_url: str, tenant_id: UUID
) -> None:
    name = database_url.rsplit("/", 1)[-1].split("?", maxsplit=1)[0]
    async with administrator(with_database(server_url, name)) as connection:
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    async with DataLayer.open(settings_for(database_url, session_backend="inmemory")) as data:
        for _ in range(2):
            episode = EpisodeFactory(tenant_id=tenant_id)
            async with data.unit_of_work() as uow:
                assert await uow.memory.get_episode(tenant_id, episode.id) is None
                await data.memory.add_episode(episode)
                assert await uow.memory.get_episode(tenant_id, episode.id) is None
