"""Values with everything that a badly written store trips over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

TEXT = 'Größe "5\'" 100% _\\ \n\t; DROP TABLE agents; -- $1 {0} 漢字 👩‍👩‍👧 \u202e\u0001\ufffe'

DOCUMENT: dict[str, Any] = {
    TEXT: [TEXT, None, True, 1, 1.0, -0.0, 1e22, 1e308, 5e-324, 0.1, 2**70, -(10**600), {"": {}}, []],
    "b": None,
    "a": {"nested": {"deeper": [[]]}},
}

HALVES = [0.5, -0.25, 0.0, 1.0, 2.0, -4.0, 0.125, 8.0]
"""An embedding that float32 holds exactly."""

_INDIA = timezone(timedelta(hours=5, minutes=30))
_NEWFOUNDLAND = timezone(-timedelta(hours=3, minutes=30))

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEAP_DAY = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=_INDIA)
LATER = datetime(2031, 1, 1, 0, 0, 0, 1, tzinfo=_NEWFOUNDLAND)
EARLIEST = datetime(1, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
BEFORE_1970 = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, 1, tzinfo=_INDIA)
