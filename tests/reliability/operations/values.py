"""The values that all stores' operations draw from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from pydantic import BaseModel

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject
from tests.conftest import DIMENSIONS
from tests.reliability.side_by_side import TENANTS

OWNER, OTHER = TENANTS
TENANT = st.sampled_from([OWNER, OWNER, OWNER, OTHER])
NAMES = st.sampled_from(["a", "b", "c"])
FLAGS = st.booleans()
MOMENTS = st.sampled_from([datetime(2020, 1, 1, hour, tzinfo=UTC) for hour in range(3)])
REVISIONS = st.sampled_from([None, None, None, 0, 1, 2, 3])
LIMITS = st.sampled_from([0, 1, 2, 100, 100, -1])
OFFSETS = st.sampled_from([0, 0, 1, 2, -1])
AGES = st.sampled_from([timedelta(0), timedelta(0), timedelta(days=1), timedelta.max])
JSON = st.sampled_from([{}, {"a": 1}, {"a": True}, {"a": 1.0}, {"a": [1, {"b": None}]}, {"a": 1, "b": "x"}])
TO_DELETE = st.sampled_from([None, None, None, datetime(2020, 1, 2, tzinfo=UTC)])
"""For `deleted_at` of what is saved."""


def ids(first: int, count: int = 3) -> list[UUID]:
    """Ids of one kind of entity, the same ones in both tenants."""
    return [UUID(int=first + number) for number in range(count)]


def vector(*numbers: float) -> list[float]:
    """An embedding that begins with these."""
    return [*map(float, numbers), *[0.0] * (DIMENSIONS - len(numbers))]


# Their cosines are equal or far apart, and zero and one exactly.
VECTORS = st.sampled_from([vector(1), vector(0, 1), vector(3, 4), vector(-1), vector(4, 3)])
OPTIONAL_VECTORS = st.none() | VECTORS
SCORES = st.sampled_from([0.0, 0.5, -1.0])


def entities(model: type[BaseModel], /, **values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Entities of one kind, of either tenant; other fields have their defaults."""
    return st.builds(model, **{"tenant_id": TENANT, **values})


def certain(
    drawn: st.SearchStrategy[Any], tenant_id: UUID = OWNER, **values: object
) -> st.SearchStrategy[Any]:
    """The entities with these values for certain, and not deleted."""
    update = {"tenant_id": tenant_id, **values}
    return drawn.map(
        lambda entity: entity.model_copy(
            update={**update, "deleted_at": None} if hasattr(entity, "deleted_at") else update
        )
    )


def lists(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Up to three entities for one call, of one tenant but for rare mistakes."""

    def of_one_tenant(listed: Sequence[Any], tenant_id: UUID | None) -> list[Any]:
        return [
            entity.model_copy(update={"tenant_id": tenant_id}) if tenant_id is not None else entity
            for entity in listed
        ]

    drawn = st.lists(st.one_of(kinds), max_size=3)
    return st.builds(of_one_tenant, drawn, st.sampled_from([*TENANTS, *TENANTS, None]))


def cursors(of: list[UUID]) -> st.SearchStrategy[Cursor | None]:
    """Positions in lists of these."""
    return st.none() | st.builds(Cursor, MOMENTS, st.sampled_from(of))


def subjects(
    profiles: Sequence[UUID], sessions: Sequence[UUID] = (), **values: st.SearchStrategy[Any]
) -> st.SearchStrategy[DataSubject]:
    """People with some of these profiles and sessions."""
    return st.builds(
        DataSubject,
        tenant_id=TENANT,
        profile_ids=st.frozensets(st.sampled_from(profiles), min_size=1, max_size=2),
        session_ids=st.frozensets(st.sampled_from(sessions), max_size=1)
        if sessions
        else st.just(frozenset()),
        **values,
    )
