"""A role or a database with settings of its own: answers are what they are without."""

from __future__ import annotations

import pytest

from soldier_data import migrations
from soldier_data.data_layer import DataLayer
from soldier_data.memory import Episode
from soldier_data.profiles import CustomerProfile
from tests.backends.connections import administrator
from tests.conftest import settings_for
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileFieldFactory

# What 15 digits cannot tell from 0.3.
_CONFIDENCE = 0.30000000000000004

SETTINGS = {
    "extra_float_digits": "0",
    "gin_fuzzy_search_limit": "1",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "default_text_search_config": "pg_catalog.german",
    "search_path": "pg_catalog",
    "client_encoding": "LATIN1",
}


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
async def test_settings_of_a_role_or_a_database_change_no_answer(database_url: str, of: str) -> None:
    async with administrator(database_url) as connection:
        database = await connection.fetchval("SELECT current_database()")
        user = await connection.fetchval("SELECT current_user")
        whose = f'ROLE "{user}" IN DATABASE "{database}"' if of == "ROLE" else f'DATABASE "{database}"'
        for name, value in SETTINGS.items():
            await connection.execute(f"ALTER {whose} SET {name} = '{value}'")
    async with DataLayer.open(settings_for(database_url, session_backend="inmemory")) as data:
        profile: CustomerProfile = CustomerProfileFactory()
        profile.fields["likes"] = ProfileFieldFactory(name="likes", confidence=_CONFIDENCE)
        tenant_id = profile.tenant_id
        await data.profiles.save(profile)
        stored = await data.profiles.get_by_id(tenant_id, profile.id)
        assert stored == profile

        await data.profiles.save(profile)
        assert len(await data.profiles.get_field_history(tenant_id, profile.id, "likes")) == 1

        episodes: list[Episode] = [
            EpisodeFactory(tenant_id=tenant_id, content=f"refund Größe {number}") for number in range(200)
        ]
        await data.memory.add_episodes(episodes)
        found = await data.memory.text_search_episodes("refund", tenant_id, limit=200)
        assert len(found) == 200
    assert await migrations.check(settings_for(database_url)) is None
