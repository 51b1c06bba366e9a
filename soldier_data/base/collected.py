"""Writes that a unit of work collects, to make them later and together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soldier_data.errors import StoreError

MOST_COLLECTED = 100
"""Number of entities of one call that are collected. More are written at once, because COPY is quicker for many."""


def raise_first(errors: Sequence[StoreError]) -> None:
    """Raise the first of the errors of collected writes, if any, with notes that name the others."""
    if errors:
        first, *others = errors
        for other in others:
            first.add_note(f"Another write of the unit of work was rejected too: {other}")
        raise first


class CollectedInMemory:
    """The collected writes of the in-memory stores of one unit of work."""

    def __init__(self) -> None:
        self._writes: list[tuple[object, Callable[[], object]]] = []

    def add(self, owner: object, write: Callable[[], object]) -> None:
        """Keep a write of the store `owner` for later."""
        self._writes.append((owner, write))

    def flush_for(self, owner: object) -> None:
        """Make all collected writes, if one of them is of the store `owner`: it is about to be used."""
        if any(each is owner for each, _ in self._writes):
            self.flush()

    def flush(self) -> None:
        """Make all collected writes.

        Raises:
            StoreError: A write was rejected; the others have taken effect.
        """
        writes, self._writes = self._writes, []
        errors: list[StoreError] = []
        for _, write in writes:
            try:
                write()
            except StoreError as error:
                errors.append(error)
        raise_first(errors)

    def clear(self) -> None:
        """Discard the collected writes."""
        self._writes.clear()
