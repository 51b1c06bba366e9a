"""`soldier-data vectors status` and `vectors reindex`, as an operator runs them."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from typer.testing import CliRunner, Result

from soldier_data.cli.app import app
from soldier_data.data_layer import DataLayer
from soldier_data.settings import Settings
from tests.backends.connections import CANARY, bound_role
from tests.conftest import DIMENSIONS
from tests.factories.memory import EpisodeFactory

WIDTH = 80


async def run(url: str, *arguments: str, **variables: str) -> Result:
    """Run a command on the database of `url`, in a thread because it runs an event loop of its own."""
    environment = {
        "SOLDIER_DATABASE_URL": url,
        "SOLDIER_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "COLUMNS": str(WIDTH),
        **variables,
    }
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["vectors", *arguments], env=environment))


def cells(output: str, first: str) -> list[str]:
    """The cells of the line of a table that begins with `first`."""
    lines = ([cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines())
    return next(line for line in lines if line[0] == first)


async def test_the_status_fits_a_terminal_and_says_what_to_do(settings: Settings, data: DataLayer) -> None:
    tenant_id = uuid4()
    embedding = [1.0] * DIMENSIONS
    await data.memory.add_episodes(
        [
            EpisodeFactory.build(
                tenant_id=tenant_id, embedding=embedding, embedding_model="text-embedding-3-small"
            ),
            EpisodeFactory.build(tenant_id=tenant_id),
        ]
    )
    shown = await run(settings.database_url, "status")
    assert shown.exit_code == 0
    assert cells(shown.stdout, "episodes")[:4] == ["episodes", "2", "1", "hnsw"]
    assert cells(shown.stdout, "episodes")[5] == "valid"
    assert "1 rows of episodes have no embedding" in " ".join(shown.stdout.split())
    assert "text-embedding-3-small" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= WIDTH


async def test_a_rebuild_says_what_became_of_each_index(database_url: str) -> None:
    rebuilt = await run(database_url, "reindex", "episodes", "--memory", "64MB", "--workers", "0")
    assert rebuilt.exit_code == 0
    assert rebuilt.stdout.rstrip().endswith("(rebuilt)")
    changed = await run(database_url, "reindex", "episodes", SOLDIER_VECTOR_INDEX="ivfflat")
    assert [line.split()[0] for line in changed.stdout.split("\n") if line] == [
        "ix_episodes_embedding_ivfflat:",
        "Removed",
    ]
    missing = await run(database_url, "status")
    assert "should have an index of type hnsw, but has ivfflat" in " ".join(missing.stdout.split())
    removed = await run(database_url, "reindex", "episodes", SOLDIER_VECTOR_INDEX="none")
    assert removed.stdout.strip().startswith("Removed ix_episodes_")
    nothing = await run(database_url, "reindex", "episodes", SOLDIER_VECTOR_INDEX="none")
    assert nothing.stdout.strip().startswith("Nothing to do")
    made = await run(database_url, "reindex")
    assert "(new)" in made.stdout


async def test_a_role_bound_by_the_policies_sees_estimates_and_is_told_so(database_url: str) -> None:
    async with bound_role(database_url) as url:
        shown = await run(url, "status")
        refused = await run(url, "reindex", "episodes")
    assert cells(shown.stdout, "episodes")[1:3] == ["~0", "?"]
    assert "Row-level security hides the rows from this role" in " ".join(shown.stdout.split())
    assert refused.exit_code == 1
    assert "run it as the role that runs the migrations" in refused.stderr


async def test_failures_are_one_line_without_secrets() -> None:
    nowhere = f"postgresql://u:{CANARY}@127.0.0.1:1/nowhere"
    for command in ("status", "reindex"):
        failed = await run(nowhere, command)
        assert failed.exit_code == 1
        assert failed.stderr.startswith("Error: ")
        assert "could not be reached" in failed.stderr
        assert CANARY not in failed.output
    wrong = await run("nonsense://", "status")
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("Error: SOLDIER_DATABASE_URL")
