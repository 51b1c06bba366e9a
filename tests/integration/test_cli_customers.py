"""`soldier-data customers`, as an operator uses it."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from soldier_data.cli.app import app
from soldier_data.data_layer import DataLayer
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS
from tests.factories.profiles import FullProfileFactory


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLDIER_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SOLDIER_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("SOLDIER_SESSION_KEY_PREFIX", settings.session_key_prefix)
    monkeypatch.setenv("SOLDIER_EMBEDDING_DIMENSIONS", str(DIMENSIONS))


async def _customer(tenant_id: UUID) -> UUID:
    async with DataLayer.open(Settings()) as data:
        profile_id: UUID = await data.profiles.save(FullProfileFactory(tenant_id=tenant_id))
        return profile_id


async def _run(*arguments: object, answer: str | None = None) -> Result:
    # In a thread, because the command runs an event loop of its own.
    words = ["customers", *map(str, arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, words, input=answer)


@pytest.mark.usefixtures("environment")
async def test_a_customer_is_exported_and_erased(tenant_id: UUID) -> None:
    profile_id = await _customer(tenant_id)
    exported = await _run("export", "--tenant", tenant_id, profile_id)
    [profile] = json.loads(exported.stdout)["customer_profiles"]
    assert profile["id"] == str(profile_id)

    lines = (await _run("export", "--lines", "--tenant", tenant_id, profile_id)).stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["header", "customer_profile", "trailer"]

    refused = await _run("erase", "--tenant", tenant_id, profile_id, answer="n\n")
    assert refused.exit_code == 1
    erased = await _run("erase", "--tenant", tenant_id, profile_id, answer="y\n")
    assert erased.exit_code == 0
    assert '"customer_profiles": 1' in erased.stdout
    again = await _run("erase", "--yes", "--tenant", tenant_id, "--session", uuid4(), profile_id)
    assert json.loads(again.stdout)["event_id"] is None


async def test_a_server_that_is_away_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLDIER_DATABASE_URL", "postgresql://nobody:secret@localhost:1/nowhere")
    monkeypatch.setenv("SOLDIER_RETRY_BUDGET", "0")
    done = await _run("export", "--tenant", uuid4(), uuid4())
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert "secret" not in done.output
