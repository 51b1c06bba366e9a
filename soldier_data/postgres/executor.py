"""The interface that stores run their statements on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.settings import Settings

if TYPE_CHECKING:
    from soldier_data.postgres.collecting import CollectedWrite
    from soldier_data.postgres.transaction import Transaction

T = TypeVar("T")


class Executor(Protocol):
    """A `Database`, where each call commits by itself, or a `Transaction`, where calls commit together."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, or None."""

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, and return the rows of all results. All take effect or none."""

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """Like `fetch_one`, for a statement that may violate a unique index: a transaction remains usable."""

    async def collect(self, write: CollectedWrite) -> None:
        """Make a write that nothing waits for: at once, or later if in a unit of work."""

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], operation: str) -> T:
        """Run `work` so that all of it takes effect or nothing."""
