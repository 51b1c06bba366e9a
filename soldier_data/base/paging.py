"""Pages of a list: by offset, or from a position on."""

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
    """An entity that stands somewhere in a list."""

    def position(self) -> tuple[datetime, UUID]:
        """The moment that the list is ordered by, and the id that decides between equal moments."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a list, taken from the last entity of a page to ask for the next one.

    It stays right while rows are added and when moments are equal, and page 1,000 costs what page 1 costs. To
    services it is opaque; `str()` and `parse()` carry it through a URL.
    """

    at: datetime
    id: UUID

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def after(cls, entity: Listed) -> Cursor:
        """The position of `entity`: the next page begins behind it."""
        at, id_ = entity.position()
        return cls(at, id_)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `str()` wrote.

        Raises:
            ValidationError: `text` is not the text of a cursor.
        """
        try:
            at, _, id_ = base64.urlsafe_b64decode(text.encode()).decode().partition("|")
            cursor = cls(datetime.fromisoformat(at), UUID(id_))
        except (ValueError, binascii.Error):
            cursor = None
        if cursor is None or cursor.at.tzinfo is None:
            raise ValidationError(
                "cursor is not one that a page gave out: pass it on as it was", field="cursor"
            )
        return cursor

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.at.isoformat()}|{self.id}".encode()).decode()


def check_page(limit: int, offset: int = 0) -> None:
    """Check the size and start of a page.

    Raises:
        ValidationError: `limit` or `offset` is negative or does not fit 64 bits.
    """
    for name, value in (("limit", limit), ("offset", offset)):
        if not 0 <= value < 2**63:
            raise ValidationError(
                f"{name} is outside of 0 to 2^63 - 1: pass a smaller, positive number", field=name
            )
