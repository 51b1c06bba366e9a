"""Whatever a store is called with, it comes back exactly or is refused by name, and all else stays readable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.similarity import to_float32
from soldier_data.config import Agent, Variable
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError, NotFoundError, ValidationError
from soldier_data.profiles import CustomerProfile
from soldier_data.sessions import Session
from tests.cases.case import Domain
from tests.cases.kinds import kind_of
from tests.cases.kinds.config import ARCHIVED_SCENARIO, SCENARIO
from tests.cases.stores import DOMAINS
from tests.conftest import settings_for
from tests.reliability.conftest import Counts, Found
from tests.reliability.hostile_places import Place, ValidCall, places, valid_calls, with_value
from tests.reliability.hostile_texts import HUGE_TEXTS
from tests.reliability.hostile_values import VALUES

EVERY_STORE = [
    pytest.param(domain, backend, id=f"{backend}-{domain.contract.__name__}")
    for domain in DOMAINS
    for backend in domain.backends
]

READS = (
    "get",
    "list",
    "count",
    "vector_search",
    "text_search",
    "hybrid_search",
    "search",
    "traverse",
    "find",
)

FRESH: dict[str, Callable[[], Any]] = {
    "id": uuid4,
    "turn_id": uuid4,
    "session_id": uuid4,
    "customer_id": uuid4,
    "trace_id": lambda: uuid4().hex,
    "idempotency_key": lambda: uuid4().hex,
    "external_id": lambda: uuid4().hex,
    "tool_id": lambda: uuid4().hex,
    "source_type": lambda: uuid4().hex,
}
"""What is unique about entities, so that one saved before is no reason to refuse the next; or finds them quickly."""


def renewed(call: ValidCall) -> ValidCall:
    """The same call for entities that are not stored yet."""
    arguments = {name: _renewed(call, value) for name, value in deepcopy(call.arguments).items()}
    if "if_revision" in arguments:
        arguments["if_revision"] = None
    return ValidCall(call.method, arguments)


def _renewed(call: ValidCall, value: Any) -> Any:
    if isinstance(value, list):
        return [_renewed(call, item) for item in value]
    if kind_of(value) is None or call.method.startswith("update"):
        return value
    update = {name: FRESH[name]() for name in FRESH if name in type(value).model_fields}
    if isinstance(value, Agent | Variable):
        update["name"] = f"n{uuid4().hex}"
    if isinstance(value, CustomerProfile):
        for identity in value.channel_identities:
            identity.channel_user_id = uuid4().hex
    # An event is found by its session, a step of a run by its run.
    if not isinstance(value, Session):
        update.pop("session_id", None)
    return value.model_copy(update=update)


async def is_right(store: Any, call: ValidCall) -> bool:
    """Whether the call as it is finds what it refers to. Not so for those that the intruder's own entities make."""
    if not call.method.startswith(("save", "add", "update")):
        return True
    try:
        await getattr(store, call.method)(**renewed(call).arguments)
    except NotFoundError:
        return False
    return True


class Attempts:
    """Calls one store with what is hostile, and judges how it takes it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.by_model = self.by_store = self.taken = 0
        self.wrong: list[str] = []

    async def make(self, call: ValidCall, place: Place, value: Any) -> None:
        try:
            arguments = with_value(renewed(call).arguments, place, value)
        except TypeError:
            return  # It cannot be a key of a dict.
        except (PydanticValidationError, ValidationError, RecursionError):
            # The last one is how Python's enums take a document that is nested too deep.
            self.by_model += 1
            return
        wrong = await self._call(call, arguments, place, value)
        if wrong:
            self.wrong.append(f"{call.method}, {place}: {described(value)}: {wrong}")

    async def _call(self, call: ValidCall, arguments: dict[str, Any], place: Place, value: Any) -> str | None:
        """What is wrong with how the store takes it."""
        try:
            await getattr(self._store, call.method)(**arguments)
        except ValidationError as error:
            self.by_store += 1
            named = error.field is not None and any(str(step) in error.field for step in place)
            return None if named else f"the error names {error.field}: {error}"
        except (ConflictError, NotFoundError) as error:
            self.by_store += 1
            # It is of the right type, or was made so by the entity, and of no entity or of another one.
            return None if len(place) > 1 or isinstance(value, _MAY_BE_UNKNOWN) else f"{error!r}"
        except Exception as error:  # noqa: BLE001 - every other one is wrong.
            return f"{error!r}"[:300]
        self.taken += 1
        for argument in arguments.values():
            for entity in argument if isinstance(argument, list) else [argument]:
                if not await self._is_kept(call, entity):
                    return "it came back as something else"
        return None

    async def _is_kept(self, call: ValidCall, entity: Any) -> bool:
        kind = kind_of(entity)
        if kind is SCENARIO and call.method == "archive_scenario_version":
            kind = ARCHIVED_SCENARIO
        found = None if kind is None else await kind.get(self._store, entity)
        # What is not found is softly deleted, or the call was not to save it.
        return found is None or repr(_plain(found)) == repr(_plain(entity))


def described(value: Any) -> str:
    """What a value looks like, in a few words."""
    try:
        text = ascii(value)[:80]
    except (ValueError, RecursionError):
        text = "too much to tell"
    return f"{text} ({type(value).__name__})"


_MAY_BE_UNKNOWN = (str, int, float, UUID, list, dict, type(None))


def _plain(value: Any) -> Any:
    """What an entity holds, embeddings as they are kept."""
    if isinstance(value, BaseModel):
        return {
            name: to_float32(held) if name.endswith("embedding") and held is not None else _plain(held)
            for name, held in value
            if name not in {"updated_at", "revision", "last_activity_at", "replaced_at"}
        }
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        # A member of an enum equals its text.
        return str(value)
    # Zero has a sign in Python, and equals itself with the other one.
    return value + 0.0 if isinstance(value, float) else value


@pytest.fixture
async def layer(shared_database_url: str, redis_url: str) -> AsyncIterator[DataLayer]:
    settings = settings_for(
        shared_database_url, redis_url=redis_url, session_key_prefix=f"t{uuid4().hex}", retry_budget=0
    )
    async with DataLayer.open(settings) as opened:
        yield opened


@pytest.mark.parametrize(("domain", "backend"), EVERY_STORE)
async def test_hostile_input_comes_back_exactly_or_is_refused_by_name(
    domain: Domain[Any, Any],
    backend: str,
    layer: DataLayer,
    tenant_id: UUID,
    count: Counts,
    report: Found,
) -> None:
    data = DataLayer(layer.settings.in_memory()) if backend == "inmemory" else layer
    store = getattr(data, domain.store)
    calls = [
        call
        for call in await valid_calls(domain, await domain.seed(store, tenant_id), tenant_id)
        if await is_right(store, call)
    ]
    another_id = uuid4()
    others_calls = await valid_calls(domain, await domain.seed(store, another_id), another_id)

    async def read(calls: list[ValidCall]) -> list[Any]:
        return [
            await getattr(store, call.method)(**deepcopy(call.arguments))
            for call in calls
            if call.method.startswith(READS) and call.method != "get_or_create"
        ]

    before = await read(others_calls)
    attempts = Attempts(store)
    every = count(120, 1)
    where = [
        (call, place)
        for call in calls
        for place in places(call.arguments)
        # That would delete what other calls refer to.
        if not (call.method.startswith("update") and place[-1] == "deleted_at")
    ]
    for number, (call, place) in enumerate(where):
        # In the quick form each place gets some of the values, and each value comes to some places.
        for value in VALUES[number % every :: every]:
            await attempts.make(call, place, value)
        if number % 40 == 0:
            # All that was taken can be listed, searched and read, too.
            await read(calls)
    for call, place in where[:: count(len(where), 10)]:
        for value in HUGE_TEXTS:
            await attempts.make(call, place, value)
    assert not attempts.wrong, "\n".join([f"{len(attempts.wrong)} calls:", *attempts.wrong[:40]])
    await read(calls)
    assert await read(others_calls) == before
    assert attempts.taken
    report(
        f"{len(VALUES) + len(HUGE_TEXTS)} hostile inputs in {len(where)} places of {len(calls)} calls of "
        f"{type(store).__name__}",
        bar="refused by an error that names the field, or comes back exactly; what was stored before still reads",
        found=f"{attempts.by_model:,} refused by the entity, {attempts.by_store:,} by the store, "
        f"{attempts.taken:,} taken",
    )
