"""What can be stored: the checks that every store makes before it writes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum
from typing import Any

import pytest

from soldier_data.base.models import Model, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.values import (
    EARLIEST,
    LATEST,
    MAX_INTEGER,
    MAX_JSON_DEPTH,
    check_integer,
    check_json,
    check_revision,
    check_storable,
    check_text,
    moment_before,
)
from soldier_data.errors import ValidationError


class Color(StrEnum):
    RED = "red"


class Inner(Model):
    text: str = ""
    number: int = 0


class Outer(Model):
    text: str | None
    color: Color
    number: int
    moment: datetime | None
    texts: list[str]
    counts: dict[str, int]
    vector: list[float] | None
    inner: Inner | None
    inners: list[Inner]
    by_name: dict[str, Inner]
    document: dict[str, Any]
    anything: Any
    documents: list[dict[str, Any]]


def outer(**fields: Any) -> Outer:
    values: dict[str, Any] = {
        **dict.fromkeys(Outer.model_fields),
        "color": Color.RED,
        "number": 0,
        **{name: [] for name in ("texts", "inners", "documents")},
        **{name: {} for name in ("counts", "by_name", "document")},
        **fields,
    }
    return Outer.model_construct(**values)


GOOD = [
    {},
    {"text": "", "color": Color.RED, "number": MAX_INTEGER, "moment": utcnow()},
    {"text": "\x01\ufffe\uffff😀 \u202e", "number": -MAX_INTEGER},
    {"moment": EARLIEST},
    {"moment": LATEST},
    {"texts": ["", "ä"], "counts": {"ä": 1, "": MAX_INTEGER}, "vector": [0.5, math.nan]},
    {"inner": Inner(text="x"), "inners": [Inner()], "by_name": {"x": Inner()}},
    {"document": {"a": [1, 1.5, True, None, "x", {"b": []}]}, "anything": 2**100, "documents": [{}]},
    {"anything": "text"},
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_every_backend_keeps_is_accepted(fields: dict[str, Any]) -> None:
    check_storable(outer(**fields))


@pytest.mark.parametrize(
    ("fields", "place", "what"),
    [
        ({"text": "a\0"}, "text", "NUL"),
        ({"text": "\ud800"}, "text", "surrogate"),
        ({"texts": ["a", "b\0"]}, "texts[1]", "NUL"),
        ({"counts": {"\0": 1}}, "counts[...]", "NUL"),
        ({"counts": {"a": 2**63}}, "counts[...]", "64 bits"),
        ({"number": 2**63}, "number", "64 bits"),
        ({"number": -(2**63)}, "number", "64 bits"),
        ({"moment": datetime.max.replace(tzinfo=UTC)}, "moment", "end of the calendar"),
        ({"moment": datetime.min.replace(tzinfo=UTC)}, "moment", "end of the calendar"),
        ({"moment": datetime(1900, 1, 1, tzinfo=timezone(timedelta(seconds=1)))}, "moment", "seconds"),
        ({"inner": Inner.model_construct(text="\0", number=0)}, "inner.text", "NUL"),
        ({"inners": [Inner(), Inner.model_construct(text="", number=2**70)]}, "inners[1].number", "64 bits"),
        (
            {"by_name": {"x": Inner.model_construct(text="\ud800", number=0)}},
            "by_name[...].text",
            "surrogate",
        ),
        ({"document": {"a": {"b": "\0"}}}, "document", "NUL"),
        ({"document": {"\udfff": 1}}, "document", "surrogate"),
        ({"document": {1: 1}}, "document", "key that is not text"),
        ({"document": {"a": math.nan}}, "document", "finite"),
        ({"anything": math.inf}, "anything", "finite"),
        ({"anything": (1, 2)}, "anything", "tuple"),
        ({"anything": {1}}, "anything", "set"),
        ({"anything": utcnow()}, "anything", "datetime"),
        ({"anything": Color.RED}, "anything", "Color"),
        ({"anything": Enum("E", "A").A}, "anything", "E"),  # type: ignore[attr-defined]
        ({"anything": 10**700}, "anything", "integer of hundreds of digits"),
        ({"documents": [{}, {"a": b""}]}, "documents", "bytes"),
    ],
)
def test_what_some_backend_would_lose_is_refused_by_place(
    fields: dict[str, Any], place: str, what: str
) -> None:
    with pytest.raises(ValidationError, match=what) as refused:
        check_storable(outer(**fields))
    assert refused.value.field == place
    assert str(refused.value).startswith(f"{place} ")
    assert refused.value.__context__ is None


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]])
def test_nesting_is_limited(wrap: Any) -> None:
    value: Any = None
    for _ in range(MAX_JSON_DEPTH):
        value = wrap(value)
    check_storable(outer(anything=value))
    with pytest.raises(ValidationError, match="deeper than 100 levels"):
        check_storable(outer(anything=wrap(value)))


def test_a_document_that_contains_itself_is_refused() -> None:
    document: dict[str, Any] = {}
    document["itself"] = document
    with pytest.raises(ValidationError, match="deeper"):
        check_storable(outer(document=document))


def test_a_looked_up_text_is_checked() -> None:
    check_text("fine", "name")
    for text in ("\0", "\ud800"):
        with pytest.raises(ValidationError) as refused:
            check_text(text, "name")
        assert refused.value.field == "name"


def test_looked_up_numbers_fit_64_bits() -> None:
    check_integer(MAX_INTEGER, "version")
    check_revision(None)
    check_revision(0)
    check_revision(MAX_INTEGER - 1)
    for value in (-1, MAX_INTEGER):
        with pytest.raises(ValidationError, match="if_revision"):
            check_revision(value)
    for value in (2**63, -(2**63)):
        with pytest.raises(ValidationError, match="version"):
            check_integer(value, "version")


def test_pages_are_neither_negative_nor_beyond_64_bits() -> None:
    check_page(0, 0)
    check_page(2**63 - 1, 2**63 - 1)
    for limit, offset, field in (
        (-1, 0, "limit"),
        (0, -1, "offset"),
        (2**63, 0, "limit"),
        (0, 2**63, "offset"),
    ):
        with pytest.raises(ValidationError) as refused:
            check_page(limit, offset)
        assert refused.value.field == field


def test_an_age_is_subtracted_from_now() -> None:
    before = utcnow()
    assert before <= moment_before(timedelta(0)) <= utcnow()
    assert moment_before(timedelta(days=-1)) > before
    for age in (timedelta.max, timedelta.min):
        with pytest.raises(ValidationError, match="older_than"):
            moment_before(age)


def test_a_json_value_is_refused_by_the_name_of_its_field() -> None:
    check_json({"a": [1, 2.5, None, True, "x"]}, "variables")
    with pytest.raises(ValidationError, match="variables is not a finite number") as caught:
        check_json({"a": [math.nan]}, "variables")
    assert caught.value.field == "variables"
