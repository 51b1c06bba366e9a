"""Checking the types of what stores are called with, before anything else looks at it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.values import check_text
from soldier_data.errors import StoreError, ValidationError

_NONE: frozenset[type] = frozenset()


class ChecksArguments:
    """Base of every store: its public coroutine methods refuse arguments that are not of their annotated type.

    Python itself does not check them, and each backend would then do something else: one finds nothing, another
    fails inside of the driver. A parameter annotated with an enum takes any text, because a value that the enum does
    not have is a value that nothing stored has. An iterator is passed on as a list.

    Raises (every such method):
        ValidationError: Names the argument, and says what it has to be.
        StoreError: Something stored is not what its entity can hold. Names the fields.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if (
                inspect.iscoroutinefunction(method)
                and not name.startswith("_")
                and not getattr(method, "__isabstractmethod__", False)
            ):
                setattr(cls, name, _checking(method))


def check_fields(value: Any) -> None:
    """Check that each field of a dataclass, which does not do that itself, is of its annotated type.

    Raises:
        ValidationError: Names the field.
    """
    class_: type = type(value)
    for parameter in _fields_of(class_):
        parameter.checked(getattr(value, parameter.name))


@dataclass(frozen=True, slots=True)
class _Parameter:
    """What one parameter takes.

    Attributes:
        name: Of the parameter.
        types: What a value has to be an instance of.
        is_enum: Whether it takes the values of an enum.
        items: What each item of a list has to be an instance of; None if it is no list. Numbers in a list have a check
            of their own, the one of embeddings, and nothing to compare with.
        exact_types: The types of which every value is taken. Most values are of these, and are found so quickest.
    """

    name: str
    types: tuple[type, ...]
    is_enum: bool
    items: tuple[type, ...] | None
    exact_types: frozenset[type]

    def checked(self, value: Any) -> Any:
        # A text or a dict can be gone through like a list, but is never meant for one.
        if not isinstance(value, self.types) or (
            self.items is not None and isinstance(value, str | bytes | dict)
        ):
            raise self._refusal("", value, self.types)
        if self.is_enum and isinstance(value, str):
            # Methods check the other texts themselves.
            check_text(value, self.name)
        if not self.items or not isinstance(value, Iterable):
            return value
        listed = value if isinstance(value, Sequence) else list(value)
        for place, item in enumerate(listed):
            if not isinstance(item, self.items):
                raise self._refusal(f"[{place}]", item, self.items)
        return listed

    def _refusal(self, place: str, value: Any, types: tuple[type, ...]) -> ValidationError:
        expected = " or ".join("None" if type_ is NoneType else type_.__name__ for type_ in types)
        return ValidationError(
            f"{self.name}{place} is of the type {type(value).__name__}: pass {expected}", field=self.name
        )


def _checking(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    hints = get_type_hints(method)
    names = [name for name in inspect.signature(method).parameters if name != "self"]
    parameters = [_parameter(name, hints[name]) for name in names]
    by_name = dict(zip(names, parameters, strict=True))

    exact_types = [parameter.exact_types for parameter in parameters]
    exact_types_by_name = dict(zip(names, exact_types, strict=True))

    async def check_and_call(store: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        checked = [parameter.checked(value) for parameter, value in zip(parameters, args, strict=False)]
        for name, value in kwargs.items():
            kwargs[name] = by_name[name].checked(value) if name in by_name else value
        return await method(store, *checked, *args[len(checked) :], **kwargs)

    # An argument too many, or of another name, is left to Python.
    @wraps(method)
    async def checking(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            for value, types in zip(args, exact_types, strict=False):
                if type(value) not in types:
                    return await check_and_call(self, args, kwargs)
            for name, value in kwargs.items():
                if type(value) not in exact_types_by_name.get(name, _NONE):
                    return await check_and_call(self, args, kwargs)
            return await method(self, *args, **kwargs)
        except PydanticValidationError as error:
            failure = _unreadable(method.__name__, error)
        # Outside of the except block, so that Pydantic's error, which shows values, is not chained.
        raise failure

    return checking


def _unreadable(method: str, error: PydanticValidationError) -> StoreError:
    """The error for something stored that an entity cannot hold: written by another program, or by hand."""
    fields = ", ".join(sorted({".".join(map(str, detail["loc"])) for detail in error.errors()}))
    return StoreError(
        f"{method}: what is stored is not a valid {error.title}: look at {fields} in the database, and correct it",
        cause=error,
    )


@cache
def _fields_of(class_: type) -> list[_Parameter]:
    return [_parameter(name, annotation) for name, annotation in get_type_hints(class_).items()]


def _parameter(name: str, annotation: Any) -> _Parameter:
    types: list[type] = []
    is_enum = False
    items: tuple[type, ...] | None = None
    for member in _members(annotation):
        origin = get_origin(member)
        if origin is Literal or (isinstance(member, type) and issubclass(member, StrEnum)):
            types.append(str)
            is_enum = True
        else:
            # An integer is taken for a float, as type checkers do.
            types += [float, int] if member is float else [origin or member]
        if origin in (Sequence, Iterable, frozenset):
            kinds = _members(get_args(member)[0])
            items = tuple(get_origin(kind) or kind for kind in kinds if kind is not float)
    exact_types = frozenset(types) - {frozenset} - ({str} if is_enum else set())
    return _Parameter(name, tuple(types), is_enum, items, exact_types)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
