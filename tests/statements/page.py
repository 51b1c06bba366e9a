"""Generates docs/statements.md from what the PostgreSQL stores send."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

from soldier_data.audit import statements as audit
from soldier_data.memory import graph
from soldier_data.memory import statements as memory
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import all_insertions
from soldier_data.postgres.database import Database
from soldier_data.postgres.statements import Statement
from soldier_data.runs import statements as runs
from soldier_data.settings import Settings
from soldier_data.vectors import statements as vectors
from tests.cases.case import Domain, public_methods
from tests.conftest import DIMENSIONS
from tests.statements.calls import DOMAINS, calls_of
from tests.statements.formatting import formatted
from tests.statements.recording import Copy, Event, record

Recorded: TypeAlias = dict[str, dict[str, list[Event]]]
"""What each method sends, by its full name ("config.get_agent") and by `Call.when`."""

_INSERTIONS = (
    audit.turns.insertion,
    audit.events.insertion,
    memory.episodes.insertion,
    memory.entities.insertion,
    graph.insertion,
    runs.steps.insertion,
    runs.artifacts.insertion,
    runs.llm_calls.insertion,
    vectors.embeddings.insertion,
)

_INTRODUCTION = """\
# The statements

Every statement that the stores send to PostgreSQL, under the store and method that sends it. `make statements`
generates this page; a test compares it with what the stores send.

- Only white space differs from what is sent, and two names: tables and extensions are in the schema `public` here
  (`SOLDIER_DATABASE_SCHEMA`, `SOLDIER_EXTENSIONS_SCHEMA`), and embeddings have 1536 dimensions
  (`SOLDIER_EMBEDDING_DIMENSIONS`).
- The comments above a statement name its parameters, or give the value of those that are the same in every call.
- Statements are shown with all filters, with a cursor, and with embeddings. A call without one of them sends the same
  statement without its condition or column. Only where more than that differs are there several statements.
- A line in front of statements says when a method sends them. They are sent in that order, without those that have no
  rows to work on. In saves, the statements after the first find out why it wrote nothing, and are sent only then.
- A statement that several methods send is shown under the first of them.
- With `SOLDIER_VECTOR_INDEX=ivfflat`, searches pass other values to `set_config` than with `hnsw`: `ivfflat.probes` and
  `40`, `ivfflat.max_probes` and `100`, `ivfflat.iterative_scan` and `relaxed_order`.

Beside these statements, the library sends:

- `BEGIN`, `COMMIT` and `ROLLBACK`; in a unit of work also `SAVEPOINT inner_work`, `RELEASE SAVEPOINT inner_work` and
  `ROLLBACK TO SAVEPOINT inner_work`.
- Before the first transaction, a query of `default_transaction_isolation` and of whether Citus is installed. With
  Citus, a unit of work sends the insertions that it has collected one by one.
- With row-level security, `SET LOCAL app.tenant_id = '...'` in every transaction.
- `SELECT 1` on a connection that may be lost, and at the beginning of a unit of work that joins a transaction. The
  latter also sets and reads a parameter `soldier_data.unit_...` to call `after_commit`.
- On a new connection, settings of `extra_float_digits` and `gin_fuzzy_search_limit`, and queries of `pg_type` for the
  types of parameters and results. asyncpg looks up further types when it first meets them.
- With `SOLDIER_SESSION_DURABILITY=postgres`, the statements of `soldier_data/sessions/statements.py`.
- For `health()`, queries of the version table (`SOLDIER_VERSION_TABLE`) and of the parameter `transaction_read_only`.

## Plans

PostgreSQL 16 or later explains a statement with its parameters as they are:

```text
EXPLAIN (GENERIC_PLAN) <statement>
```

Statements with the parameter `force_custom_plan` never run with that plan, and those that search vectors or words
depend on the values. To see the plan for given values, on every version:

```text
BEGIN;
SET LOCAL plan_cache_mode = force_custom_plan;
PREPARE looked_at AS <statement>
EXPLAIN (ANALYZE, BUFFERS) EXECUTE looked_at (<values>);
ROLLBACK;
```

`ANALYZE` runs the statement, and `ROLLBACK` undoes what it writes. With row-level security, begin with `SET LOCAL
app.tenant_id`, and use the role of the service.
"""


async def record_all(settings: Settings) -> Recorded:
    """Call all methods on the migrated database of `settings`."""
    recorded: Recorded = {}
    async with AsyncExitStack() as stack:
        databases: dict[str, Database] = {}
        for domain in DOMAINS:
            calls = calls_of(domain)
            for method in methods(domain):
                ways = recorded[f"{domain.store}.{method}"] = {}
                for call in (call for call in calls if call.method == method):
                    key = repr(call.settings)
                    if key not in databases:
                        databases[key] = Database(settings.model_copy(update=call.settings))
                        stack.push_async_callback(databases[key].close)
                    events = ways.setdefault(call.when, [])
                    for event in await record(domain, call, databases[key]):
                        if isinstance(event, str) or text_of(event) not in sent_texts(events):
                            events.append(event)
    recorded["unit_of_work.flush"] = {
        "what has been collected, without the parts that add nothing": [
            all_insertions(_INSERTIONS),
        ]
    }
    return recorded


def methods(domain: Domain[Any, Any]) -> list[str]:
    """The methods of a store, in the order of its contract."""
    class_ = domain.backends["postgres"]
    known = public_methods(class_) - public_methods(PostgresStore)
    bases = (domain.contract, *domain.contract.__mro__, *class_.__mro__)
    return [name for name in dict.fromkeys(name for base in bases for name in vars(base)) if name in known]


def statements_page(recorded: Recorded) -> str:
    """Return the page as Markdown."""
    lines = [_INTRODUCTION]
    shown: dict[str, str] = {}
    store = ""
    for name, ways in recorded.items():
        if not name.startswith(f"{store}."):
            store = name.partition(".")[0]
            lines += [f"## {store}", ""]
        lines += [f"### {name}", "", *_section(name, ways, shown)]
    return "\n".join(lines)


def text_of(event: Statement | Copy) -> str:
    """The text that is sent with the default number of dimensions."""
    text = event.sql.replace(f"HALFVEC({DIMENSIONS})", "HALFVEC(1536)")
    # SQLAlchemy 2.0 uses the other name of the type.
    return text.replace(" FLOAT,", " DOUBLE PRECISION,")


def sent_texts(events: list[Event]) -> list[str]:
    """The texts of what is sent among the events."""
    return [text_of(event) for event in events if not isinstance(event, str)]


def _section(name: str, ways: dict[str, list[Event]], shown: dict[str, str]) -> Iterator[str]:
    store = name.partition(".")[0]
    sent = dict.fromkeys(text for events in ways.values() for text in sent_texts(events))
    new = [text for text in sent if text not in shown]
    for when, events in ways.items():
        if when:
            yield from (f"{when[0].upper()}{when[1:]}:", "")
        for event in events:
            if isinstance(event, str):
                yield from (f"Calls {_link(f'{store}.{event}')}.", "")
            elif (text := text_of(event)) in shown:
                yield from (shown[text], "")
            else:
                number = f", statement {new.index(text) + 1}" if len(new) > 1 else ""
                shown[text] = f"As {_link(name)}{number}."
                yield from (
                    "```sql",
                    f"-- {name}{number}",
                    *_parameters(event),
                    f"{formatted(text)};",
                    "```",
                    "",
                )


def _link(name: str) -> str:
    return f"[{name}](#{name.replace('.', '')})"


def _parameters(event: Event) -> list[str]:
    """Comments with the names of the parameters, or the values of those that are the same in every call."""
    if not isinstance(event, Statement):
        return []
    _, names, constants = event._compiled
    each = [
        f"${number} = {constants[name]!r}" if name in constants else f"${number} {name}"
        for number, name in enumerate(names, start=1)
    ]
    # No break between a number and its name.
    text = ", ".join(parameter.replace(" ", "\xa0") for parameter in each)
    lines = textwrap.wrap(text, 100, initial_indent="-- ", subsequent_indent="-- ")
    return [line.replace("\xa0", " ") for line in lines]
