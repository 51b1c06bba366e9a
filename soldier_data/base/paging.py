"""Pagination, by offset or by cursor."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from soldier_data.base.arguments import check_fields
from soldier_data.errors import ValidationError


class Listed(Protocol):
    """An entity that lists are sorted by."""

    def position(self) -> tuple[datetime, UUID]:
        """The sort key: a time, and the id that breaks ties."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a list. Pass the cursor of the last entity of a page to get the next page.

    Pages do not shift while rows are added, ties are broken by id, and every page costs the same. Treat a cursor as
    opaque; `str()` and `parse()` convert it to and from a URL-safe string.
    """

    at: datetime
    id: UUID

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def after(cls, entity: Listed) -> Cursor:
        """The cursor of `entity`: the next page starts after it."""
        at, id_ = entity.position()
        return cls(at, id_)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `str()` converted to `text`.

        Raises:
            ValidationError: `text` is not a cursor.
        """
        try:
            at, _, id_ = base64.urlsafe_b64decode(text.encode()).decode().partition("|")
            cursor = cls(datetime.fromisoformat(at), UUID(id_))
        except (ValueError, binascii.Error):
            cursor = None
        if cursor is None or cursor.at.tzinfo is None:
            raise ValidationError(
                "cursor is not valid: pass the string that str(cursor) returned, unchanged", field="cursor"
            )
        return cursor

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.at.isoformat()}|{self.id}".encode()).decode()


def check_page(limit: int, offset: int = 0) -> None:
    """Check the limit and offset of a page.

    Raises:
        ValidationError: `limit` or `offset` is negative or does not fit 64 bits.
    """
    for name, value in (("limit", limit), ("offset", offset)):
        if not 0 <= value < 2**63:
            raise ValidationError(
                f"{name} is outside of 0 to 2^63 - 1: pass a number in that range", field=name
            )
