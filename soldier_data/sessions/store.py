"""The contract of session stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from uuid import UUID

from soldier_data.base.arguments import ChecksArguments
from soldier_data.base.channels import Channel
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.subjects import DataSubject
from soldier_data.sessions.models import PendingMigration, Session, SessionStatus

# More sessions than any index has.
_ALL = 2**62


class SessionStore(ChecksArguments, ABC):
    """Storage for the state of conversations between turns.

    A session expires `persist_ttl` after its last save, and no later than `max_session_age` after its
    `created_at`. No method returns an expired session. Returned sessions are copies: changes to them take effect
    when they are saved.

    A call that is retried because its reply was lost takes effect once.

    Raises (every method but `health_check`):
        StoreConnectionError: The server cannot be reached or did not answer in time.
        ValidationError: An argument has a wrong type, or a text contains NUL or an unpaired surrogate. Names the
            field.
    """

    @abstractmethod
    async def get(
        self, session_id: UUID, *, tenant_id: UUID | None = None, fresh: bool = False
    ) -> Session | None:
        """Return the session, or None if it does not exist or, with `tenant_id`, belongs to another tenant.

        Args:
            session_id: The session's id.
            tenant_id: The session's tenant. Required with `SOLDIER_SESSION_DURABILITY=postgres` and
                `SOLDIER_ROW_LEVEL_SECURITY=true`.
            fresh: With `SOLDIER_SESSION_DURABILITY=postgres`, read the session from PostgreSQL and replace the copy in
                Redis if it differs. Otherwise without effect.

        Raises:
            StoreError: The stored value is not a session that this version can read. It is not changed.
        """

    @abstractmethod
    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        """Store the session, replacing the stored one if it exists.

        On success, set `last_activity_at` of `session` to the current time and `revision` to the stored revision:
        1 for a new session, else one more than the replaced revision. On failure, leave `session` unchanged.

        Args:
            session: The session to store.
            if_revision: Save only if this is the stored revision; 0 requires that the session is not stored yet.
                By default the last save wins.

        Returns:
            The session's id.

        Raises:
            ConflictError: The stored revision is not `if_revision`, or the id belongs to another tenant.
            ValidationError: A value cannot be stored, or the session is older than `max_session_age`.
            StoreError: The stored value is not a session that this version can read. It is not changed.
        """

    @abstractmethod
    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        """Delete the session permanently; with `tenant_id`, only if it belongs to that tenant.

        Returns:
            Whether a session was deleted.

        Raises:
            StoreError: With `tenant_id`: the stored value is not a session that this version can read. It is not
                changed.
        """

    @abstractmethod
    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        """Delete sessions of the tenant permanently, with all their index entries.

        Ids that do not exist or belong to another tenant are skipped. In Redis this takes two round trips per
        1,000 sessions, more on a cluster.

        Returns:
            The number of sessions deleted.

        Raises:
            StoreError: A stored value is not a session that this version can read. It is not changed. Other
                sessions may already be deleted; repeating the call deletes the rest.
        """

    @abstractmethod
    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        """Return the most recently saved session of a customer's address on a channel, of any status, or None.

        Raises:
            StoreError: The stored value is not a session that this version can read. It is not changed.
        """

    @abstractmethod
    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, *, limit: int = 100
    ) -> list[Session]:
        """Return up to `limit` sessions of a customer's address on a channel; order and errors as `list_by_agent`."""

    @abstractmethod
    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        """Return the most recently active sessions of an agent.

        They are ordered by `last_activity_at`, then by id, both descending. A stored value that is not a readable
        session is logged as an error and left out.

        Args:
            tenant_id: The tenant.
            agent_id: The agent.
            status: If given, return only sessions with this status.
            limit: Maximum number of sessions; fewer are returned only if no more exist.

        Raises:
            ValidationError: `limit` is negative.
        """

    @abstractmethod
    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        """Return up to `limit` sessions of a customer; order and errors as `list_by_agent`."""

    async def list_by_subject(self, subject: DataSubject) -> list[Session]:
        """Return the sessions listed for a person's profiles and identities, for exports and erasures.

        Includes sessions past `max_session_age` that are still stored, which other methods do not return.
        """
        tenant_id = subject.tenant_id
        by_profile = [await self.list_by_customer(tenant_id, id_, limit=_ALL) for id_ in subject.profile_ids]
        by_identity = [
            await self.list_by_channel(tenant_id, *identity, limit=_ALL) for identity in subject.identities
        ]
        return [session for listed in (*by_profile, *by_identity) for session in listed]

    @abstractmethod
    async def find_sessions_by_step_hash(
        self,
        tenant_id: UUID,
        scenario_id: UUID,
        scenario_version: int,
        step_content_hash: str,
        scope_filter: ScopeFilter | None = None,
    ) -> list[Session]:
        """Return all active sessions whose current step has a content hash; order as `list_by_agent`.

        Args:
            tenant_id: The tenant.
            scenario_id: The active scenario of the sessions.
            scenario_version: The active version of the scenario.
            step_content_hash: The content hash of their last step visit.
            scope_filter: If given, return only matching sessions. Ages count from `created_at`, with inclusive
                limits; node names are compared with the `step_name` of the last visit.
        """

    @abstractmethod
    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        """Set `pending_migration` of sessions, such as those found by `find_sessions_by_step_hash`.

        The revision increases by one; nothing else changes, and lifetimes are not extended. Concurrent saves are
        preserved, except that a session that was read before and is saved after the mark without `if_revision`
        loses the mark. Ids that do not exist or belong to another tenant are skipped. In Redis this takes two
        round trips per 1,000 sessions, more on a cluster.

        Returns:
            The number of sessions marked.

        Raises:
            ConflictError: Some sessions changed during every attempt to mark them; the others are marked.
        """

    @abstractmethod
    async def health_check(self) -> bool:
        """Return whether the store is reachable and ready for writes. Never raises."""


class UnitSessions(ABC):
    """The sessions of a unit of work: saves commit or roll back with everything else in it.

    Raises (every method): as the methods of `SessionStore`.
    """

    @abstractmethod
    async def get(self, session_id: UUID, *, tenant_id: UUID | None = None) -> Session | None:
        """Return the session as this unit sees it, or None; the arguments are those of `SessionStore.get`."""

    @abstractmethod
    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        """Save the session as `SessionStore.save` does. Redis is written after the commit.

        With `if_revision` the save is collected: a ConflictError is raised where it is sent (see `UnitOfWork.flush`).

        After a rollback or a ConflictError, read the session again: its `revision` and `last_activity_at` are those of
        the save that was undone.
        """
