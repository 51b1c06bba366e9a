"""What every store does with every kind of entity: it comes back as it was stored, each field equal and of its type.

The kinds are those of tests/cases/kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.cases.kind import Kind, exactly
from tests.cases.kinds import KINDS
from tests.cases.rows import dump
from tests.cases.stores import DOMAINS
from tests.contract.conftest import SESSION_BACKENDS, backends_of

BACKENDS = {domain.store: tuple(backends_of(domain)) for domain in DOMAINS} | {"sessions": SESSION_BACKENDS}


def kinds(takes: Callable[[Kind], object] = lambda _: True, backend: str = "") -> pytest.MarkDecorator:
    """The kinds that a test is about, each on every backend of its store or on the given one."""
    return pytest.mark.parametrize(
        ("kind", "domain", "backend"),
        [
            pytest.param(kind, domain, each, id=f"{kind}-{each}")
            for domain in DOMAINS
            for kind in KINDS
            if kind.store == domain.store and takes(kind)
            for each in BACKENDS[domain.store]
            if backend in ("", each)
        ],
    )


@pytest.fixture
async def parents(store: Any, kind: Kind, tenant_id: UUID) -> dict[str, Any]:
    """The fields that are the same in all entities of a test: the tenant, and what has to be stored before."""
    return {"tenant_id": tenant_id, **await kind.store_parents(store, tenant_id)}


async def assert_comes_back(kind: Kind, store: Any, entity: Any) -> None:
    found = await kind.get(store, entity)
    assert type(found) is kind.model
    assert found == entity
    assert exactly(found) == exactly(entity)


@kinds()
async def test_every_field_comes_back_as_it_was_stored(
    store: Any, kind: Kind, parents: dict[str, Any]
) -> None:
    entity = kind.make(**kind.full(), **parents)
    assert await kind.save(store, entity) == kind.id(entity)
    await assert_comes_back(kind, store, entity)


@kinds(lambda kind: kind.adds_many)
async def test_every_field_of_several_stored_at_once_comes_back(
    store: Any, kind: Kind, parents: dict[str, Any]
) -> None:
    entities = [kind.make(**kind.full(), **parents), kind.make(**parents)]
    assert await kind.save_all(store, entities) == 2
    for entity in entities:
        await assert_comes_back(kind, store, entity)


@kinds()
async def test_defaults_none_and_empty_lists_come_back(
    store: Any, kind: Kind, parents: dict[str, Any]
) -> None:
    full = kind.make(**kind.full(), **parents)
    entity = kind.model(**{name: getattr(full, name) for name in kind.required()})
    await kind.save(store, entity)
    await assert_comes_back(kind, store, entity)


@kinds(lambda kind: kind.updates)
async def test_a_later_one_replaces_every_field(store: Any, kind: Kind, parents: dict[str, Any]) -> None:
    first = kind.make(**parents)
    await kind.save(store, first)
    second = kind.make(**kind.full() | parents | {kind.id_field: kind.id(first)})
    await kind.update(store, second)
    await assert_comes_back(kind, store, second)


@kinds(lambda kind: kind.changed)
async def test_a_change_comes_back(store: Any, kind: Kind, parents: dict[str, Any]) -> None:
    entity = kind.make(**kind.full(), **parents)
    await kind.save(store, entity)
    before = exactly(entity)
    kind.change(entity)
    assert exactly(entity) != before
    await kind.update(store, entity)
    await assert_comes_back(kind, store, entity)


@kinds(backend="postgres")
async def test_the_tables_of_a_kind_are_those_that_hold_it(
    store: Any, kind: Kind, parents: dict[str, Any], tenant_id: UUID
) -> None:
    before = await dump(store, tenant_id)
    await kind.save(store, kind.make(**kind.full(), **parents))
    after = await dump(store, tenant_id)
    assert {name for name in after if after[name] != before.get(name)} == kind.table_names
