"""Export and erasure of everything that all stores hold about one customer.

Each store decides which of its records are the person's, as the docstring of its contract says. It decides by ids
alone, never by names or words, so a text by somebody else that talks about the person stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid5

from pydantic import BaseModel, Field

from soldier_data.audit.models import AuditEvent, TurnRecord
from soldier_data.base.models import Model, new_id, utcnow
from soldier_data.base.subjects import DataSubject, ErasedIds, SubjectRecords, SubjectStore, batches
from soldier_data.errors import ConfigurationError, ConflictError
from soldier_data.memory.models import Entity, Episode, Relationship
from soldier_data.profiles.models import CustomerProfile, FormerIdentifier, ProfileField
from soldier_data.runs.models import Artifact, LLMCall, Run, Step
from soldier_data.sessions.models import Session
from soldier_data.sessions.store import SessionStore
from soldier_data.unit_of_work import Stores, UnitOfWork
from soldier_data.vectors.models import Embedding

Transact: TypeAlias = Callable[[Callable[[UnitOfWork], Awaitable[Any]]], Awaitable[Any]]
"""`DataLayer.run_in_transaction`."""

LINES_VERSION = 1
"""The version of the format of `DataLayer.export_customer_lines`."""

# A conversation that continues while it is erased is stored again by each save.
_ROUNDS = 3

_TYPES = {
    "customer_profiles": "customer_profile",
    "profile_fields": "profile_field",
    "former_identifiers": "former_identifier",
    "sessions": "session",
    "episodes": "episode",
    "entities": "entity",
    "relationships": "relationship",
    "turn_records": "turn_record",
    "audit_events": "audit_event",
    "runs": "run",
    "steps": "step",
    "artifacts": "artifact",
    "llm_calls": "llm_call",
    "embeddings": "embedding",
}
"""The type of the records of each table in `DataLayer.export_customer_lines`."""


class CustomerExport(Model):
    """Everything held about a customer. `model_dump_json()` makes the copy for them.

    Attributes:
        profile_ids: The ids of the customer's profile and of all profiles that were merged with it.
        customer_profiles: The profiles, including softly deleted ones.
        profile_fields: The former values of fields.
        former_identifiers: The channel identities and external ids that the profiles no longer have.
        turn_records: The turns of the customer's sessions, by session, time and number.
    """

    tenant_id: UUID
    profile_ids: list[UUID]
    exported_at: datetime = Field(default_factory=utcnow)
    customer_profiles: list[CustomerProfile] = Field(default_factory=list)
    profile_fields: list[ProfileField] = Field(default_factory=list)
    former_identifiers: list[FormerIdentifier] = Field(default_factory=list)
    sessions: list[Session] = Field(default_factory=list)
    episodes: list[Episode] = Field(default_factory=list)
    entities: list[Entity] = Field(default_factory=list)
    relationships: list[Relationship] = Field(default_factory=list)
    turn_records: list[TurnRecord] = Field(default_factory=list)
    audit_events: list[AuditEvent] = Field(default_factory=list)
    runs: list[Run] = Field(default_factory=list)
    steps: list[Step] = Field(default_factory=list)
    artifacts: list[Artifact] = Field(default_factory=list)
    llm_calls: list[LLMCall] = Field(default_factory=list)
    embeddings: list[Embedding] = Field(default_factory=list)


class ErasureReport(BaseModel):
    """The outcome of an erasure.

    Attributes:
        profile_ids: The ids of the customer's profiles.
        session_ids: The ids of the customer's sessions.
        removed: The number of erased records by table. Audit records stay, but lose their text.
        event_id: The id of the audit event that records the erasure; None if nothing was held.
    """

    tenant_id: UUID
    profile_ids: list[UUID]
    session_ids: list[UUID]
    removed: dict[str, int]
    event_id: UUID | None = None


@dataclass(frozen=True)
class CustomerRights:
    """Exports and erases customers.

    Attributes:
        stores: The stores of the data layer.
        sessions: Its session store.
        transact: Runs work in a unit of work, and again after a transient failure.
    """

    stores: Stores
    sessions: SessionStore
    transact: Transact

    async def export(
        self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID], *, with_embeddings: bool
    ) -> CustomerExport:
        """As `DataLayer.export_customer`."""
        subject, stored = await self._find(tenant_id, profile_id, session_ids)
        found: dict[str, list[Any]] = {table: [] for table in _TYPES}
        async for table, entities in self._pages(subject, stored, with_embeddings=with_embeddings):
            found[table] += entities
        found["turn_records"].sort(key=lambda turn: (turn.session_id, turn.timestamp, turn.turn_number))
        return CustomerExport(tenant_id=tenant_id, profile_ids=sorted(subject.profile_ids), **found)

    async def export_lines(
        self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID], *, with_embeddings: bool
    ) -> AsyncIterator[bytes]:
        """As `DataLayer.export_customer_lines`."""
        subject, stored = await self._find(tenant_id, profile_id, session_ids)
        header = {
            "version": LINES_VERSION,
            "tenant_id": str(tenant_id),
            "profile_ids": [str(id_) for id_ in sorted(subject.profile_ids)],
            "exported_at": utcnow().isoformat(),
        }
        yield _line("header", json.dumps(header))
        counts = Counter(dict.fromkeys(_TYPES.values(), 0))
        without = None if with_embeddings else {"embedding"}
        async for table, entities in self._pages(subject, stored, with_embeddings=with_embeddings):
            counts[_TYPES[table]] += len(entities)
            for entity in entities:
                yield _line(_TYPES[table], entity.model_dump_json(exclude=without))
        yield _line("trailer", json.dumps({"counts": counts}))

    async def erase(self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID]) -> ErasureReport:
        """As `DataLayer.erase_customer`.

        Some records are found by sessions, and some sessions by records. An erasure therefore begins with an audit
        event that names the sessions, from which a repeated call knows them after a crash. Embeddings are erased
        before the records that they were made from, and profiles last, because everything else is found by them.
        """
        earlier, _ = await self._earlier_sessions(tenant_id, profile_id)
        subject, stored = await self._find(tenant_id, profile_id, {*session_ids, *earlier})
        begun = not subject.session_ids <= earlier
        if begun:
            await self._begin(subject, profile_id)
        audit, *others = [(store, await store.find_subject(subject)) for store in self._record_stores()]
        record_ids = _ids_in(found for _, found in (audit, *others))
        vectors = _records_of(self.stores.vectors)
        embeddings = await vectors.find_subject(replace(subject, record_ids=record_ids))
        erased, event_id = ErasedIds(), new_id()
        # The audit store comes first, so that a role that may not change audit records erases nothing. These records
        # stay, so that a repeated call still finds the embeddings made from them.
        for store, found in (audit, (vectors, embeddings), *others):
            erased.add(await store.erase_found(tenant_id, found))
        erased.add({"sessions": await self._erase_sessions(subject, stored)})
        if not begun and any(erased.counts().values()):
            await self._begin(subject, profile_id)

        async def erase_profiles(unit: UnitOfWork) -> None:
            erased.add(await unit.profiles.erase_subject(subject))
            # This attempt may repeat one that was committed.
            if any(erased.counts().values()) and await unit.audit.get_event(tenant_id, event_id) is None:
                await unit.audit.save_event(
                    _event("customer_erased", event_id, subject, removed=erased.counts())
                )

        await self._repeat_conflicts(erase_profiles)
        removed = erased.counts()
        return ErasureReport(
            tenant_id=tenant_id,
            profile_ids=sorted(subject.profile_ids),
            session_ids=sorted(subject.session_ids),
            removed=removed,
            event_id=event_id if any(removed.values()) else None,
        )

    async def _find(
        self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID]
    ) -> tuple[DataSubject, set[UUID]]:
        """Return the person, and the ids of those of their sessions that are stored."""
        subject = await self.stores.profiles.get_data_subject(tenant_id, profile_id)
        stored = await self._stored_sessions(subject)
        named = {
            *session_ids,
            *subject.session_ids,
            *await self.stores.memory.list_subject_sessions(subject),
        } - stored
        for session_id in list(named):
            session = await self.sessions.get(session_id, tenant_id=tenant_id)
            if session is None:
                continue
            if session.customer_profile_id is None or session.customer_profile_id in subject.profile_ids:
                stored.add(session_id)
            else:
                # A record of the person's names it, but it is another customer's.
                named.discard(session_id)
        return replace(subject, session_ids=frozenset(named | stored)), stored

    async def _pages(
        self, subject: DataSubject, stored: set[UUID], *, with_embeddings: bool
    ) -> AsyncIterator[tuple[str, list[Any]]]:
        """Read everything that is the person's; yield a table's name and some of its records at a time."""
        profiles = _records_of(self.stores.profiles)
        found = await profiles.find_subject(subject)
        async for page in _read(profiles, subject.tenant_id, found, with_embeddings=with_embeddings):
            yield page
        for session_ids in batches(sorted(stored)):
            read = [await self.sessions.get(id_, tenant_id=subject.tenant_id) for id_ in session_ids]
            yield "sessions", [session for session in read if session is not None]
        record_ids: frozenset[UUID] = frozenset()
        for store in self._record_stores():
            found = await store.find_subject(subject)
            record_ids |= _ids_in([found])
            async for page in _read(store, subject.tenant_id, found, with_embeddings=with_embeddings):
                yield page
        vectors = _records_of(self.stores.vectors)
        found = await vectors.find_subject(replace(subject, record_ids=record_ids))
        async for page in _read(vectors, subject.tenant_id, found, with_embeddings=with_embeddings):
            yield page

    def _record_stores(self) -> list[SubjectRecords]:
        """The stores whose records embeddings may have been made from, the audit store first."""
        return [_records_of(store) for store in (self.stores.audit, self.stores.memory, self.stores.runs)]

    async def _earlier_sessions(self, tenant_id: UUID, profile_id: UUID) -> tuple[set[UUID], UUID]:
        """Return the sessions named by the events of earlier erasures, and the id for the next such event."""
        found: set[UUID] = set()
        number = 0
        while True:
            event_id = uuid5(profile_id, f"customer_erasure_begun {number}")
            event = await self.stores.audit.get_event(tenant_id, event_id)
            if event is None:
                return found, event_id
            found |= {UUID(id_) for id_ in event.event_data["session_ids"]}
            number += 1

    async def _begin(self, subject: DataSubject, profile_id: UUID) -> None:
        """Save the event that tells a repeated call the sessions of this erasure."""
        while True:
            _, event_id = await self._earlier_sessions(subject.tenant_id, profile_id)
            try:
                await self.stores.audit.save_event(_event("customer_erasure_begun", event_id, subject))
            except ConflictError:
                # Another erasure of the customer began at the same time and took the id.
                continue
            return

    async def _repeat_conflicts(self, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        """Run `work` in a unit of work; repeat it if in-memory stores reject what others changed meanwhile."""
        for _ in range(_ROUNDS - 1):
            try:
                await self.transact(work)
            except ConflictError:
                continue
            return
        await self.transact(work)

    async def _stored_sessions(self, subject: DataSubject) -> set[UUID]:
        """Return the sessions that are stored for the person.

        A session that names no customer is the person's if the identity was theirs when it began. Reading an index
        also removes its entries for sessions that no longer exist.
        """
        return {
            session.session_id
            for session in await self.sessions.list_by_subject(subject)
            if session.customer_profile_id in subject.profile_ids
            or (
                session.customer_profile_id is None
                and subject.held(session.user_channel_id, session.created_at, kind=session.channel)
            )
        }

    async def _erase_sessions(self, subject: DataSubject, session_ids: set[UUID]) -> set[UUID]:
        erased: set[UUID] = set()
        for _ in range(_ROUNDS):
            await self.sessions.delete_many(subject.tenant_id, session_ids)
            erased |= session_ids
            session_ids = await self._stored_sessions(subject)
            if not session_ids:
                break
        return erased


async def _read(
    store: SubjectRecords, tenant_id: UUID, found: Mapping[str, list[UUID]], *, with_embeddings: bool
) -> AsyncIterator[tuple[str, list[Any]]]:
    for table, ids in found.items():
        for batch in batches(ids):
            yield table, await store.read_found(tenant_id, table, batch, with_embeddings=with_embeddings)


def _records_of(store: SubjectStore) -> SubjectRecords:
    if not isinstance(store, SubjectRecords):
        raise ConfigurationError(
            f"{type(store).__name__} cannot export and erase customers: derive it from "
            "soldier_data.base.subjects.SubjectRecords"
        )
    return store


def _ids_in(found_in_stores: Iterable[Mapping[str, list[UUID]]]) -> frozenset[UUID]:
    return frozenset(id_ for found in found_in_stores for ids in found.values() for id_ in ids)


def _event(event_type: str, event_id: UUID, subject: DataSubject, **more: dict[str, int]) -> AuditEvent:
    data = {
        "profile_ids": [str(id_) for id_ in sorted(subject.profile_ids)],
        "session_ids": [str(id_) for id_ in sorted(subject.session_ids)],
        **more,
    }
    return AuditEvent(id=event_id, tenant_id=subject.tenant_id, event_type=event_type, event_data=data)


def _line(kind: str, data: str) -> bytes:
    return f'{{"type":"{kind}","data":{data}}}\n'.encode()
