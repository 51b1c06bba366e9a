"""The contract of session stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from uuid import UUID

from soldier_data.base.arguments import ChecksArguments
from soldier_data.base.channels import Channel
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.sessions.models import PendingMigration, Session, SessionStatus


class SessionStore(ChecksArguments, ABC):
    """Keeps the state of conversations between turns.

    A session lives for `persist_ttl` after its last save, but never beyond `max_session_age` after its
    `created_at`; from then on no method returns it. What comes back is a copy: changing it changes nothing
    until it is saved.

    A call whose reply is lost with the connection is repeated, and has one effect.

    Every method raises `StoreConnectionError` when the server cannot be reached or does not answer in time,
    and `ValidationError`, which names the field, for an argument of a wrong type and for text that cannot be
    stored: with NUL, or half of a surrogate pair.
    """

    @abstractmethod
    async def get(self, session_id: UUID, *, tenant_id: UUID | None = None) -> Session | None:
        """The session, or None if there is none; with `tenant_id`, also None if it is another tenant's.

        Raises:
            StoreError: What is stored is not a session that this version can read. It is left as it is.
        """

    @abstractmethod
    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        """Store the session as it is now and return its id.

        On success `last_activity_at` is set to the present and `revision` to the stored revision (one more
        than the one replaced, 1 for a new session). On failure the passed session is unchanged.

        Args:
            session: The session to store. It replaces what is there.
            if_revision: Store only if this is the stored revision; 0 means that no session may be there yet.
                None means that the last save wins.

        Raises:
            ConflictError: The stored revision is not `if_revision`; or the id belongs to another tenant.
            ValidationError: A value cannot be stored, or the session is older than `max_session_age`.
            StoreError: What is stored under the id is not a session that this version can read. It is left
                as it is.
        """

    @abstractmethod
    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        """Remove the session for good; with `tenant_id`, only if it is that tenant's.

        Returns:
            Whether there was one to remove.
        """

    @abstractmethod
    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        """Remove sessions of the tenant for good, with every index entry that leads to them.

        Ids of no session, or of another tenant's, are skipped. Takes few round trips, however many there are.

        Returns:
            How many sessions were removed.

        Raises:
            StoreError: What is stored under an id is not a session that this version can read. It is left as it
                is; other sessions may be removed already, and calling again removes the others.
        """

    @abstractmethod
    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        """The most recently saved session of a customer's address on a channel, whatever its status."""

    @abstractmethod
    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, *, limit: int = 100
    ) -> list[Session]:
        """Sessions of a customer's address on a channel; order, limit and errors as in `list_by_agent`."""

    @abstractmethod
    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        """Sessions of an agent, last activity first (ties by falling id), at most `limit`.

        With `status`, sessions of that status alone; `limit` of them are returned whenever so many exist.
        A stored value that is not a readable session is logged as an error and left out.

        Raises:
            ValidationError: `limit` is negative.
        """

    @abstractmethod
    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        """Sessions of a customer; order, limit and errors as in `list_by_agent`."""

    @abstractmethod
    async def find_sessions_by_step_hash(
        self,
        tenant_id: UUID,
        scenario_id: UUID,
        scenario_version: int,
        step_content_hash: str,
        scope_filter: ScopeFilter | None = None,
    ) -> list[Session]:
        """All sessions that stand at a scenario step, last activity first.

        These are sessions with status `active`, on that version of that scenario, whose last step visit has
        that content hash. Ages in `scope_filter` count from `created_at`; both limits are inclusive.
        `include_current_nodes` and `exclude_current_nodes` compare with the last visit's step name.
        """

    @abstractmethod
    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        """Mark sessions, such as those that `find_sessions_by_step_hash` found, for a scenario migration.

        Only `pending_migration` changes, and `revision` goes up by one: a mark is no activity and prolongs
        nothing. What others save meanwhile is kept and marked; a session that was read before the mark and is
        saved after it without `if_revision` loses it. Ids of no session, or of another tenant's, are skipped.
        Takes few round trips, however many sessions there are.

        Returns:
            How many sessions were marked.

        Raises:
            ConflictError: Sessions changed too often to be marked; the others are.
        """

    @abstractmethod
    async def health_check(self) -> bool:
        """Whether the store answers; never raises."""
