"""A process that replays conversations with one implementation, also with the package of an earlier commit.

    python -m benchmarks.turn_worker OPTIONS

The options and the requests on stdin, one a line, are JSON objects, and so are the replies on stdout.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import soldier_data
from benchmarks.turn_sample import KnownEmbeddings, Recorder, read_sample, some_of
from soldier_data.base.models import new_id
from soldier_data.data_layer import DataLayer
from soldier_data.demo import replay
from soldier_data.demo.agent import SupportDesk, build_support_desk
from soldier_data.demo.models import Conversation, Exchange
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.hashing import HashingEmbeddingProvider
from soldier_data.settings import Settings

STORES = "stores"
"""The implementation of the demo itself; the others are in `turn_peers`."""


class _Worker:
    """Replays conversations on one network.

    Attributes:
        desk: The agent, stored with its rules.
        recorder: Of the turns.
    """

    def __init__(self, desk: SupportDesk, known: KnownEmbeddings, recorder: Recorder) -> None:
        self.desk = desk
        self.recorder = recorder
        self._known = known
        self.replay: Callable[[Conversation], Awaitable[None]] | None = None
        self.data: DataLayer | None = None

    async def run(
        self, conversations: list[Conversation], at_once: int, *, pause: float, embed: bool
    ) -> dict[str, Any]:
        """Replay conversations; return their turns, and the whole time in seconds."""
        provider: EmbeddingProvider = self._known
        if embed:
            provider = HashingEmbeddingProvider(self._known.dimensions)
        else:
            await self._known.learn(conversations)
        self.recorder.turns.clear()
        self.recorder.counting = at_once == 1
        started = perf_counter()
        if self.replay is not None:
            for conversation in conversations:
                await self.replay(conversation)
        else:
            assert self.data is not None
            with _recording(self.recorder, at_once, pause):
                await replay.replay(
                    self.data, self.desk, conversations, provider, replay.Stopwatch(), lambda: None
                )
        seconds = perf_counter() - started
        return {"seconds": seconds, "turns": [asdict(turn) for turn in self.recorder.turns]}


@contextmanager
def _recording(recorder: Recorder, at_once: int, pause: float) -> Any:
    """Record the turns of the demo, with this number of conversations at once, and a pause before each turn."""
    # Of varying length, so that the conversations do not go in step; the same in each process.
    lengths = Random(2026)  # noqa: S311 - nothing secret.
    plain, usual = replay._ConversationReplay, replay.CONVERSATIONS_AT_ONCE  # noqa: SLF001 - not the demo's business.

    class Timed(plain):  # type: ignore[valid-type, misc]
        async def _replay_exchange(self, exchange: Exchange, *, is_last: bool) -> None:
            if pause:
                await asyncio.sleep(lengths.uniform(0, 2 * pause))
            async with recorder.turn(exchange.number):
                await super()._replay_exchange(exchange, is_last=is_last)

    with ExitStack() as stack:
        stack.callback(setattr, replay, "_ConversationReplay", plain)
        stack.callback(setattr, replay, "CONVERSATIONS_AT_ONCE", usual)
        replay._ConversationReplay = Timed  # type: ignore[misc] # noqa: SLF001 - as above.
        replay.CONVERSATIONS_AT_ONCE = at_once
        yield


def _record_holds(data: DataLayer, recorder: Recorder) -> None:
    """Record the time between acquiring and releasing a connection."""
    pool: Any = getattr(getattr(data, "_database", None), "_pool", None)
    if pool is None or not hasattr(pool, "acquire"):
        return
    acquire, release = pool.acquire, pool.release
    since: dict[int, float] = {}

    async def timed_acquire(*arguments: Any, **named: Any) -> Any:
        lease = await acquire(*arguments, **named)
        since[id(lease)] = perf_counter()
        return lease

    async def timed_release(lease: Any, *arguments: Any, **named: Any) -> Any:
        if id(lease) in since:
            recorder.holds.append(perf_counter() - since.pop(id(lease)))
        return await release(lease, *arguments, **named)

    pool.acquire, pool.release = timed_acquire, timed_release


async def _open(
    stack: AsyncExitStack,
    options: dict[str, Any],
    network: dict[str, Any],
    desk: SupportDesk,
    known: KnownEmbeddings,
    *,
    is_first: bool,
) -> _Worker:
    control = network["control"]
    recorder = Recorder(control and await asyncio.open_connection("127.0.0.1", control))
    worker = _Worker(desk, known, recorder)
    database_url, redis_url = network["database_url"], network["redis_url"]
    if options["implementation"] == STORES:
        settings = Settings(
            database_url=database_url, redis_url=redis_url, vector_index="none", **options["settings"]
        )
        worker.data = await stack.enter_async_context(DataLayer.open(settings, migrate=is_first))
        if is_first:
            await worker.data.config.save_many([desk.agent, *desk.parts])
        _record_holds(worker.data, recorder)
    else:
        # The package of an earlier commit lacks what they import.
        opener = import_module("benchmarks.turn_peers").OPENERS[options["implementation"]]
        other = await stack.enter_async_context(opener(database_url, redis_url, desk))

        async def replay_one(conversation: Conversation) -> None:
            await other.replay(conversation, desk, known, recorder)

        worker.replay = replay_one
    return worker


async def _work(options: dict[str, Any]) -> None:
    conversations, guidelines = read_sample(Path(options["folder"]))
    known = KnownEmbeddings(Settings().embedding_dimensions)
    desk = await build_support_desk(new_id(), guidelines, known)
    workers: dict[str, _Worker] = {}
    async with AsyncExitStack() as stack:
        for name, network in options["networks"].items():
            workers[name] = await _open(stack, options, network, desk, known, is_first=not workers)
        _reply({"package": str(Path(soldier_data.__file__).parent)})
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            chosen = some_of(conversations, request["start"], request["count"])
            _reply(
                await workers[request["network"]].run(
                    chosen, request["at_once"], pause=request["pause"], embed=request["embed"]
                )
            )


def _reply(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


def main() -> None:
    """Answer requests until the end of stdin; reply with an error if something is not installed."""
    try:
        asyncio.run(_work(json.loads(sys.argv[1])))
    except ModuleNotFoundError as missing:
        _reply({"missing": missing.name})


if __name__ == "__main__":
    main()
