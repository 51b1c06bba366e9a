"""The calls that several stores have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from tests.cases import audit, config, memory, profiles, runs, vectors
from tests.cases.case import Domain, as_of, stored
from tests.cases.kind import Kind
from tests.cases.kinds import kinds_of

MODEL = "another model"


@dataclass(frozen=True)
class Call:
    """One call of a method.

    Attributes:
        method: The method.
        call: Calls it with what `seed` has stored for one tenant, on behalf of that tenant or of another one.
        when: What distinguishes it from other calls of the method; empty if there are none.
        settings: The settings that it needs.
    """

    method: str
    call: Callable[[Any, Any, UUID], Awaitable[object]]
    when: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def saves(domain: Domain[Any, Any]) -> list[Call]:
    """Saves of the kinds that have revisions."""
    kinds = [kind for kind in kinds_of(domain.store) if kind.counter and domain is not profiles.DOMAIN]
    ways = {
        "without `if_revision`": None,
        "with `if_revision=0`": 0,
        "with another `if_revision`": 9,
    }

    def saving(kind: Kind, if_revision: int | None) -> Callable[[Any, Any, UUID], Awaitable[object]]:
        return lambda store, own, tenant: kind.save(store, as_of(stored(own, kind), tenant), if_revision)

    return [
        Call(kind.method(kind.adds), saving(kind, if_revision), when)
        for kind in kinds
        for when, if_revision in ways.items()
    ]


_SUBJECTS: dict[str, Callable[[Any, UUID], Any]] = {
    "memory": memory.subject,
    "audit": audit.subject,
    "profiles": profiles.subject,
    "runs": runs.subject,
    "vectors": vectors.subject,
}


def subject_calls(domain: Domain[Any, Any]) -> list[Call]:
    """Reads and removals of a person's records, table by table."""
    subject = _SUBJECTS[domain.store]

    async def find(store: Any, own: Any, tenant: UUID) -> object:
        return await store.find_subject(subject(own, tenant))

    async def read(store: Any, own: Any, tenant: UUID, *, table: str) -> object:
        return await store.read_found(tenant, table, [uuid4()])

    async def erase(store: Any, own: Any, tenant: UUID) -> object:
        return await store.erase_found(tenant, await store.find_subject(subject(own, tenant)))

    tables = next(case.expected for case in domain.cases if case.method == "export_subject")
    assert isinstance(tables, dict)
    reads = [Call("read_found", partial(read, table=table), f"of `{table}`") for table in tables]
    return [Call("find_subject", find), *reads, Call("erase_found", erase)]


def searches(method: str, call: Callable[[Any, Any, UUID], Awaitable[object]]) -> list[Call]:
    return [
        Call(method, call, "with a vector index"),
        Call(method, call, "with `SOLDIER_VECTOR_INDEX=none`", {"vector_index": "none"}),
    ]


def missing_embeddings() -> list[Call]:
    async def list_more(store: Any, own: Any, tenant: UUID, *, of_tenant: bool) -> object:
        chosen = tenant if of_tenant else None
        listed = await store.list_to_embed(MODEL, tenant_id=chosen, limit=1_000)
        for last_of_page in {text.kind: text for text in listed}.values():
            await store.list_to_embed(MODEL, tenant_id=chosen, after=last_of_page)
        return None

    async def embed(store: Any, own: Any, tenant: UUID) -> object:
        texts = await store.list_to_embed(MODEL, tenant_id=tenant)
        return await store.set_embeddings([(text, config.VECTOR) for text in texts], MODEL)

    return [
        Call(
            "count_to_embed",
            lambda store, _own, tenant: store.count_to_embed(MODEL, tenant_id=tenant),
            "of one tenant",
        ),
        Call("count_to_embed", lambda store, _own, _tenant: store.count_to_embed(MODEL), "of all tenants"),
        Call("list_to_embed", partial(list_more, of_tenant=True), "of one tenant"),
        Call("list_to_embed", partial(list_more, of_tenant=False), "of all tenants"),
        Call("set_embeddings", embed),
    ]
