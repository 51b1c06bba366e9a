"""What is known of the fields of a model from its class, computed once."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from soldier_data.base.models import Model


@cache
def entity_class(class_: type[BaseModel]) -> type[BaseModel]:
    """The first class of this package in the MRO of `class_`; `class_` itself if there is none."""
    package = __name__.partition(".")[0]
    for each in class_.__mro__:
        if each.__module__.partition(".")[0] == package and each.__module__ != Model.__module__:
            return each
    return class_


@cache
def field_names(model: type[BaseModel]) -> frozenset[str]:
    """Names of all fields. Pydantic computes `model_fields` on each access."""
    return frozenset(model.model_fields)


@cache
def json_fields(model: type[BaseModel]) -> frozenset[str]:
    """Fields whose annotation contains `Any`: arbitrary JSON."""
    return frozenset(name for name, field in model.model_fields.items() if _mentions_any(field.annotation))


@cache
def item_types(model: type[BaseModel]) -> dict[str, type]:
    """The item types of the list and dict fields of `model`, except JSON fields and embeddings."""
    found = {}
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) in (list, dict) and not _mentions_any(field.annotation):
            item = get_args(field.annotation)[-1]
            # The only annotated ones are datetimes in UTC.
            found[name] = datetime if get_origin(item) is Annotated else item
    return found


@cache
def embedding_fields(model: type[BaseModel]) -> list[str]:
    """Fields that hold an embedding."""
    return [name for name, field in model.model_fields.items() if field.annotation == list[float] | None]


def _mentions_any(annotation: Any) -> bool:
    return annotation is Any or any(_mentions_any(argument) for argument in get_args(annotation))
