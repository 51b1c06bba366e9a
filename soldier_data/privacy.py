"""The rights of a data subject: everything held about one customer, from every store, to be read or to be erased.

What is a person's is decided by the stores, each for its own records: the docstrings of their classes say how. It is
decided by ids alone, never by names or words, so a text of somebody else that speaks of the person stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid5

from pydantic import BaseModel, Field

from soldier_data.audit.models import AuditEvent, TurnRecord
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.subjects import DataSubject, ErasedIds
from soldier_data.memory.models import Entity, Episode, Relationship
from soldier_data.profiles.models import CustomerProfile, ProfileField
from soldier_data.runs.models import Artifact, LLMCall, Run, Step
from soldier_data.sessions.models import Session
from soldier_data.sessions.store import SessionStore
from soldier_data.unit_of_work import Stores, UnitOfWork
from soldier_data.vectors.models import Embedding

Transact: TypeAlias = Callable[[Callable[[UnitOfWork], Awaitable[Any]]], Awaitable[Any]]
"""`DataLayer.run_in_transaction`."""

# More than any customer has.
_ALL = 1_000_000

# A conversation that goes on while it is erased comes back with each save.
_ROUNDS = 3


class CustomerExport(BaseModel):
    """Everything held about a customer. `model_dump_json()` is the copy to hand out.

    Attributes:
        profile_ids: The customer's profile, and all that were merged with it.
        customer_profiles: Deleted ones too, until they are purged.
        profile_fields: Former values of fields.
        turn_records: The turns of their sessions, by session and number.
    """

    tenant_id: UUID
    profile_ids: list[UUID]
    exported_at: datetime = Field(default_factory=utcnow)
    customer_profiles: list[CustomerProfile] = []
    profile_fields: list[ProfileField] = []
    sessions: list[Session] = []
    episodes: list[Episode] = []
    entities: list[Entity] = []
    relationships: list[Relationship] = []
    turn_records: list[TurnRecord] = []
    audit_events: list[AuditEvent] = []
    runs: list[Run] = []
    steps: list[Step] = []
    artifacts: list[Artifact] = []
    llm_calls: list[LLMCall] = []
    embeddings: list[Embedding] = []


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

    async def export(self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID]) -> CustomerExport:
        """As `DataLayer.export_customer`."""
        subject, sessions = await self._find(tenant_id, profile_id, session_ids)
        found: dict[str, list[Any]] = {"sessions": sessions}
        stores = self.stores
        for store in (stores.profiles, stores.memory, stores.runs, stores.audit):
            found.update(await store.export_subject(subject))
        found["turn_records"].sort(key=lambda turn: (turn.session_id, turn.timestamp, turn.turn_number))
        subject = replace(subject, record_ids=_record_ids(found))
        found.update(await stores.vectors.export_subject(subject))
        return CustomerExport(tenant_id=tenant_id, profile_ids=sorted(subject.profile_ids), **found)

    async def erase(self, tenant_id: UUID, profile_id: UUID, session_ids: Iterable[UUID]) -> ErasureReport:
        """As `DataLayer.erase_customer`.

        By its sessions other records are found, and some sessions by other records: should a crash end this
        half-way, the event that it began with tells a repeated call which sessions these were. Profiles go last,
        because everything else is found by them.
        """
        earlier, begun_id = await self._earlier_sessions(tenant_id, profile_id)
        subject, sessions = await self._find(tenant_id, profile_id, {*session_ids, *earlier})
        gone, done_id = ErasedIds(), new_id()

        async def begin(unit: UnitOfWork) -> None:
            await _record(unit, "customer_erasure_begun", begun_id, subject)

        async def erase_records(unit: UnitOfWork) -> None:
            for store in (unit.memory, unit.runs, unit.audit):
                gone.add(await store.erase_subject(subject))
            records = frozenset(id_ for ids in gone.by_table().values() for id_ in ids)
            gone.add(await unit.vectors.erase_subject(replace(subject, record_ids=records)))
            if any(gone.counts().values()):
                await begin(unit)

        async def erase_profiles(unit: UnitOfWork) -> None:
            gone.add(await unit.profiles.erase_subject(subject))
            if any(gone.counts().values()):
                await _record(unit, "customer_erased", done_id, subject, removed=gone.counts())

        if not subject.session_ids <= earlier:
            await self.transact(begin)
        await self.transact(erase_records)
        gone.add({"sessions": await self._erase_sessions(subject, sessions)})
        await self.transact(erase_profiles)
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
    ) -> tuple[DataSubject, list[Session]]:
        """The person, and their sessions that are still stored."""
        subject = await self.stores.profiles.get_data_subject(tenant_id, profile_id)
        stored = {session.session_id: session for session in await self._stored_sessions(subject)}
        named = {
            *session_ids,
            *subject.session_ids,
            *await self.stores.memory.list_subject_sessions(subject),
        } - stored.keys()
        for session_id in list(named):
            session = await self.sessions.get(session_id, tenant_id=tenant_id)
            if session is not None and _is_theirs(session, subject):
                stored[session_id] = session
            elif session is not None:
                # Named by a record of the person's, but another customer's: theirs it stays.
                named.discard(session_id)
        return replace(subject, session_ids=frozenset(named | stored.keys())), list(stored.values())

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

    async def _stored_sessions(self, subject: DataSubject) -> list[Session]:
        """The sessions that the indexes lead to. Reading an index also removes what leads nowhere from it."""
        found: list[Session] = []
        for profile_id in subject.profile_ids:
            found += await self.sessions.list_by_customer(subject.tenant_id, profile_id, limit=_ALL)
        for channel, address in subject.identities:
            found += await self.sessions.list_by_channel(subject.tenant_id, channel, address, limit=_ALL)
        return [session for session in found if _is_theirs(session, subject)]

    async def _erase_sessions(self, subject: DataSubject, sessions: list[Session]) -> set[UUID]:
        gone: set[UUID] = set()
        for _ in range(_ROUNDS):
            ids = {session.session_id for session in sessions}
            await self.sessions.delete_many(subject.tenant_id, ids)
            gone |= ids
            sessions = await self._stored_sessions(subject)
            if not sessions:
                break
        return gone


async def _record(
    unit: UnitOfWork, event_type: str, event_id: UUID, subject: DataSubject, **more: dict[str, int]
) -> None:
    """Leave an audit event, once: this may be the repetition of what was committed."""
    if await unit.audit.get_event(subject.tenant_id, event_id) is not None:
        return
    data = {
        "profile_ids": [str(id_) for id_ in sorted(subject.profile_ids)],
        "session_ids": [str(id_) for id_ in sorted(subject.session_ids)],
        **more,
    }
    await unit.audit.save_event(
        AuditEvent(id=event_id, tenant_id=subject.tenant_id, event_type=event_type, event_data=data)
    )


def _record_ids(found: dict[str, list[Any]]) -> frozenset[UUID]:
    ids = {turn.turn_id for turn in found["turn_records"]}
    for table in (
        "episodes",
        "entities",
        "relationships",
        "audit_events",
        "runs",
        "steps",
        "artifacts",
        "llm_calls",
    ):
        ids |= {entity.id for entity in found[table]}
    return frozenset(ids)


def _is_theirs(session: Session, subject: DataSubject) -> bool:
    return session.customer_profile_id is None or session.customer_profile_id in subject.profile_ids
