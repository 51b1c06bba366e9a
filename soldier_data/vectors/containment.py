"""JSON containment as in PostgreSQL, for the in-memory store."""

from __future__ import annotations

from decimal import Decimal
from typing import Any


def contains(document: Any, wanted: Any) -> bool:
    """Return True if a JSON value contains another one, by the rules of PostgreSQL's @> operator for JSONB."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(
            key in document and contains(document[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(document, list) and all(
            any(contains(element, value) for element in document) for value in wanted
        )
    if _is_number(wanted) and _is_number(document):
        # PostgreSQL compares the decimal values of numbers, also of a float and an integer.
        return Decimal(repr(document)) == Decimal(repr(wanted))
    return type(document) is type(wanted) and bool(document == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
