"""Writers that write to every store at once, and know what was acknowledged."""

from __future__ import annotations

import asyncio
from time import monotonic
from uuid import UUID, uuid4

from soldier_data.audit import TurnRecord
from soldier_data.config import Rule
from soldier_data.data_layer import DataLayer
from soldier_data.memory import Episode
from soldier_data.runs import Run
from soldier_data.unit_of_work import UnitOfWork
from soldier_data.vectors import Embedding
from tests.factories.audit import TurnRecordFactory
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileFieldFactory
from tests.factories.runs import RunFactory
from tests.factories.vectors import EmbeddingFactory

WRITERS = 16


class Writer:
    """Writes to every store, and remembers what was acknowledged."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self.tenant_id = uuid4()
        self.agent = AgentFactory(tenant_id=self.tenant_id)
        self.profile = CustomerProfileFactory(tenant_id=self.tenant_id)
        self.rounds = 0
        self.rules: dict[UUID, Rule] = {}
        self.pairs: dict[UUID, Rule] = {}
        self.turns: list[TurnRecord] = []
        self.episodes: list[Episode] = []
        self.embeddings: list[Embedding] = []
        self.runs: list[Run] = []

    @property
    def acknowledged(self) -> int:
        """How many writes."""
        return self.rounds * 9 + 2

    async def begin(self) -> None:
        await self._data.config.save_agent(self.agent)
        await self._data.profiles.save(self.profile)

    async def write(self) -> None:
        """One round: one write of each kind."""
        data, tenant_id = self._data, self.tenant_id
        one, *pair, first, second = self._new_rules(5)
        await data.config.save_rule(one, if_revision=0)
        await data.config.save_many(pair)
        self.rules |= {rule.id: rule for rule in (one, *pair)}

        async def together(unit: UnitOfWork) -> None:
            await unit.config.save_rule(first)
            await unit.config.save_rule(second)

        await data.run_in_transaction(together)
        self.pairs |= {first.id: first, second.id: second}
        await data.config.save_agent(self.agent)
        field = ProfileFieldFactory(name="rounds", value=str(self.rounds))
        assert await data.profiles.update_field(tenant_id, self.profile.id, field) is True
        turn = TurnRecordFactory(tenant_id=tenant_id)
        await data.audit.save_turn(turn)
        self.turns.append(turn)
        episode = EpisodeFactory(tenant_id=tenant_id)
        await data.memory.add_episode(episode)
        self.episodes.append(episode)
        added: list[Embedding] = [EmbeddingFactory(tenant_id=tenant_id) for _ in range(2)]
        await data.vectors.add_embeddings(added)
        self.embeddings += added
        run = RunFactory(tenant_id=tenant_id)
        await data.runs.save_run(run)
        self.runs.append(run)
        self.rounds += 1

    async def assert_all_is_there(self) -> None:
        """Everything acknowledged is stored, once, and nothing else."""
        data, tenant_id = self._data, self.tenant_id
        stored = {rule.id: rule for rule in await data.config.get_rules(tenant_id, self.agent.id)}
        assert stored.keys() == self.rules.keys() | self.pairs.keys()
        # A unit of work whose commit was not acknowledged is repeated, and may have been committed twice.
        assert {id_: stored[id_] for id_ in self.rules} == self.rules
        assert await data.config.get_agent(tenant_id, self.agent.id) == self.agent
        assert self.agent.revision == 1 + self.rounds
        profile = await data.profiles.get_by_id(tenant_id, self.profile.id)
        assert profile is not None
        assert profile.revision == 1 + self.rounds
        history = await data.profiles.get_field_history(tenant_id, self.profile.id, "rounds")
        assert [field.value for field in history] == [str(number) for number in reversed(range(self.rounds))]
        many = self.rounds + 1
        turns = await data.audit.list_turns_by_tenant(tenant_id, limit=many)
        assert {turn.turn_id for turn in turns} == {turn.turn_id for turn in self.turns}
        for episode in self.episodes:
            assert await data.memory.get_episode(tenant_id, episode.id) == episode
        found = await data.vectors.search(self.embeddings[0].embedding, tenant_id, limit=2 * many)
        assert {each.id for each, _ in found} == {each.id for each in self.embeddings}
        runs = await data.runs.list_runs(tenant_id, "ada", limit=many)
        assert {run.id: run for run in runs} == {run.id: run for run in self.runs}

    def _new_rules(self, how_many: int) -> list[Rule]:
        return [RuleFactory(tenant_id=self.tenant_id, agent_id=self.agent.id) for _ in range(how_many)]


class Writers:
    """Writers at work."""

    def __init__(self, data: DataLayer) -> None:
        self._writers = [Writer(data) for _ in range(WRITERS)]
        self._ending = False

    async def work(self) -> None:
        """Write until `end`."""

        async def work(writer: Writer) -> None:
            await writer.begin()
            while not self._ending:
                await writer.write()

        async with asyncio.TaskGroup() as group:
            for writer in self._writers:
                group.create_task(work(writer))

    def end(self) -> None:
        self._ending = True

    async def all_advance(self, working: asyncio.Task[None]) -> float:
        """Wait until every writer has completed two rounds; returns how long the first one of each took."""
        started = monotonic()
        before = [writer.rounds for writer in self._writers]

        async def advanced(rounds: int) -> None:
            while any(
                writer.rounds < old + rounds for writer, old in zip(self._writers, before, strict=True)
            ):
                # An error reached a writer.
                assert not working.done(), working.exception()
                await asyncio.sleep(0.005)

        await advanced(1)
        took = monotonic() - started
        await advanced(2)
        return took

    async def assert_all_is_there(self) -> int:
        """Returns how many writes were acknowledged."""
        for writer in self._writers:
            await writer.assert_all_is_there()
        return sum(writer.acknowledged for writer in self._writers)
