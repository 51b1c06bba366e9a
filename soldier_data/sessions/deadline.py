"""A cheap deadline."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Ends what runs inside ``with Deadline(seconds):`` when the time is up, by a `TimeoutError`.

    It does what `asyncio.timeout` does, which takes a fifth of the time of a whole save: that can be moved and
    asked about while it runs, and none of it is needed here.
    """

    __slots__ = ("_cancellations", "_expired", "_handle", "_task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None, "a deadline can only end a task"
        self._task = task
        # Others may have asked the task to end already; the count tells their wish from ours.
        self._cancellations = task.cancelling()
        self._expired = False
        self._handle = task.get_loop().call_later(seconds, self._expire)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # The cancellation was ours unless somebody else asked as well: theirs must not be swallowed.
        ours = self._expired and self._task.uncancel() <= self._cancellations
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
