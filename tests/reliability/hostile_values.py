"""What no store should be given, and what looks like that but is legal."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.models import new_id
from soldier_data.base.paging import Cursor
from soldier_data.vectors import Embedding
from tests.conftest import DIMENSIONS
from tests.reliability.hostile_texts import MEGABYTE, TEXTS


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    """A document that many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


NUMBERS: list[Any] = [
    0,
    1,
    -1,
    2,
    100,
    101,
    -100,
    -101,
    2**15,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**53 + 1,
    2**63 - 2,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**30,
    -(10**30),
    2**1_999,
    2**2_000,
    10**700,
    10**5_000,
    -(10**5_000),
    sys.maxsize,
    True,
    False,
    0.0,
    -0.0,
    0.5,
    1.0,
    1.5,
    -0.5,
    2.000001,
    1e15,
    1e22,
    1e308,
    -1e308,
    5e-324,
    sys.float_info.epsilon,
    0.1 + 0.2,
    math.nan,
    math.inf,
    -math.inf,
    Decimal(0),
    Decimal("0.1"),
    Decimal("1e-15"),
    Decimal("1e-16"),
    Decimal("1e30"),
    Decimal(-1),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("1e-400"),
    Fraction(1, 3),
    1j,
]
MOMENTS: list[Any] = [
    datetime(2026, 1, 1),  # noqa: DTZ001 - a naive one is what is hostile.
    datetime.min,  # noqa: DTZ901 - as above.
    datetime.max,  # noqa: DTZ901 - as above.
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
    datetime(1, 1, 1, 23, tzinfo=timezone(timedelta(hours=23, minutes=59))),
    datetime(1900, 1, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32))),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-11))),
    datetime(4714, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
    time(12),
    timedelta(0),
    timedelta(microseconds=1),
    timedelta(days=-1),
    timedelta.max,
    timedelta.min,
    timedelta(days=4_000_000),
]
VECTORS: list[Any] = [
    [],
    [0.0] * DIMENSIONS,
    [1.0] * (DIMENSIONS - 1),
    [1.0] * (DIMENSIONS + 1),
    [1.0] * 20_000,
    [math.nan] * DIMENSIONS,
    [1.0] * (DIMENSIONS - 1) + [math.nan],
    [math.inf] + [1.0] * (DIMENSIONS - 1),
    [-math.inf] * DIMENSIONS,
    [1e38] * DIMENSIONS,
    [1e39] * DIMENSIONS,
    [1e308] * DIMENSIONS,
    [1e-30] * DIMENSIONS,
    [5e-324] * DIMENSIONS,
    [-0.0] * DIMENSIONS,
    [10**400] * DIMENSIONS,
    [1] * DIMENSIONS,
    [True] * DIMENSIONS,
    ["1"] * DIMENSIONS,
    [None] * DIMENSIONS,
    [[1.0]] * DIMENSIONS,
    [Decimal(1)] * DIMENSIONS,
    (1.0,) * DIMENSIONS,
    [1j] * DIMENSIONS,
    [-1.0] * DIMENSIONS,
    [1.0, *[0.0] * (DIMENSIONS - 1)],
]


class Stranger:
    """Something of the service's own."""

    def __repr__(self) -> str:
        return "<secret>"


_CYCLE: list[Any] = []
_CYCLE.append(_CYCLE)

DOCUMENTS: list[Any] = [
    {},
    [],
    {"": ""},
    {"a\0": 1},
    {"\ud800": 1},
    {"a": "\0"},
    {"a": ["\udfff"]},
    {"a": math.nan},
    {"a": [math.inf]},
    {"a": {"b": -math.inf}},
    {1: 2},
    {None: 1},
    {True: 1},
    {1.5: 1},
    {(1, 2): 3},
    {b"a": 1},
    {"a": {1: 2}},
    {"a": b"bytes"},
    {"a": {1, 2}},
    {"a": (1, 2)},
    {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    {"a": Decimal(1)},
    {"a": UUID(int=1)},
    {"a": Stranger()},
    {"a": 10**5_000},
    {"a": 2**1_999},
    {"a": 10**25},
    {"a": 1e308, "b": 5e-324, "c": -0.0, "d": 1e22, "e": 1.0},
    {"%s": "%s", "$1": "$1", "'": '"'},
    {"__proto__": 1, "a.b": 2, "a[0]": 3, "$ref": 4},
    {"é": 1, "e\u0301": 2},
    {str(number): number for number in range(5_000)},
    {"a": [0] * 50_000},
    {"a": "x" * MEGABYTE},
    {"k" * MEGABYTE: 1},
    {"a": [True, None, 1, 1.0, "1", [], {}]},
    {"a": Channel.EMAIL},
    nested(99, lambda value: {"a": value}),
    nested(100, lambda value: {"a": value}),
    nested(101, lambda value: {"a": value}),
    nested(990, lambda value: {"a": value}),
    nested(990, lambda value: [value]),
    nested(5_000, lambda value: {"a": value}),
    nested(5_000, lambda value: [value]),
    {"a": nested(5_000, lambda value: [value])},
    {"a": _CYCLE},
    [1, "a", None],
    [[]],
    ["\0"],
    ["a", 5],
    [None],
    [{}],
]
IDS: list[Any] = [
    UUID(int=0),
    UUID(int=2**128 - 1),
    UUID(int=1),
    new_id(),
    "6f4c1a52-3c0e-4d0e-8f0e-000000000000",
    b"\0" * 16,
    Cursor(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=0)),
    Cursor(datetime(2026, 1, 1), UUID(int=0)),  # noqa: DTZ001 - a naive one is what is hostile.
    Cursor(datetime.max.replace(tzinfo=UTC), UUID(int=0)),
]
OBJECTS: list[Any] = [
    None,
    Stranger(),
    Stranger,
    object(),
    b"",
    b"bytes\0",
    bytearray(b"x"),
    memoryview(b"x"),
    set(),
    {1, 2},
    frozenset({"a"}),
    (),
    (1, "a"),
    range(3),
    iter([1, 2]),
    lambda: None,
    print,
    ...,
    NotImplemented,
    Exception("secret"),
    re.compile("a"),
    PurePosixPath("/x"),
    Channel.EMAIL,
    slice(1, 2),
    type,
    sys,
    # An entity where another one is meant.
    Embedding(
        tenant_id=UUID(int=1), content="x", embedding=[1.0] * DIMENSIONS, source_type="x", source_id="x"
    ),
]


VALUES: list[Any] = [
    *TEXTS,
    *NUMBERS,
    *MOMENTS,
    *VECTORS,
    *DOCUMENTS,
    *IDS,
    *OBJECTS,
]
