"""What can be stored: one policy for text, numbers and JSON, the same on every backend.

PostgreSQL keeps neither the character NUL nor half of a surrogate pair in its text, JSON has no NaN and no
infinity, and a document nested too deep can be written but not be parsed again. All of these are refused on the
way in, by every store alike, so that whatever was accepted comes back as it was. So is what an entity's fields do not
take, and what its class adds to them: `model_copy` and derived classes get around the validation of assignments.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
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
    try:
        _check_model(entity)
    except _Fault as found:
        fault = found
    else:
        return
    raise _as_validation_error(fault)


def check_containers(entity: BaseModel) -> None:
    """Check what the lists and dicts of `entity` hold, but for free JSON: the types, and the keys.

    Raises:
        ValidationError: Names the field. It is also raised for one that a derived class adds, which would be lost.
    """
    try:
        _check_names(entity)
    except _Fault as found:
        unknown: _Fault | None = found
    else:
        unknown = None
    if unknown is not None:
        raise _as_validation_error(unknown)
    for name, type_ in _item_types(type(entity)).items():
        try:
            _check_items(getattr(entity, name), type_)
        except _Fault as found:
            fault = found
            break
    else:
        return
    fault.place.append(name)
    raise _as_validation_error(fault)


def check_text(value: str, field: str) -> None:
    """Check one text, such as a search term or a name to look up.

    Raises:
        ValidationError: It holds a NUL character or half of a surrogate pair.
    """
    try:
        _check_string(value)
    except _Fault as found:
        fault = found
    else:
        return
    fault.place.append(field)
    raise _as_validation_error(fault)


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
    try:
        _check_json(value, 0)
    except _Fault as found:
        fault = found
    else:
        return
    fault.place.append(field)
    raise _as_validation_error(fault)


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
        message = "older_than leads out of the calendar: pass a shorter time"
    raise ValidationError(message, field="older_than")


class _Fault(Exception):  # noqa: N818 - never leaves this module.
    """What is wrong; `place` collects the way to it from the inside out while the calls unwind."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.place: list[str] = []


def _as_validation_error(fault: _Fault) -> ValidationError:
    place = "".join(reversed(fault.place)).removeprefix(".")
    return ValidationError(f"{place} {fault}", field=place)


def _check_model(model: BaseModel) -> None:
    _check_names(model)
    json_fields, item_types = _json_fields(type(model)), _item_types(type(model))
    for name, value in model.__dict__.items():
        try:
            if name in json_fields:
                _check_json(value, 0)
            # Most values are of these kinds, and this runs for each value of each save.
            elif type(value) not in _ALWAYS_STORABLE:
                if name in item_types:
                    _check_items(value, item_types[name])
                _check_typed(value)
        except _Fault as fault:
            fault.place.append(f".{name}")
            raise
    _check_fields(model)


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


def _check_fields(model: BaseModel) -> None:
    """Check that the fields of `model` take what they hold, as they are: nothing is converted."""
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
    fault = _Fault(f"cannot hold what it was given: {found['msg'][:1].lower()}{found['msg'][1:]}")
    fault.place.extend(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in reversed(found["loc"])
    )
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


def _check_typed(value: Any) -> None:
    """Check a value whose types the entity has validated already."""
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
                _check_item(nested)
            except _Fault as fault:
                fault.place.append(f"[{index}]")
                raise
    elif isinstance(value, dict):
        for key, nested in value.items():
            try:
                _check_string(key)
                _check_item(nested)
            except _Fault as fault:
                fault.place.append("[...]")
                raise


def _check_item(value: Any) -> None:
    if isinstance(value, list | dict):
        raise _Fault(f"is of the type {type(value).__name__}: use what the field is made of")
    _check_typed(value)


def _check_json(value: Any, depth: int) -> None:
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
