"""The stores of all domains."""

from __future__ import annotations

from inspect import signature
from typing import Any
from uuid import UUID

from soldier_data.errors import StoreError
from tests.cases import audit, config, memory, profiles, runs, sessions, vectors
from tests.cases.case import Case, Domain
from tests.conftest import DIMENSIONS

DOMAINS: tuple[Domain[Any, Any], ...] = (
    config.DOMAIN,
    memory.DOMAIN,
    audit.DOMAIN,
    profiles.DOMAIN,
    runs.DOMAIN,
    vectors.DOMAIN,
    sessions.DOMAIN,
)


def in_memory(domain: Domain[Any, Any]) -> Any:
    """The domain's store in memory, with nothing in it."""
    class_ = domain.backends["inmemory"]
    return class_(DIMENSIONS) if "embedding_dimensions" in signature(class_).parameters else class_()


async def outcome(case: Case[Any, Any], store: Any, own: Any, other: UUID) -> object:
    """What came back, or the class of the error."""
    try:
        return await case.call(store, own, other)
    except StoreError as error:
        return type(error)
