"""A column that an ORM class has and its entity does not is told as what it is, by every way to write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.statements import in_order
from tests.conftest import DIMENSIONS
from tests.migrations.tools import edit, python

_SAVE = """
import asyncio
from uuid import uuid4
from soldier_data import Agent, ConfigurationError, DataLayer, Episode, Rule, Settings, Variable
from soldier_data.base.models import utcnow

def variable(agent):
    ids = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    return Variable(**ids, name=f"v{uuid4().hex}", resolver_tool_id="t")

def episode(tenant_id):
    return Episode(tenant_id=tenant_id, group_id="g", content="c", source="user", occurred_at=utcnow())

async def main():
    async with DataLayer.open(Settings(session_backend="inmemory")) as data:
        agent = Agent(tenant_id=uuid4(), name="a")
        await data.config.save_agent(agent)
        for writing in (
            data.config.save_variable(variable(agent)),
            data.config.save_many([variable(agent), variable(agent)]),
            data.memory.add_episode(episode(agent.tenant_id)),
            data.memory.add_episodes([episode(agent.tenant_id) for _ in range(2)]),
        ):
            try:
                await writing
            except ConfigurationError as error:
                print(error)

asyncio.run(main())
"""


async def test_every_way_to_write_names_the_column(database_url: str, checkout: Path) -> None:
    for domain, field in (
        ("config", "resolver_tool_id: Mapped[str]"),
        ("memory", "content: Mapped[str]"),
    ):
        edit(
            checkout / "soldier_data" / domain / "orm.py",
            f"    {field}\n",
            f"    {field}\n    color: Mapped[str | None]\n",
        )
    told = await python(
        checkout,
        "-c",
        _SAVE,
        SOLDIER_DATABASE_URL=database_url,
        SOLDIER_EMBEDDING_DIMENSIONS=str(DIMENSIONS),
    )
    said = "the entity has no field for the column color of the mapped class: add a field of that name to the entity"
    assert len(re.findall(said, told)) == 4, told


def test_the_error_shows_no_value() -> None:
    assert in_order(["name", "color"], {"color": 1, "name": 2, "other": 3}, "adding") == (2, 1)
    said = r"^adding: the entity has no field for the column color"
    with pytest.raises(ConfigurationError, match=said) as refused:
        in_order(["name", "color"], {"name": "canary-8QX"}, "adding")
    assert "canary" not in repr(refused.value)
    assert refused.value.__context__ is None
