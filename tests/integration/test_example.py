"""The example service does what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx2
import pytest

from soldier_data.fastapi import lifespan
from tests.conftest import settings_for
from tests.integration.http_service import served


@pytest.fixture
async def client(
    shared_database_url: str, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the example, on the tests' database."""
    from examples import service
    from soldier_data.providers import HashingEmbeddingProvider

    settings = settings_for(shared_database_url, session_backend="inmemory")
    monkeypatch.setattr(service, "embed", HashingEmbeddingProvider(settings.embedding_dimensions).embed)
    monkeypatch.setattr(service.app.router, "lifespan_context", lifespan(settings))
    async with served(service.app) as connected:
        connected.headers.update({"X-Tenant-Id": str(tenant_id), "X-Actor": "ada"})
        yield connected


async def test_agents_are_made_and_listed(client: httpx2.AsyncClient) -> None:
    made = await client.post("/agents", params={"name": "Support"})
    assert made.status_code == 201
    assert [agent["id"] for agent in (await client.get("/agents")).json()] == [made.json()["id"]]
    assert (await client.post("/agents", params={"name": "Support"})).status_code == 409
    assert (await client.get("/agents", headers={"X-Tenant-Id": str(uuid4())})).json() == []


async def test_a_question_is_answered_from_facts_and_kept_as_a_run(client: httpx2.AsyncClient) -> None:
    fact = "Refunds take five days."
    assert (await client.post("/facts", params={"text": fact})).status_code == 201
    question = {"text": "How long do refunds take?", "trace_id": "t-1"}
    answer = await client.post("/questions", json=question)
    assert answer.json() == [fact]
    assert (await client.post("/questions", json=question)).status_code == 409
    page = (await client.get("/runs")).json()
    assert page["total"] == 1
    assert page["runs"][0]["request_payload"] == {"question": question["text"]}
    assert (await client.get("/agents", headers={"X-Tenant-Id": "nobody"})).status_code == 422


async def test_what_cannot_be_kept_is_422_and_named(client: httpx2.AsyncClient) -> None:
    question = {"text": "How long do refunds take?", "trace_id": ""}
    for answer, field in [
        (await client.post("/agents", params={"name": ""}), "name"),
        (await client.post("/agents", params={"name": "x" * 101}), "name"),
        (await client.post("/questions", json=question), "trace_id"),
        (await client.get("/agents", headers={"X-Actor": ""}), "actor"),
    ]:
        assert answer.status_code == 422
        assert [problem["loc"][-1] for problem in answer.json()["detail"]] == [field]
