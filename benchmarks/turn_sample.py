"""Conversations of the demo for `turn`, and a recorder of their turns.

This must also run with the package of an earlier commit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from soldier_data.demo import dataset
from soldier_data.demo.models import Conversation, Guideline
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.hashing import HashingEmbeddingProvider


def read_sample(folder: Path) -> tuple[list[Conversation], list[Guideline]]:
    """Return the conversations and guidelines in `folder`, or the packaged ones if it has none."""
    conversations, guidelines = folder / "conversations.jsonl.gz", folder / "guidelines.json.gz"
    if not conversations.exists():
        return list(dataset.read_conversations()), list(dataset.read_guidelines().values())
    return (
        list(dataset.read_conversations(conversations)),
        list(dataset.read_guidelines(guidelines).values()),
    )


def some_of(conversations: Sequence[Conversation], start: int, count: int) -> list[Conversation]:
    """Return `count` conversations from number `start` on; those after the last are the first, of other customers."""

    found = []
    for number in range(start, start + count):
        again, place = divmod(number, len(conversations))
        conversation, customer = conversations[place], conversations[place].customer
        if again:
            customer = customer | {"worker_id": f"{conversation.customer_key or conversation.id}, {again}"}
        found.append(conversation.model_copy(update={"customer": customer}))
    return found


class KnownEmbeddings(EmbeddingProvider):
    """Embeddings that were made before: a turn does not wait for them, as their cost is the same for everyone."""

    def __init__(self, dimensions: int) -> None:
        self._provider = HashingEmbeddingProvider(dimensions)
        self._known: dict[str, list[float]] = {}

    @property
    def dimensions(self) -> int:
        return self._provider.dimensions

    @property
    def model_id(self) -> str:
        return self._provider.model_id

    async def embed(self, text: str) -> list[float]:
        return (await self.embed_batch([text]))[0]

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        for text in texts:
            if text not in self._known:
                self._known[text] = await self._provider.embed(text)
        return [self._known[text] for text in texts]

    async def learn(self, conversations: Iterable[Conversation]) -> None:
        """Make the embeddings of all that is said."""
        for conversation in conversations:
            await self.embed_batch([turn.text for turn in conversation.turns if turn.text.strip()])
            for exchange in conversation.exchanges():
                if exchange.customer_text:
                    await self.embed(exchange.customer_text)


@dataclass
class Turn:
    """Figures of one turn.

    Attributes:
        number: Number of the turn in its conversation, from 1.
        seconds: Duration.
        trips: Round trips to PostgreSQL and Redis; empty if they were not counted.
        longest_hold: Longest time between acquiring and releasing a connection, in seconds.
        held: Sum of these times.
    """

    number: int
    seconds: float
    trips: list[int] = field(default_factory=list)
    longest_hold: float = 0.0
    held: float = 0.0


class Recorder:
    """Records turns.

    Args:
        control: Connection to the control port of the network, which counts round trips.

    Attributes:
        turns: The turns.
        holds: Times between acquiring and releasing a connection in this turn, in seconds.
        counting: Whether to count the round trips of turns, which only works for one at a time.
    """

    def __init__(self, control: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
        self.turns: list[Turn] = []
        self.holds: list[float] = []
        self.counting = False
        self._control = control

    async def count_trips(self) -> list[int]:
        """Return the round trips to each server so far, or nothing."""
        if self._control is None or not self.counting:
            return []
        reader, writer = self._control
        writer.write(b"\n")
        counts: list[int] = json.loads(await reader.readline())
        return counts

    @asynccontextmanager
    async def turn(self, number: int) -> AsyncIterator[None]:
        """Record the block as a turn."""
        before = await self.count_trips()
        self.holds.clear()
        started = perf_counter()
        yield
        seconds = perf_counter() - started
        trips = [now - then for now, then in zip(await self.count_trips(), before, strict=True)]
        self.turns.append(Turn(number, seconds, trips, max(self.holds, default=0.0), sum(self.holds)))
