"""The rights of a data subject: everything held about one customer, from every store, to be read or to be erased.

What is a person's is decided by the stores, each for its own records: the docstrings of their classes say how. It is
decided by ids alone, never by names or words, so a text of somebody else that speaks of the person stays.
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
"""The format of `DataLayer.export_customer_lines`."""

# More than any customer has.
_ALL = 1_000_000

# A conversation that goes on while it is erased comes back with each save.
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
"""What a record of each table is called, in the order in which an export lists them."""


class CustomerExport(Model):
    """Everything held about a customer. `model_dump_json()` is the copy to hand out.

    Attributes:
        profile_ids: The customer's profile, and all that were merged with it.
        customer_profiles: Deleted ones too, until they are purged.
        profile_fields: Former values of fields.
        former_identifiers: Channel identities and external ids that the profiles had once.
        turn_records: The turns of their sessions, by session and number.
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
    """What an erasure did.

    Attributes:
        profile_ids: The profiles that the customer had.
        session_ids: The conversations that were taken for the customer's.
        removed: How many records went, by table; of the tables of the audit, how many lost their text.
        event_id: The audit event that tells of it; None if nothing was held.
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

        By its sessions other records are found, and some sessions by other records: should a crash end this
        half-way, the event that it began with tells a repeated call which sessions these were. What was made from
        other records goes before them, and profiles go last, because everything else is found by them.
        """
        earlier, _ = await self._earlier_sessions(tenant_id, profile_id)
        subject, stored = await self._find(tenant_id, profile_id, {*session_ids, *earlier})
        begun = not subject.session_ids <= earlier
        if begun:
            await self._begin(subject, profile_id)
        audit, *others = [(store, await store.find_subject(subject)) for store in self._record_stores()]
        record_ids = _ids_in(of_store for _, of_store in (audit, *others))
        vectors = _records_of(self.stores.vectors)
        made_from_them = await vectors.find_subject(replace(subject, record_ids=record_ids))
        gone, done_id = ErasedIds(), new_id()
        # A role that may not change audit records erases nothing. These stay, and embeddings of them are found again.
        for store, of_store in (audit, (vectors, made_from_them), *others):
            gone.add(await store.erase_found(tenant_id, of_store))
        gone.add({"sessions": await self._erase_sessions(subject, stored)})
        if not begun and any(gone.counts().values()):
            await self._begin(subject, profile_id)

        async def erase_profiles(unit: UnitOfWork) -> None:
            gone.add(await unit.profiles.erase_subject(subject))
            # This may be the repetition of what was committed.
            if any(gone.counts().values()) and await unit.audit.get_event(tenant_id, done_id) is None:
                await unit.audit.save_event(
                    _event("customer_erased", done_id, subject, removed=gone.counts())
                )

        await self._settle(erase_profiles)
        removed = gone.counts()
        return ErasureReport(
            tenant_id=tenant_id,
            profile_ids=sorted(subject.profile_ids),
            session_ids=sorted(subject.session_ids),
            removed=removed,
            event_id=done_id if any(removed.values()) else None,
        )

    async def _find(
        self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID]
    ) -> tuple[DataSubject, set[UUID]]:
        """The person, and those of their sessions that are still stored."""
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
                # Named by a record of the person's, but another customer's: theirs it stays.
                named.discard(session_id)
        return replace(subject, session_ids=frozenset(named | stored)), stored

    async def _pages(
        self, subject: DataSubject, stored: set[UUID], *, with_embeddings: bool
    ) -> AsyncIterator[tuple[str, list[Any]]]:
        """Everything that is the person's, some of a table at a time."""
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
        """The stores of what embeddings may have been made from, that of the audit first."""
        return [_records_of(store) for store in (self.stores.audit, self.stores.memory, self.stores.runs)]

    async def _earlier_sessions(self, tenant_id: UUID, profile_id: UUID) -> tuple[set[UUID], UUID]:
        """The sessions that earlier erasures began with, and the id of the event that the next one begins with."""
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
        """Leave the event that tells a later call which sessions this erasure began with."""
        while True:
            _, event_id = await self._earlier_sessions(subject.tenant_id, profile_id)
            try:
                await self.stores.audit.save_event(_event("customer_erasure_begun", event_id, subject))
            except ConflictError:
                # Another erasure of the customer, begun at the same time, was first: this one is the next.
                continue
            return

    async def _settle(self, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        """Run `work` in a unit of work, again when stores in memory refuse what others have changed meanwhile."""
        for _ in range(_ROUNDS - 1):
            try:
                await self.transact(work)
            except ConflictError:
                continue
            return
        await self.transact(work)

    async def _stored_sessions(self, subject: DataSubject) -> set[UUID]:
        """The sessions that the indexes lead to. Reading an index also removes what leads nowhere from it.

        Of a session that names no customer, the moment when it began decides whose it is.
        """
        found: set[UUID] = set()
        for profile_id in subject.profile_ids:
            listed = await self.sessions.list_by_customer(subject.tenant_id, profile_id, limit=_ALL)
            found |= {session.session_id for session in listed}
        for channel, address in subject.identities:
            listed = await self.sessions.list_by_channel(subject.tenant_id, channel, address, limit=_ALL)
            found |= {
                session.session_id
                for session in listed
                if session.customer_profile_id is None
                and subject.is_reached_at(channel, address, session.created_at)
            }
        return found

    async def _erase_sessions(self, subject: DataSubject, session_ids: set[UUID]) -> set[UUID]:
        gone: set[UUID] = set()
        for _ in range(_ROUNDS):
            await self.sessions.delete_many(subject.tenant_id, session_ids)
            gone |= session_ids
            session_ids = await self._stored_sessions(subject)
            if not session_ids:
                break
        return gone


async def _read(
    store: SubjectRecords, tenant_id: UUID, found: Mapping[str, list[UUID]], *, with_embeddings: bool
) -> AsyncIterator[tuple[str, list[Any]]]:
    for table, ids in found.items():
        for batch in batches(ids):
            yield table, await store.read_found(tenant_id, table, batch, with_embeddings=with_embeddings)


def _records_of(store: SubjectStore) -> SubjectRecords:
    if not isinstance(store, SubjectRecords):
        raise ConfigurationError(
            f"{type(store).__name__} does not derive from soldier_data.base.subjects.SubjectRecords, by which "
            "customers are exported and erased: let it"
        )
    return store


def _ids_in(found: Iterable[Mapping[str, list[UUID]]]) -> frozenset[UUID]:
    return frozenset(id_ for of_store in found for ids in of_store.values() for id_ in ids)


def _event(event_type: str, event_id: UUID, subject: DataSubject, **more: dict[str, int]) -> AuditEvent:
    data = {
        "profile_ids": [str(id_) for id_ in sorted(subject.profile_ids)],
        "session_ids": [str(id_) for id_ in sorted(subject.session_ids)],
        **more,
    }
    return AuditEvent(id=event_id, tenant_id=subject.tenant_id, event_type=event_type, event_data=data)


def _line(kind: str, data: str) -> bytes:
    return f'{{"type":"{kind}","data":{data}}}\n'.encode()
