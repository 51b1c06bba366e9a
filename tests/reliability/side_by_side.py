"""A state machine that does the same at random to two backends of a store, and compares what comes back.

What is done are `Call`s, drawn from the strategies in tests/reliability/operations. They name tenants and other ids
that have to be new in each run by small stand-ins. Each side puts its own ids in their place and, in what comes back,
the stand-ins in the place of those; ids and moments that a store made itself become alike in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pydantic import BaseModel

from soldier_data.base.subjects import DataSubject
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreError, ValidationError
from soldier_data.unit_of_work import UnitOfWork

T = TypeVar("T")

TENANTS = [UUID(int=1), UUID(int=2)]

MADE = [UUID(int=1000 + number) for number in range(1000)]
"""Stand-ins for the ids that a store makes, in the order in which they come out of it."""

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""Tests use moments before it. Later ones are of the run itself."""


@dataclass(frozen=True)
class Call:
    """One call of a method of a store."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"<{self.method}({', '.join([*map(repr, self.arguments), *options])})>"


class Calls(NamedTuple):
    """Calls of one method."""

    method: str
    drawn: st.SearchStrategy[Call]


def call(method: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]) -> Calls:
    """Calls of a method with arguments drawn from these strategies."""
    drawn = st.builds(Call, st.just(method), st.tuples(*arguments), st.fixed_dictionaries(options))
    return Calls(method, drawn)


@dataclass(frozen=True)
class Operations:
    """What is done to one store.

    Attributes:
        store: The attribute of the data layer that holds it.
        contract: The abstract class.
        first: What each run begins with, so that there is something to meet.
        reads: Calls that change nothing.
        writes: The other ones.
        run_ids: Stand-ins that are new in each run, beside the tenants.
        has_units: Whether the store takes part in units of work.
    """

    store: str
    contract: type[Any]
    first: list[Calls]
    reads: list[Calls]
    writes: list[Calls]
    run_ids: tuple[UUID, ...] = ()
    has_units: bool = True


class Side:
    """One of the two backends."""

    def __init__(self, layer: DataLayer, store: str, actual: dict[UUID, UUID]) -> None:
        self._layer = layer
        self._store = store
        self._actual = dict(actual)
        self._stand_ins = {actual_id: stand_in for stand_in, actual_id in actual.items()}
        self._unit: UnitOfWork | None = None
        self._block: AbstractAsyncContextManager[UnitOfWork] | None = None

    async def do(self, call: Call, *, beside_unit: bool = False) -> Any:
        """Make the call; returns its outcome, and what it made of its arguments."""
        holder = self._layer if self._unit is None or beside_unit else self._unit
        arguments, options = deepcopy(_mapped((call.arguments, call.options), self._actual))
        outcome: Any
        try:
            outcome = await getattr(getattr(holder, self._store), call.method)(*arguments, **options)
        except ValidationError as error:
            outcome = (type(error), error.field)
        except StoreError as error:
            outcome = type(error)
        return self._comparable((outcome, arguments))

    async def begin(self) -> None:
        """Begin a unit of work."""
        self._block = self._layer.unit_of_work()
        self._unit = await self._block.__aenter__()

    async def flush(self) -> Any:
        """Send what the unit has collected; returns the class of the error."""
        assert self._unit is not None
        return await _error_of(self._unit.flush())

    async def end(self, *, commit: bool) -> Any:
        """End it; returns the class of the error of what it had collected."""
        assert self._block is not None
        assert self._unit is not None
        if not commit:
            await self._unit.rollback()
        self._unit, block = None, self._block
        return await _error_of(block.__aexit__(None, None, None))

    async def abandon(self) -> None:
        """Leave it by an exception, if there is one."""
        if self._block is not None and self._unit is not None:
            self._unit = None
            # As `async with` takes it: False means that the exception is passed on.
            try:
                await self._block.__aexit__(_Left, _Left(), None)
            except _Left:
                return

    def _comparable(self, value: Any) -> Any:
        if isinstance(value, DataSubject):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        elif isinstance(value, frozenset):
            value = sorted(value, key=str)
        match value:
            case UUID():
                if value not in self._stand_ins and value.int > MADE[-1].int:
                    made = MADE[sum(stand_in in self._actual for stand_in in MADE)]
                    self._stand_ins[value], self._actual[made] = made, value
                return str(self._stand_ins.get(value, value))
            case datetime():
                return "now" if value > _NOW else value
            case float():
                # The one computes with float64, the other with float32.
                return round(value, 5)
            case Decimal():
                return f"{value.normalize():f}"
            case BaseModel():
                return (type(value).__name__, self._comparable(dict(value)))
            case dict():
                return {key: self._comparable(value[key]) for key in sorted(value)}
            case list() | tuple():
                return [self._comparable(item) for item in value]
        return value


async def _error_of(call: Awaitable[object]) -> Any:
    try:
        await call
    except StoreError as error:
        return type(error), len(getattr(error, "__notes__", ()))
    return None


class _Left(Exception):  # noqa: N818 - what a block is left by.
    pass


def _mapped(value: Any, table: dict[UUID, UUID]) -> Any:
    """`value` with the ids in it replaced."""
    if isinstance(value, UUID):
        return table.get(value, value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _mapped(held, table) for name, held in value})
    if isinstance(value, dict):
        return {key: _mapped(held, table) for key, held in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return type(value)(_mapped(item, table) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _mapped(getattr(value, field.name), table) for field in fields(value)}
        return replace(value, **changed)
    return value


def machine_for(
    operations: Operations, layers: Callable[[], tuple[DataLayer, DataLayer]], runner: asyncio.Runner
) -> type[RuleBasedStateMachine]:
    """The state machine that does `operations` to the stores of two data layers, which `layers` returns."""
    every_first = st.tuples(*[calls.drawn for calls in operations.first])
    # Several at once: what Hypothesis itself does for each step takes longer than a call.
    some_reads = st.lists(st.one_of([calls.drawn for calls in operations.reads]), min_size=1, max_size=4)
    some_writes = st.lists(st.one_of([calls.drawn for calls in operations.writes]), min_size=1, max_size=4)

    # Hypothesis writes out the strategies of a rule, which takes long if they are not hidden behind short names.
    @st.composite
    def first(draw: st.DrawFn) -> tuple[Call, ...]:
        return draw(every_first)

    @st.composite
    def reads(draw: st.DrawFn) -> list[Call]:
        return draw(some_reads)

    @st.composite
    def writes(draw: st.DrawFn) -> list[Call]:
        return draw(some_writes)

    class SideBySide(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            actual = {stand_in: uuid4() for stand_in in (*TENANTS, *operations.run_ids)}
            self.sides = [Side(layer, operations.store, actual) for layer in layers()]
            self.in_unit = False

        def both(self, work: Callable[[Side], Awaitable[T]]) -> list[T]:
            async def one_after_the_other() -> list[T]:
                return [await work(side) for side in self.sides]

            return runner.run(one_after_the_other())

        def compare(self, calls: Sequence[Call], *, beside_unit: bool = False) -> None:
            for call in calls:
                in_memory, real = self.both(lambda side, call=call: side.do(call, beside_unit=beside_unit))  # type: ignore[misc]
                # By their texts, in which 1, 1.0 and True differ.
                assert repr(in_memory) == repr(real), call

        @initialize(calls=first())
        def begin(self, calls: Sequence[Call]) -> None:
            self.compare(calls)

        @rule(calls=writes())
        def write(self, calls: Sequence[Call]) -> None:
            self.compare(calls)

        @rule(calls=reads())
        def read(self, calls: Sequence[Call]) -> None:
            self.compare(calls)

        @precondition(lambda self: operations.has_units and not self.in_unit)
        @rule()
        def begin_unit(self) -> None:
            self.both(lambda side: side.begin())
            self.in_unit = True

        @precondition(lambda self: self.in_unit)
        @rule(calls=reads())
        def read_beside_unit(self, calls: Sequence[Call]) -> None:
            self.compare(calls, beside_unit=True)

        @precondition(lambda self: self.in_unit)
        @rule()
        def flush(self) -> None:
            self.both(lambda side: side.flush())

        @precondition(lambda self: self.in_unit)
        @rule(commit=st.booleans())
        def end_unit(self, commit: bool) -> None:
            self.both(lambda side: side.end(commit=commit))
            self.in_unit = False

        def teardown(self) -> None:
            self.both(lambda side: side.abandon())

    SideBySide.__qualname__ = f"SideBySide[{operations.store}]"
    return SideBySide
