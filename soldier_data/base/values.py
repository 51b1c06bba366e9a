"""What can be stored: one policy for text, numbers and JSON, the same on every backend.

PostgreSQL keeps neither the character NUL nor half of a surrogate pair in its text, JSON has no NaN and no
infinity, and a document nested too deep can be written but not be parsed again. All of these are refused on the
way in, by every store alike, so that whatever was accepted comes back as it was. So is what an entity's fields do not
take, and what its class adds to them: `model_copy` and derived classes get around the validation of assignments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.models import Model, utcnow
from soldier_data.errors import ValidationError

MAX_JSON_DEPTH = 100
"""Levels of nesting that a JSON value may have."""

MAX_INTEGER = 2**63 - 1
"""Largest integer outside of JSON values: the width of PostgreSQL's bigint."""

MAX_JSON_INTEGER_BITS = 2_000
"""Size of integers in JSON values. Python converts those of more than 640 digits only if it is set to."""

MAX_KEY_BYTES = 2_000
"""Longest text in an index. A B-tree index of PostgreSQL takes rows of 2,700 bytes."""

# The drivers take datetime.min and datetime.max for infinity, and a day is left for the time zone.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Range of datetimes."""

_MINUTE = timedelta(minutes=1)


def check_storable(entity: BaseModel) -> None:
    """Check every text, number and JSON value of `entity`, its parts included, and that its fields take them.

    Raises:
        ValidationError: Names the field (and the place inside it) and says what is wrong, never the value.
    """
    if fault := _fault_of(_check_model, entity):
        raise fault.as_error()


def check_containers(entity: BaseModel) -> None:
    """Check the types and keys in the lists and dicts of `entity`, except free JSON.

    Raises:
        ValidationError: Names the field. Also raised for a field that a derived class adds, which would be lost.
    """
    if fault := _fault_of(_check_containers, entity):
        raise fault.as_error()


def check_text(value: str, field: str) -> None:
    """Check one text, such as a search term or a name to look up.

    Raises:
        ValidationError: It holds a NUL character or half of a surrogate pair.
    """
    if fault := _fault_of(_check_string, value):
        raise fault.as_error(field)


def check_key(value: str, field: str, *, most_bytes: int = MAX_KEY_BYTES) -> None:
    """Check one text that rows are looked up by.

    Raises:
        ValidationError: It cannot be stored, or is longer than `most_bytes` in UTF-8, too long for an index.
    """
    check_text(value, field)
    if len(value.encode()) > most_bytes:
        raise ValidationError(
            f"{field} is longer than {most_bytes} bytes, too long for an index: shorten it", field=field
        )


def check_json(value: Any, field: str) -> None:
    """Check one JSON value that an entity keeps in `field`.

    Raises:
        ValidationError: It cannot be stored, or could not be read again.
    """
    if fault := _fault_of(_check_json, value):
        raise fault.as_error(field)


def check_integer(value: int, field: str, *, least: int = -MAX_INTEGER) -> None:
    """Check one integer that a row is looked up by.

    Raises:
        ValidationError: It is less than `least`, or does not fit 64 bits.
    """
    if not least <= value <= MAX_INTEGER:
        raise ValidationError(f"{field} is outside of {least} to 2^63 - 1", field=field)


def check_moment(value: datetime, field: str) -> None:
    """Check one moment that a list begins or ends at.

    Raises:
        ValidationError: It has no time zone, or lies at the very end of the calendar.
    """
    if value.utcoffset() is None:
        raise ValidationError(f"{field} has no time zone: use an aware datetime", field=field)
    if not EARLIEST <= value <= LATEST:
        raise ValidationError(
            f"{field} is at the very end of the calendar: leave it out to have no limit", field=field
        )


def check_revision(revision: int | None, field: str = "if_revision") -> None:
    """Check the revision that a conditional write expects.

    Raises:
        ValidationError: It is negative or does not fit 64 bits.
    """
    if revision is not None and not 0 <= revision < MAX_INTEGER:
        raise ValidationError(
            f"{field} is outside of 0 (not stored yet) to 2^63 - 2: pass the entity's revision", field=field
        )


def moment_before(older_than: timedelta) -> datetime:
    """The moment that lies `older_than` ago.

    Raises:
        ValidationError: No calendar has it.
    """
    try:
        return utcnow() - older_than
    except OverflowError:
        raise ValidationError(
            "older_than reaches beyond the calendar: pass a shorter time", field="older_than"
        ) from None


class _Fault(Exception):  # noqa: N818 - never leaves this module.
    """A value that cannot be stored. Its text never holds the value.

    Attributes:
        place: The path to the value, from the inside out: each caller adds its part as the calls unwind.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.place: list[str] = []

    def as_error(self, field: str = "") -> ValidationError:
        """The error for callers of the package."""
        place = (field + "".join(reversed(self.place))).removeprefix(".")
        return ValidationError(f"{place} {self}", field=place)


def _fault_of(check: Callable[[Any], None], value: Any) -> _Fault | None:
    """Run `check`, and return its fault to be raised outside of any except block.

    What is raised inside one has the handled exception for its context, and that of an encoder or of Pydantic holds
    the value.
    """
    try:
        check(value)
    except _Fault as fault:
        return fault
    return None


def _check_model(model: BaseModel) -> None:
    _check_names(model)
    json_fields = _json_fields(type(model))
    values = model.__dict__
    for name in json_fields & values.keys():
        _check_field(name, _check_json, values[name])
    _check_types(model)
    for name, value in values.items():
        # Most values are of these types, and this runs for each value of each save.
        if type(value) not in _ALWAYS_STORABLE and name not in json_fields:
            _check_field(name, _check_value, value)


def _check_containers(model: BaseModel) -> None:
    _check_names(model)
    for name, type_ in _item_types(type(model)).items():
        _check_field(name, partial(_check_items, type_=type_), getattr(model, name))


def _check_field(name: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except _Fault as fault:
        fault.place.append(f".{name}")
        raise


def _check_names(model: BaseModel) -> None:
    """Check that `model` holds nothing beside the fields of the entity that it is, which would be lost."""
    known = _entity_class(type(model)).model_fields.keys()
    if model.__dict__.keys() <= known and not model.__pydantic_extra__:
        return
    for name in [*model.__dict__, *(model.__pydantic_extra__ or ())]:
        if name not in known and not isinstance(getattr(type(model), name, None), cached_property):
            fault = _Fault(
                "is no field that is stored, and would be lost: leave it out, or keep it elsewhere"
            )
            fault.place.append(f".{name}")
            raise fault


@cache
def _entity_class(class_: type[BaseModel]) -> type[BaseModel]:
    """The entity of this package, or part of one, that `class_` is derived from; `class_` itself if there is none."""
    package = __name__.partition(".")[0]
    for each in class_.__mro__:
        if each.__module__.partition(".")[0] == package and each.__module__ != Model.__module__:
            return each
    return class_


def _check_types(model: BaseModel) -> None:
    """Check that the fields of `model` accept their values as they are, without conversion."""
    class_ = _entity_class(type(model))
    values = {name: value for name, value in model.__dict__.items() if name in class_.model_fields}
    for name in _embeddings(class_):
        # These are long, and have a check of their own.
        values[name] = None
    try:
        class_.__pydantic_validator__.validate_python(values, strict=True)
    except PydanticValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    else:
        return
    message = found["msg"]
    fault = _Fault(f"cannot hold what it was given: {message[:1].lower()}{message[1:]}")
    fault.place.append(f".{found['loc'][0]}")
    raise fault


def _check_items(container: Any, type_: type) -> None:
    """Check what a list or dict holds: it can be changed without validation."""
    in_dict = isinstance(container, dict)
    if in_dict:
        for key in container:
            try:
                _check_json_key(key)
            except _Fault as fault:
                fault.place.append("[...]")
                raise
    for item in container.values() if in_dict else container:
        if type(item) is type_:
            continue
        if isinstance(item, type_) and isinstance(item, BaseModel):
            _check_names(item)
        elif not isinstance(item, type_):
            raise _Fault(f"holds something of the type {type(item).__name__}: use {type_.__name__}")


_ALWAYS_STORABLE = frozenset({type(None), bool, UUID})


def _check_value(value: Any) -> None:
    """Check a value of the right type."""
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, BaseModel):
        _check_model(value)
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise _Fault("does not fit 64 bits: use a smaller number")
    elif isinstance(value, datetime):
        _check_datetime(value)
    elif isinstance(value, list):
        # Embeddings are long and have a check of their own.
        if value and isinstance(value[0], float):
            return
        for index, nested in enumerate(value):
            try:
                _check_value(nested)
            except _Fault as fault:
                fault.place.append(f"[{index}]")
                raise
    elif isinstance(value, dict):
        for key, nested in value.items():
            try:
                _check_string(key)
                _check_value(nested)
            except _Fault as fault:
                fault.place.append("[...]")
                raise


def _check_json(value: Any, depth: int = 0) -> None:
    kind = type(value)
    if kind is str:
        _check_string(value)
    elif kind is float:
        if not math.isfinite(value):
            raise _Fault("is not a finite number: JSON has no NaN and no infinity")
    elif kind is dict or kind is list:
        if depth >= MAX_JSON_DEPTH:
            raise _Fault(
                f"is nested deeper than {MAX_JSON_DEPTH} levels and could not be read again: flatten it"
            )
        if kind is list:
            for nested in value:
                _check_json(nested, depth + 1)
            return
        for key, nested in value.items():
            _check_json_key(key)
            _check_json(nested, depth + 1)
    elif kind is int:
        if value.bit_length() > MAX_JSON_INTEGER_BITS:
            raise _Fault("holds an integer of hundreds of digits, which could not be read again: use text")
    elif value is not None and kind is not bool:
        raise _Fault(
            f"holds a {kind.__name__}, which JSON does not know: convert it to text, a number, a list or a dict"
        )


def _check_json_key(key: Any) -> None:
    if type(key) is not str:
        raise _Fault("has a key that is not text, which JSON does not know: use text for keys")
    _check_string(key)


def _check_datetime(value: datetime) -> None:
    if value.tzinfo is None:
        raise _Fault("has no time zone: use an aware datetime")
    if not EARLIEST <= value <= LATEST:
        raise _Fault(
            "is at the very end of the calendar, where time zones lead out of it: use None for never"
        )
    offset = value.utcoffset()
    if offset and offset % _MINUTE:
        # Local mean times, as zones had them before railways.
        raise _Fault("has a time zone offset with seconds, which JSON cannot hold: convert it to UTC")


def _check_string(value: str) -> None:
    if "\x00" in value:
        raise _Fault("holds a NUL character (U+0000), which cannot be stored: remove it")
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        unpaired = True
    else:
        unpaired = False
    if unpaired:
        raise _Fault("holds half of a surrogate pair, which is no character and cannot be stored: remove it")


@cache
def _json_fields(model: type[BaseModel]) -> frozenset[str]:
    """The fields of `model` that are annotated with `Any` somewhere: free JSON."""
    return frozenset(name for name, field in model.model_fields.items() if _mentions_any(field.annotation))


@cache
def _item_types(model: type[BaseModel]) -> dict[str, type]:
    """What the lists and dicts of `model` hold. Free JSON and embeddings have checks of their own."""
    found = {}
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) in (list, dict) and not _mentions_any(field.annotation):
            item = get_args(field.annotation)[-1]
            # The only annotated ones are datetimes in UTC.
            found[name] = datetime if get_origin(item) is Annotated else item
    return found


@cache
def _embeddings(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.annotation == list[float] | None]


def _mentions_any(annotation: Any) -> bool:
    return annotation is Any or any(_mentions_any(argument) for argument in get_args(annotation))
