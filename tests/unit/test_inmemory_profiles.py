"""Units of work on the in-memory profile store."""

from __future__ import annotations

from uuid import UUID

import pytest

from soldier_data.errors import StoreError
from soldier_data.profiles import Channel, InMemoryProfileStore
from tests.factories.profiles import FullProfileFactory, ProfileFieldFactory


async def test_changes_are_seen_by_the_store_once_the_unit_of_work_commits(tenant_id: UUID) -> None:
    store = InMemoryProfileStore()
    profile = FullProfileFactory(tenant_id=tenant_id)
    await store.save(profile)
    before = profile.model_copy(deep=True)

    unit = store.begin()
    await unit.update_field(tenant_id, profile.id, ProfileFieldFactory(name="city", value="Bonn"))
    created = await unit.get_or_create(tenant_id, Channel.API, "new")
    assert await store.get_by_id(tenant_id, profile.id) == before
    assert await store.get_by_id(tenant_id, created.id) is None
    assert len(await store.get_field_history(tenant_id, profile.id, "city")) == 1

    unit.commit()
    assert await store.get_by_id(tenant_id, created.id) == created
    history = await store.get_field_history(tenant_id, profile.id, "city")
    assert [field.value for field in history] == ["Bonn", "Köln"]
    with pytest.raises(StoreError):
        await unit.get_by_id(tenant_id, profile.id)


async def test_changes_of_a_unit_of_work_that_ends_are_forgotten(tenant_id: UUID) -> None:
    store = InMemoryProfileStore()
    profile = FullProfileFactory(tenant_id=tenant_id)
    await store.save(profile)
    unit = store.begin()
    other = FullProfileFactory(tenant_id=tenant_id)
    await unit.save(other)
    await unit.merge_profiles(tenant_id, profile.id, other.id)
    unit.end()
    assert await store.get_by_id(tenant_id, profile.id) == profile
    assert await store.get_by_id(tenant_id, other.id) is None
    with pytest.raises(StoreError):
        await unit.get_by_id(tenant_id, profile.id)
