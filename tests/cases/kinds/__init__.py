"""The registry of all kinds of entities that the stores keep.

A new entity is named here once: write its factory in tests/factories, add a `Kind` to the module of its store, put
it on the module's list `KINDS`, and let the store's `seed` (in tests/cases, too) store one. From then on it is in the
round trips, in the lost replies, among the hostile values and, if it has a revision, in the races for it.
tests/unit/test_kinds.py fails for an entity, a part of one, a table or a seed that is missing, and for a field that
the full example leaves at its default.

What every store can be called with, which differs from store to store, is in the other modules of tests/cases.
"""

from __future__ import annotations

from tests.cases.kind import Kind
from tests.cases.kinds import audit, config, memory, profiles, runs, sessions, vectors

KINDS: tuple[Kind, ...] = (
    *config.KINDS,
    *memory.KINDS,
    *audit.KINDS,
    *profiles.KINDS,
    *runs.KINDS,
    *vectors.KINDS,
    *sessions.KINDS,
)


def kinds_of(store: str) -> list[Kind]:
    """The kinds that one store keeps."""
    return [kind for kind in KINDS if kind.store == store]


def kind_of(entity: object) -> Kind | None:
    """What kind of entity this is; None for anything else."""
    return next((kind for kind in KINDS if type(entity) is kind.model), None)
