"""Where a hostile value can be put: every argument of every method, and every place inside of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias, get_args, get_type_hints
from uuid import UUID

from pydantic import BaseModel

from tests.cases.case import Case, Domain

_DEEPEST = 4

Arguments: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class ValidCall:
    """A call that is right, its arguments by name."""

    method: str
    arguments: Arguments


class _Recorder:
    """Stands in for a store, and keeps what it is called with."""

    def __init__(self, contract: type[Any]) -> None:
        self._contract = contract
        self.calls: list[ValidCall] = []

    def __getattr__(self, method: str) -> Any:
        signature = inspect.signature(getattr(self._contract, method))
        hints = get_type_hints(getattr(self._contract, method))

        async def record(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(None, *args, **kwargs)
            arguments = {name: deepcopy(value) for name, value in bound.arguments.items() if name != "self"}
            # With every option given, so that each is a place.
            for name, parameter in signature.parameters.items():
                if parameter.kind is parameter.VAR_KEYWORD:
                    options = get_type_hints(get_args(hints[name])[0])
                    arguments |= {**dict.fromkeys(options), **arguments.pop(name, {})}
                elif name != "self":
                    arguments.setdefault(name, parameter.default)
            self.calls.append(ValidCall(method, arguments))

        return record


async def valid_calls(domain: Domain[Any, Any], own: Any, tenant_id: UUID) -> list[ValidCall]:
    """The calls of the domain's cases, made by the owner instead of an intruder; one of each shape."""
    found: dict[tuple[str, str], ValidCall] = {}
    for case in domain.cases:
        for call in await _recorded(domain, case, own, tenant_id):
            found.setdefault((call.method, repr([type(value) for value in call.arguments.values()])), call)
    return list(found.values())


async def _recorded(
    domain: Domain[Any, Any], case: Case[Any, Any], own: Any, tenant_id: UUID
) -> list[ValidCall]:
    recorder = _Recorder(domain.contract)
    # Some cases go on with what the store returned, which is nothing here.
    with suppress(AttributeError, TypeError):
        await case.call(recorder, own, tenant_id)
    return [call for call in recorder.calls if call.method == case.method]


Place: TypeAlias = tuple[Any, ...]
"""The way to it: the name of the argument, then names of fields, indexes and keys. The last step may be `KEY`."""

KEY = "(a key)"


def places(arguments: Arguments) -> Iterator[Place]:
    """Every place in the arguments."""
    for name, value in arguments.items():
        yield (name,)
        for place in _inside(value, 1):
            yield (name, *place)


def _inside(value: Any, depth: int) -> Iterator[Place]:
    if depth > _DEEPEST:
        return
    if isinstance(value, BaseModel):
        steps: list[tuple[Any, Any]] = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        steps = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, dict):
        steps = list(value.items())[:1]
        yield (KEY,)
    elif isinstance(value, list | tuple) and value:
        steps = [(0, value[0])]
    else:
        return
    for step, inner in steps:
        yield (step,)
        for place in _inside(inner, depth + 1):
            yield (step, *place)


def with_value(arguments: Arguments, place: Place, value: Any) -> Arguments:
    """The arguments with `value` at that place; all else is as it was, and shares nothing with it.

    Raises:
        ValidationError: A model or a cursor refuses the value.
        TypeError: The value cannot be a key of a dict.
    """
    changed = deepcopy(arguments)
    changed[place[0]] = _with_value(changed[place[0]], place[1:], value)
    return changed


def _with_value(holder: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    step, *rest = place
    if step == KEY:
        return {**holder, value: next(iter(holder.values()), 1)}
    if isinstance(holder, BaseModel):
        changed = _with_value(getattr(holder, step), tuple(rest), value)
        if rest:
            # What is in a list or a dict can be changed without the model's knowledge.
            holder.__dict__[step] = changed
        elif holder.model_config.get("frozen"):
            return type(holder).model_validate({**dict(holder), step: changed})
        else:
            setattr(holder, step, changed)
        return holder
    if is_dataclass(holder):
        assert not isinstance(holder, type)
        return replace(holder, **{step: _with_value(getattr(holder, step), tuple(rest), value)})
    if isinstance(holder, tuple):
        return tuple(_with_value(list(holder), place, value))
    holder[step] = _with_value(holder[step], tuple(rest), value)
    return holder
