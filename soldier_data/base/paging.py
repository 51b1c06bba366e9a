"""Pages of a list."""

from __future__ import annotations

from soldier_data.errors import ValidationError


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
