"""The example service with a table of its own does what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from examples.tickets import Ticket, create_app
from soldier_data import Agent, DataLayer
from soldier_data.settings import Settings
from tests.conftest import service_url
from tests.factories.config import AgentFactory
from tests.integration.http_service import served

MIGRATIONS = Path(__file__).parents[2] / "examples" / "tickets_migrations" / "alembic.ini"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The service's engine, on a database with both schemas."""
    made = create_async_engine(service_url(database_url))

    def migrate(connection: Any) -> None:
        config = Config(MIGRATIONS, attributes={"connection": connection})
        command.upgrade(config, "head")
        command.check(config)

    async with made.begin() as connection:
        await connection.run_sync(migrate)
    # Those connections were opened before the vector codec was registered.
    await made.dispose()
    yield made
    await made.dispose()


@pytest.fixture
async def client(engine: AsyncEngine, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with served(create_app(engine, settings)) as connected:
        yield connected


@pytest.fixture
async def agent(data: DataLayer, tenant_id: UUID) -> Agent:
    saved: Agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(saved)
    return saved


def ticket(agent: Agent, question: str) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "tenant_id": str(agent.tenant_id),
        "agent_id": str(agent.id),
        "session_id": str(uuid4()),
        "turn_number": 1,
        "question": question,
        "answer": f"The answer to: {question}",
    }


async def test_tickets_are_found_by_the_distance_of_their_rules(
    client: httpx2.AsyncClient, data: DataLayer, agent: Agent
) -> None:
    questions = ["How long do refunds take?", "Where is my parcel?", "Can I change my address?"]
    for question in questions:
        created = await client.post("/tickets", json=ticket(agent, question))
        assert created.status_code == 201
    [turn, *_] = await data.audit.list_turns_by_tenant(agent.tenant_id)
    assert turn.user_message == questions[-1]
    params = {"tenant_id": str(agent.tenant_id), "question": questions[1]}
    found = (await client.get("/tickets/similar", params=params)).json()
    assert {one["question"] for one in found} == set(questions)
    assert found[0] == {
        "agent": agent.name,
        "question": questions[1],
        "answer": f"The answer to: {questions[1]}",
        "distance": pytest.approx(0, abs=1e-6),
    }
    assert [one["distance"] for one in found] == sorted(one["distance"] for one in found)
    assert (await client.get("/tickets/similar", params=params | {"tenant_id": str(uuid4())})).json() == []


async def test_nothing_is_left_of_a_ticket_that_cannot_be_saved(
    client: httpx2.AsyncClient, engine: AsyncEngine, data: DataLayer, agent: Agent
) -> None:
    saved = ticket(agent, "Refunds?")
    assert (await client.post("/tickets", json=saved)).status_code == 201
    for refused, status in (
        # By the session, after the stores have written.
        (ticket(agent, "Parcel?") | {"id": saved["id"]}, 409),
        # By the audit store, after the config store has written.
        (ticket(agent, "Parcel?") | {"answer": "\0"}, 422),
        (ticket(agent.model_copy(update={"id": uuid4()}), "Parcel?"), 404),
    ):
        assert (await client.post("/tickets", json=refused)).status_code == status
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(func.count()).select_from(Ticket)) == 1
    assert [rule.name for rule in await data.config.get_rules(agent.tenant_id, agent.id)] == ["Refunds?"]
    assert len(await data.audit.list_turns_by_tenant(agent.tenant_id)) == 1
