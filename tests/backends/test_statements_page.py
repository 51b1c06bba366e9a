"""docs/statements.md shows every statement that the PostgreSQL stores send, as PostgreSQL accepts it."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from functools import _lru_cache_wrapper
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from soldier_data.config import statements as config
from soldier_data.memory import statements as memory
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.database import Database
from soldier_data.postgres.statements import Statement
from soldier_data.runs import statements as runs
from tests.backends.connections import administrator
from tests.cases.case import public_methods
from tests.conftest import settings_for
from tests.statements.calls import DOMAINS, calls_of
from tests.statements.common import Call
from tests.statements.formatting import formatted
from tests.statements.page import Recorded, record_all, sent_texts, statements_page, text_of
from tests.statements.recording import record

PAGE = (Path(__file__).parents[2] / "docs" / "statements.md").read_text(encoding="utf-8")

# `RevisionedTable` and `AddableTable` make them for all tables, but these tables have no method that needs them.
NEVER_SENT = {
    config.agents._delete,
    config.activations._delete,
    runs.runs._delete,
    memory.entities._own_row,
}


@pytest.fixture(scope="module")
async def recorded(module_database_url: str) -> Recorded:
    """What all methods send."""
    return await record_all(settings_for(module_database_url))


@pytest.fixture(scope="module")
async def database(module_database_url: str) -> AsyncIterator[Database]:
    """The database of this module."""
    opened = Database(settings_for(module_database_url))
    yield opened
    await opened.close()


def test_the_page_is_current(recorded: Recorded) -> None:
    assert statements_page(recorded) == PAGE, "run `make statements`"


def test_every_method_sends_something(recorded: Recorded) -> None:
    silent = [name for name, ways in recorded.items() if not any(ways.values())]
    assert not silent, "add a Case to tests/cases, or a Call to tests/statements/calls.py"


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.store)
def test_every_method_has_a_section(domain: Any) -> None:
    sections = re.findall(rf"^### {domain.store}\.(\w+)$", PAGE, re.MULTILINE)
    class_ = domain.backends["postgres"]
    assert set(sections) == public_methods(class_) - public_methods(PostgresStore)


def test_every_statement_of_the_stores_is_sent_by_a_method(recorded: Recorded) -> None:
    sent = {text for name in recorded for text in texts(recorded, name)}
    modules = [module for name, module in sys.modules.items() if name.startswith("soldier_data.")]
    stores = [module for module in modules if module.__name__.split(".")[1] in {d.store for d in DOMAINS}]
    made = {statement for module in stores for statement in statements_in(module)}
    assert len(made) > 100
    unsent = {statement.sql for statement in made - NEVER_SENT if text_of(statement) not in sent}
    # Without embeddings, if another test has read so: the page shows them with embeddings.
    missing = {sql for sql in unsent if not any(is_part_of(sql, longer) for longer in sent)}
    assert not missing, "add a Call to tests/statements/calls.py"
    # Functions that make statements, one for each combination of filters.
    makers = [
        each for module in stores for each in vars(module).values() if isinstance(each, _lru_cache_wrapper)
    ]
    assert makers
    assert [maker for maker in makers if not maker.cache_info().currsize] == []


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.store)
async def test_what_the_cases_send_is_on_the_page(
    domain: Any, database: Database, recorded: Recorded
) -> None:
    for case in domain.cases:
        shown = texts(recorded, f"{domain.store}.{case.method}")
        for text in sent_texts(await record(domain, Call(case.method, case.call), database)):
            assert any(is_part_of(text, longer) for longer in shown), case.method


async def test_both_vector_indexes_are_searched_with_the_same_text(
    module_database_url: str, recorded: Recorded
) -> None:
    ivfflat = Database(settings_for(module_database_url, vector_index="ivfflat"))
    introduction = PAGE.partition("\n## ")[0]
    searches = [
        (domain, call)
        for domain in DOMAINS
        for call in calls_of(domain)
        if call.when == "with a vector index"
    ]
    try:
        for domain, call in searches:
            [statement] = await record(domain, call, ivfflat)
            [shown] = recorded[f"{domain.store}.{call.method}"][call.when]
            assert isinstance(statement, Statement)
            assert numberless(text_of(statement)) == numberless(sent_texts([shown])[0])
            for value in statement._compiled.constants.values():
                assert value in introduction
    finally:
        await ivfflat.close()
    assert len(searches) == 6


def test_a_formatted_statement_differs_in_white_space_alone(recorded: Recorded) -> None:
    for name in recorded:
        for text in texts(recorded, name):
            assert words(formatted(text)) == words(text)


async def test_postgresql_explains_every_statement_of_the_page(module_database_url: str) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    statements = [block for block in blocks if "\nCOPY " not in block]
    assert len(statements) > 200
    async with administrator(module_database_url) as connection:
        explains = connection.get_server_version().major >= 16
        for statement in statements:
            if explains:
                await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
            else:
                await connection.prepare(statement)


def texts(recorded: Recorded, name: str) -> list[str]:
    """What a method sends."""
    return [text for events in recorded[name].values() for text in sent_texts(events)]


def statements_in(value: Any) -> Iterator[Statement]:
    """The statements in the variables of a module, or in what they hold."""
    if isinstance(value, Statement):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from statements_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from statements_in(each)
    elif isinstance(value, ModuleType) or type(value).__module__.startswith("soldier_data."):
        for each in list(getattr(value, "__dict__", {}).values()):
            if not isinstance(each, ModuleType):
                yield from statements_in(each)


def words(sql: str) -> list[str]:
    return re.sub(r"([(),])", r" \1 ", sql).split()


def is_part_of(shorter: str, longer: str) -> bool:
    """Whether a statement is another one without some of its conditions."""
    remaining = iter(words(numberless(longer)))
    return all(word in remaining for word in words(numberless(shorter)))


def numberless(sql: str) -> str:
    """The statement without the numbers of its parameters and labels."""
    return re.sub(r"(?<=[$_])\d+", "", sql)
