"""Validation of text, numbers and JSON before they are stored, the same for every backend.

PostgreSQL text cannot contain the character NUL or an unpaired surrogate, JSON has no NaN or infinity, and a document
that is nested too deeply can be written but not parsed again. All stores reject these values, so that everything they
accept is read back unchanged. They also reject values that do not fit the type of a field, and fields added by derived
classes: `model_copy` and mutable containers bypass Pydantic's validation on assignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.model_fields import (
    embedding_fields,
    entity_class,
    field_names,
    item_types,
    json_fields,
)
from soldier_data.base.models import utcnow
from soldier_data.errors import ValidationError

MAX_JSON_DEPTH = 100
"""Maximum nesting depth of JSON values."""

MAX_INTEGER = 2**63 - 1
"""Largest integer outside of JSON values: that of PostgreSQL's bigint."""

MAX_JSON_INTEGER_BITS = 2_000
"""Maximum size of integers in JSON values. Python may refuse to parse integers of more than 640 digits."""

MAX_KEY_BYTES = 2_000
"""Maximum length of indexed text in UTF-8. An entry of a PostgreSQL B-tree has at most 2,704 bytes."""

# asyncpg converts datetime.min and datetime.max to infinity. A day remains for time zone offsets.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Range of datetimes that can be stored."""

_MINUTE = timedelta(minutes=1)


def check_storable(entity: BaseModel) -> None:
    """Check all values of `entity` and of the models nested in it.

    Raises:
        ValidationError: A value cannot be stored. The message names the field, never the value.
    """
    if fault := _fault_of(_check_model, entity):
        raise fault.as_error()


def check_containers(entity: BaseModel) -> None:
    """Check the types of the items and keys in the lists and dicts of `entity`, except those of JSON fields.

    Raises:
        ValidationError: An item or a key has the wrong type, or a derived class adds a field, which would be lost.
    """
    if fault := _fault_of(_check_containers, entity):
        raise fault.as_error()


def check_text(value: str, field: str) -> None:
    """Check a string, such as a search term or a name to look up.

    Raises:
        ValidationError: It contains a NUL character or an unpaired surrogate.
    """
    if fault := _fault_of(_check_string, value):
        raise fault.as_error(field)


def check_key(value: str, field: str, *, most_bytes: int = MAX_KEY_BYTES) -> None:
    """Check a string that is stored in an index.

    Raises:
        ValidationError: It cannot be stored, or is longer than `most_bytes` in UTF-8.
    """
    check_text(value, field)
    if len(value.encode()) > most_bytes:
        raise ValidationError(
            f"{field} is longer than {most_bytes} bytes, too long for an index: shorten it", field=field
        )


def check_json(value: Any, field: str) -> None:
    """Check the JSON value of `field`.

    Raises:
        ValidationError: It cannot be stored, or could not be read back.
    """
    if fault := _fault_of(_check_json, value):
        raise fault.as_error(field)


def check_integer(value: int, field: str, *, least: int = -MAX_INTEGER) -> None:
    """Check an integer argument.

    Raises:
        ValidationError: It is less than `least`, or does not fit 64 bits.
    """
    if not least <= value <= MAX_INTEGER:
        raise ValidationError(f"{field} is outside of {least} to 2^63 - 1", field=field)


def check_moment(value: datetime, field: str) -> None:
    """Check a datetime argument, such as the start of a range.

    Raises:
        ValidationError: It has no time zone, or is outside of `EARLIEST` to `LATEST`.
    """
    if value.utcoffset() is None:
        raise ValidationError(f"{field} has no time zone: use an aware datetime", field=field)
    if not EARLIEST <= value <= LATEST:
        raise ValidationError(
            f"{field} is at the very end of the calendar: omit it for an open range", field=field
        )


def check_revision(revision: int | None, field: str = "if_revision") -> None:
    """Check the expected revision of a conditional write.

    Raises:
        ValidationError: It is negative or does not fit 64 bits.
    """
    if revision is not None and not 0 <= revision < MAX_INTEGER:
        raise ValidationError(
            f"{field} is outside of 0 (not stored yet) to 2^63 - 2: pass the revision of the entity",
            field=field,
        )


def moment_before(older_than: timedelta) -> datetime:
    """The current time minus `older_than`.

    Raises:
        ValidationError: The result is before the year 1.
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
    """Run `check` and return the fault that it raises, so that callers raise their error outside an except block.

    An error raised inside the block would have the caught exception as its context, and the contexts of that one
    (errors of a codec, or of Pydantic) hold the value.
    """
    try:
        check(value)
    except _Fault as fault:
        return fault
    return None


def _check_model(model: BaseModel) -> None:
    _check_names(model)
    documents = json_fields(type(model))
    values = model.__dict__
    for name in documents & values.keys():
        _check_field(name, _check_json, values[name])
    _check_types(model)
    name = ""
    try:
        for name, value in values.items():
            # Most values are of these types, and this runs for each value of each save.
            if type(value) not in _ALWAYS_STORABLE and name not in documents:
                _check_value(value)
    except _Fault as fault:
        fault.place.append(f".{name}")
        raise


def _check_containers(model: BaseModel) -> None:
    _check_names(model)
    values = model.__dict__
    for name, type_ in item_types(type(model)).items():
        # Most are empty, and this runs for each save of a session.
        if values.get(name):
            _check_field(name, partial(_check_items, type_=type_), values[name])


def _check_field(name: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except _Fault as fault:
        fault.place.append(f".{name}")
        raise


def _check_names(model: BaseModel) -> None:
    """Check that `model` has only the fields of its entity class: others would be lost."""
    known = field_names(entity_class(type(model)))
    if model.__dict__.keys() <= known and not model.__pydantic_extra__:
        return
    for name in [*model.__dict__, *(model.__pydantic_extra__ or ())]:
        if name not in known and not isinstance(getattr(type(model), name, None), cached_property):
            fault = _Fault(
                "is not a field of the stored entity and would be lost: remove it, or store it elsewhere"
            )
            fault.place.append(f".{name}")
            raise fault


def _check_types(model: BaseModel) -> None:
    """Check that each value is valid for the type of its field, without conversion."""
    class_ = entity_class(type(model))
    known, embeddings, values = field_names(class_), embedding_fields(class_), model.__dict__
    if embeddings or not values.keys() <= known:
        # Embeddings are long, and `check_embedding` checks them.
        values = {
            name: None if name in embeddings else value for name, value in values.items() if name in known
        }
    try:
        class_.__pydantic_validator__.validate_python(values, strict=True)
    except PydanticValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    else:
        return
    message = found["msg"]
    fault = _Fault(f"has an invalid value: {message[:1].lower()}{message[1:]}")
    fault.place.append(f".{found['loc'][0]}")
    raise fault


def _check_items(container: Any, type_: type) -> None:
    """Check the items of a list or dict, which can be changed without validation."""
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
            raise _Fault(f"contains a value of the type {type(item).__name__}: use {type_.__name__}")


_ALWAYS_STORABLE = frozenset({type(None), bool, float, UUID})


def _check_value(value: Any) -> None:
    """Check a value whose type is correct."""
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise _Fault("does not fit 64 bits: use a smaller number")
    elif isinstance(value, datetime):
        _check_datetime(value)
    elif isinstance(value, list):
        # Embeddings are long, and `check_embedding` checks them.
        if not (value and isinstance(value[0], float)):
            _check_list(value)
    elif isinstance(value, dict):
        for key, nested in value.items():
            try:
                _check_string(key)
                _check_value(nested)
            except _Fault as fault:
                fault.place.append("[...]")
                raise
    # Last, because Pydantic's metaclass takes longer to ask than the types above.
    elif isinstance(value, BaseModel):
        _check_model(value)


def _check_list(values: list[Any]) -> None:
    for index, value in enumerate(values):
        if type(value) in _ALWAYS_STORABLE:
            continue
        try:
            _check_value(value)
        except _Fault as fault:
            fault.place.append(f"[{index}]")
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
                f"is nested deeper than {MAX_JSON_DEPTH} levels and could not be read back: flatten it"
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
            raise _Fault(
                "contains an integer of hundreds of digits, which could not be read back: use a string"
            )
    elif value is not None and kind is not bool:
        raise _Fault(
            f"contains a {kind.__name__}, which JSON cannot represent: convert it to a string, number, list or dict"
        )


def _check_json_key(key: Any) -> None:
    if type(key) is not str:
        raise _Fault("has a key that is not text, which JSON cannot represent: use strings as keys")
    _check_string(key)


def _check_datetime(value: datetime) -> None:
    if value.tzinfo is None:
        raise _Fault("has no time zone: use an aware datetime")
    if not EARLIEST <= value <= LATEST:
        raise _Fault(
            "is at the very end of the calendar, which time zone conversion would exceed: use None for never"
        )
    offset = value.utcoffset()
    if offset and offset % _MINUTE:
        # Local mean time, used before standard time zones, has such offsets.
        raise _Fault("has a time zone offset with seconds, which JSON cannot represent: convert it to UTC")


def _check_string(value: str) -> None:
    if "\x00" in value:
        raise _Fault("contains a NUL character (U+0000), which cannot be stored: remove it")
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        unpaired = True
    else:
        unpaired = False
    if unpaired:
        raise _Fault(
            "contains an unpaired surrogate, which is not a character and cannot be stored: remove it"
        )
