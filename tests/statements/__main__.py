"""`python -m tests.statements` writes docs/statements.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

from soldier_data.embedded import EmbeddedServers
from soldier_data.migrations import upgrade
from tests.conftest import settings_for
from tests.statements.page import record_all, statements_page


async def _page(database_url: str) -> str:
    settings = settings_for(database_url)
    await upgrade(settings)
    return statements_page(await record_all(settings))


with EmbeddedServers.start() as servers:
    page = asyncio.run(_page(servers.database_url))
Path("docs/statements.md").write_text(page)
