"""Arguments of a wrong type are refused by name, before the method sees them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

import pytest

from soldier_data.base.arguments import ChecksArguments, check_fields
from soldier_data.errors import ValidationError

ID = UUID(int=1)


class Colour(StrEnum):
    RED = "red"


class Options(TypedDict, total=False):
    size: int | None
    tags: Sequence[str]


class Store(ChecksArguments):
    """Returns what it was called with."""

    async def get(
        self, tenant_id: UUID, key: UUID | str, *, limit: int = 3, score: float | None = None
    ) -> Any:
        return tenant_id, key, limit, score

    async def paint(self, colour: Colour, *, kind: Literal["a", "b"] | None = None) -> Any:
        return colour, kind

    async def draw(self, colour: Colour, **options: Unpack[Options]) -> Any:
        return colour, options

    async def add(self, ids: Iterable[UUID | str], vector: Sequence[float] = ()) -> Any:
        return ids, vector


@dataclass(frozen=True)
class Position:
    """A value that checks itself."""

    at: int
    ids: frozenset[UUID] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)


async def test_what_is_right_arrives_as_it_was() -> None:
    store = Store()
    assert await store.get(ID, "key") == (ID, "key", 3, None)
    assert await store.get(ID, key=ID, limit=True, score=1) == (ID, ID, True, 1)
    assert await store.paint(Colour.RED, kind="b") == (Colour.RED, "b")
    assert await store.draw(Colour.RED, size=None, tags=["x"]) == (Colour.RED, {"size": None, "tags": ["x"]})
    listed: list[UUID | str] = [ID, "x"]
    assert (await store.add(listed))[0] is listed
    assert await store.add((each for each in listed), vector=[0.5]) == (listed, [0.5])
    assert await store.add({ID}) == ([ID], ())


async def test_a_text_that_is_no_value_of_the_enum_is_taken() -> None:
    assert await Store().paint("green", kind="c") == ("green", "c")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "arguments", "field"),
    [
        ("get", ("1", "key"), "tenant_id"),
        ("get", (ID, 5), "key"),
        ("get", (ID, None), "key"),
        ("paint", (5,), "colour"),
        ("paint", ("\0",), "colour"),
        ("paint", ("\ud800",), "colour"),
        ("add", ("text",), "ids"),
        ("add", (b"bytes",), "ids"),
        ("add", ({ID: 1},), "ids"),
        ("add", (5,), "ids"),
        ("add", ([ID, 5],), "ids"),
        ("add", (iter([ID, None]),), "ids"),
        ("add", ([], "text"), "vector"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_refused_by_name(
    method: str, arguments: tuple[Any, ...], field: str
) -> None:
    with pytest.raises(ValidationError, match=f"^{field}") as refused:
        await getattr(Store(), method)(*arguments)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "options", [{"limit": "3"}, {"limit": 1.5}, {"score": "1"}, {"limit": None}], ids=str
)
async def test_so_is_one_that_is_passed_by_its_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        await Store().get(ID, "key", **options)
    assert refused.value.field in options


@pytest.mark.parametrize("options", [{"size": "x"}, {"tags": [5]}], ids=str)
async def test_so_is_one_of_the_options_of_a_typed_dict(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        await Store().draw(Colour.RED, **options)
    assert refused.value.field in options


async def test_the_message_never_holds_the_value() -> None:
    with pytest.raises(ValidationError) as refused:
        await Store().get("canary", "key")  # type: ignore[arg-type]
    assert str(refused.value) == "tenant_id is of the type str: pass UUID"


async def test_one_too_many_is_left_to_python() -> None:
    with pytest.raises(TypeError, match="positional"):
        await Store().add([], [], 5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        await Store().add([], other=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        await Store().draw(Colour.RED, other=5)  # type: ignore[call-arg]


def test_a_dataclass_checks_its_fields() -> None:
    assert Position(1, frozenset({ID})).at == 1
    for wrong, field in (
        ({"at": "1"}, "at"),
        ({"at": 1, "ids": frozenset({1})}, "ids"),
        ({"at": 1, "ids": ID}, "ids"),
    ):
        with pytest.raises(ValidationError) as refused:
            Position(**wrong)
        assert refused.value.field == field


def test_a_checked_method_looks_like_itself() -> None:
    assert inspect.iscoroutinefunction(Store.get)
    assert list(inspect.signature(Store.get).parameters) == ["self", "tenant_id", "key", "limit", "score"]
