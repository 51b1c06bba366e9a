"""Type checks for the arguments of store methods."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.values import check_text
from soldier_data.errors import StoreError, ValidationError

_NONE: frozenset[type] = frozenset()


class ChecksArguments:
    """Base class of all stores: public coroutine methods reject arguments that do not match their annotations.

    Without the check, backends would disagree about a wrong type: one finds nothing, another fails inside the driver.
    A parameter annotated with an enum accepts any string, and one that is not a member matches nothing. An iterator
    is passed on as a list.

    Raises (every such method):
        ValidationError: An argument has the wrong type. The message names it and the expected type.
        StoreError: A stored row does not form a valid entity. The message names the fields.
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
    """Check that each field of the dataclass instance `value` has its annotated type.

    Raises:
        ValidationError: Names the field.
    """
    class_: type = type(value)
    for parameter in _fields_of(class_):
        parameter.checked(getattr(value, parameter.name))


@dataclass(frozen=True, slots=True)
class _Parameter:
    """The values that a parameter accepts.

    Attributes:
        name: The parameter's name.
        types: The types that a value may be an instance of.
        is_enum: Whether the parameter is annotated with an enum.
        items: The types that an item of a list may be an instance of; None if the parameter is not a list, and empty
            for lists of numbers, which `check_embedding` checks.
        exact_types: Types whose values are always accepted: a quick test that most arguments pass.
    """

    name: str
    types: tuple[type, ...]
    is_enum: bool
    items: tuple[type, ...] | None
    exact_types: frozenset[type]

    def checked(self, value: Any) -> Any:
        # Strings and dicts are iterable too, but are never meant as a list.
        if not isinstance(value, self.types) or (
            self.items is not None and isinstance(value, str | bytes | dict)
        ):
            raise self._refusal("", value, self.types)
        if self.is_enum and isinstance(value, str):
            # Methods check other strings themselves.
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


class _Signature:
    """The parameters of a method.

    Attributes:
        parameters: In their order, with the keys of `T` in place of `**options: Unpack[T]`.
        exact_types: Their exact types, in the same order.
        takes_options: Whether the method has such `**options`.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        hints = get_type_hints(method)
        self.takes_options = any(get_origin(hint) is Unpack for hint in hints.values())
        self.parameters = [_parameter(name, hint) for name, hint in _arguments_of(method, hints)]
        self.by_name = {parameter.name: parameter for parameter in self.parameters}
        self.exact_types = [parameter.exact_types for parameter in self.parameters]
        self.exact_types_by_name = {parameter.name: parameter.exact_types for parameter in self.parameters}


def _checking(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # Read on the first call: evaluating the annotations of all methods would slow down every import.
    signature: _Signature | None = None

    async def check_and_call(
        known: _Signature, store: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        checked = [parameter.checked(value) for parameter, value in zip(known.parameters, args, strict=False)]
        for name, value in kwargs.items():
            if name in known.by_name:
                kwargs[name] = known.by_name[name].checked(value)
            elif known.takes_options:
                # Python itself accepts any name here.
                raise TypeError(f"{method.__qualname__}() got an unexpected keyword argument {name!r}")
        return await method(store, *checked, *args[len(checked) :], **kwargs)

    # Python itself rejects surplus arguments, and unknown names where there are no `**options`.
    @wraps(method)
    async def checking(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal signature
        if signature is None:
            signature = _Signature(method)
        try:
            for value, types in zip(args, signature.exact_types, strict=False):
                if type(value) not in types:
                    return await check_and_call(signature, self, args, kwargs)
            for name, value in kwargs.items():
                if type(value) not in signature.exact_types_by_name.get(name, _NONE):
                    return await check_and_call(signature, self, args, kwargs)
            return await method(self, *args, **kwargs)
        except PydanticValidationError as error:
            failure = _unreadable(method.__name__, error)
        # Raised outside the except block: Pydantic's error holds values, and must not be chained.
        raise failure

    return checking


def _arguments_of(method: Callable[..., Any], hints: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in inspect.signature(method).parameters:
        if get_origin(hints.get(name)) is Unpack:
            yield from get_type_hints(get_args(hints[name])[0]).items()
        elif name != "self":
            yield name, hints[name]


def _unreadable(method: str, error: PydanticValidationError) -> StoreError:
    """The error for a stored row that does not form a valid entity, such as one edited by hand."""
    fields = ", ".join(sorted({".".join(map(str, detail["loc"])) for detail in error.errors()}))
    return StoreError(
        f"{method}: a stored row is not a valid {error.title}: correct {fields} in the database",
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
            # Like type checkers, accept an integer where a float is expected.
            types += [float, int] if member is float else [origin or member]
        if origin in (Sequence, Iterable, frozenset):
            kinds = _members(get_args(member)[0])
            items = tuple(get_origin(kind) or kind for kind in kinds if kind is not float)
    exact_types = frozenset(types) - {frozenset} - ({str} if is_enum else set())
    return _Parameter(name, tuple(types), is_enum, items, exact_types)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
