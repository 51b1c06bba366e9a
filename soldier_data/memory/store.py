"""The contract of the memory store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from soldier_data.base.embedded_texts import EmbeddedTextStore
from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject, SubjectStore
from soldier_data.memory.models import ContentType, Entity, EntityHit, Episode, EpisodeHit, Relationship


class MemoryStore(EmbeddedTextStore, SubjectStore):
    """What agents remember: episodes, and a graph of entities and relationships.

    Adding takes a new id: one that is stored, even under a deleted row, is a ConflictError. What is added comes
    back as it was, embeddings to float32 precision.

    Deletions are soft: what is deleted is gone from every read and search at once, and `purge_deleted` removes it
    for good later. A relationship lives only while both of its entities do.

    What is returned is the caller's own copy. Lists come in a fixed order; ties go by id. A call whose reply is
    lost with the connection is repeated, and has one effect.

    Of a person (`SubjectStore`) are the episodes with their customer_profile_id; those that name no customer, but
    one of the person's sessions, or mention the person in group_id or source_metadata; the entities that these
    episodes mention and no other episode does; the entities and relationships of groups in which all episodes are
    the person's, and those that mention the person in group_id or attributes; and the relationships of all these
    entities.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; a field of an entity does not take
            what it holds, or a derived class adds one; a text holds NUL or half of a
            surrogate pair, a JSON value is no JSON, an embedding has the wrong length, is not finite or is the
            zero vector; a moment has no time zone; a limit is negative; a group_id that is to be stored is longer
            than 2,000 bytes. Names the field.
    """

    # -- episodes --------------------------------------------------------------------------------------------

    @abstractmethod
    async def add_episode(self, episode: Episode) -> UUID:
        """Add the episode; returns its id.

        Raises:
            ConflictError: The id exists.
        """

    @abstractmethod
    async def add_episodes(self, episodes: Iterable[Episode]) -> int:
        """Add any number of episodes of one tenant, all or nothing; returns how many.

        Raises:
            ConflictError: An id exists, or is in the list twice.
            ValidationError: An episode cannot be stored, or is another tenant's than the first. Names its place.
        """

    @abstractmethod
    async def get_episode(self, tenant_id: UUID, episode_id: UUID) -> Episode | None:
        """The episode, or None if the tenant has none of that id."""

    @abstractmethod
    async def get_episodes(
        self, tenant_id: UUID, group_id: str, *, limit: int = 100, before: Cursor | None = None
    ) -> list[Episode]:
        """One page of the group's episodes, newest first: by occurred_at, then id, both falling.

        Args:
            tenant_id: The tenant.
            group_id: The group.
            limit: Size of the page.
            before: Where the page begins: `Cursor.after` the last episode of the page before it.
        """

    @abstractmethod
    async def delete_episode(self, tenant_id: UUID, episode_id: UUID) -> bool:
        """Delete the episode; True the first time."""

    @abstractmethod
    async def vector_search_episodes(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        group_id: str | None = None,
        agent_id: UUID | None = None,
        customer_profile_id: UUID | None = None,
        session_id: UUID | None = None,
        content_type: ContentType | None = None,
        occurred_after: datetime | None = None,
        occurred_before: datetime | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
    ) -> list[EpisodeHit]:
        """The episodes whose embedding is closest to the query.

        Each comes with its score, the cosine similarity (-1 to 1), best first. Episodes without an embedding, or
        that score below `min_score`, are left out.

        Args:
            query_embedding: As long as SOLDIER_EMBEDDING_DIMENSIONS.
            tenant_id: The tenant.
            group_id: Only episodes of this group.
            agent_id: Only episodes of this agent.
            customer_profile_id: Only episodes of this customer.
            session_id: Only episodes of this session.
            content_type: Only episodes of this type.
            occurred_after: Only episodes that occurred at this moment or later.
            occurred_before: Only episodes that occurred earlier than this moment.
            limit: The most that are returned.
            min_score: The least score.
            embedding_model: Only episodes whose embedding is by this model, as the query's is; by default by the
                one in SOLDIER_EMBEDDING_MODEL, and where that is not set either, by any.
        """

    @abstractmethod
    async def text_search_episodes(
        self,
        query: str,
        tenant_id: UUID,
        *,
        group_id: str | None = None,
        agent_id: UUID | None = None,
        customer_profile_id: UUID | None = None,
        session_id: UUID | None = None,
        content_type: ContentType | None = None,
        occurred_after: datetime | None = None,
        occurred_before: datetime | None = None,
        limit: int = 10,
    ) -> list[Episode]:
        """The episodes whose content contains every word of the query, newest first as in `get_episodes`.

        Words are what stands between white space; each may be part of a longer word in the content. Upper and
        lower case are alike by Unicode's case folding ("STRASSE" finds "Straße"). No character has a special
        meaning. A query without words finds nothing. Filters as in `vector_search_episodes`.
        """

    @abstractmethod
    async def hybrid_search_episodes(
        self,
        query: str,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        group_id: str | None = None,
        agent_id: UUID | None = None,
        customer_profile_id: UUID | None = None,
        session_id: UUID | None = None,
        content_type: ContentType | None = None,
        occurred_after: datetime | None = None,
        occurred_before: datetime | None = None,
        limit: int = 10,
        embedding_model: str | None = None,
    ) -> list[EpisodeHit]:
        """Text search and vector search in one, by reciprocal-rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009).

        An episode's score is the sum of 1 / (60 + rank) over the two rankings that it occurs in: its place,
        counted from 1, in `text_search_episodes` and in `vector_search_episodes` without a least score. Of each
        ranking the first `limit` episodes are fused, but no fewer than 100. Best score first. Filters as in
        `vector_search_episodes`; of these, `embedding_model` is for the ranking by vectors alone.
        """

    # -- entities --------------------------------------------------------------------------------------------

    @abstractmethod
    async def add_entity(self, entity: Entity) -> UUID:
        """Add the entity; returns its id.

        Raises:
            ConflictError: The id exists.
        """

    @abstractmethod
    async def get_entity(self, tenant_id: UUID, entity_id: UUID) -> Entity | None:
        """The entity, or None."""

    @abstractmethod
    async def get_entities(
        self, tenant_id: UUID, group_id: str, *, entity_type: str | None = None, limit: int = 100
    ) -> list[Entity]:
        """The group's entities, or those of one type, by recorded_at."""

    @abstractmethod
    async def update_entity(self, entity: Entity) -> bool:
        """Replace all of the entity but its tenant and id; False if there is no such entity."""

    @abstractmethod
    async def delete_entity(self, tenant_id: UUID, entity_id: UUID) -> bool:
        """Delete the entity with its relationships; True the first time."""

    @abstractmethod
    async def vector_search_entities(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        group_id: str | None = None,
        entity_type: str | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
    ) -> list[EntityHit]:
        """As `vector_search_episodes`, for entities."""

    # -- relationships ---------------------------------------------------------------------------------------

    @abstractmethod
    async def add_relationship(self, relationship: Relationship) -> UUID:
        """Add the relationship; returns its id. Its entities may be of any groups of the tenant.

        Raises:
            NotFoundError: One of the entities does not exist in the tenant, or is deleted.
            ConflictError: The id exists.
        """

    @abstractmethod
    async def get_relationship(self, tenant_id: UUID, relationship_id: UUID) -> Relationship | None:
        """The relationship, or None."""

    @abstractmethod
    async def get_relationships(
        self,
        tenant_id: UUID,
        group_id: str,
        *,
        from_entity_id: UUID | None = None,
        to_entity_id: UUID | None = None,
        relation_type: str | None = None,
    ) -> list[Relationship]:
        """The group's relationships, or those from or to an entity or of one type, by recorded_at."""

    @abstractmethod
    async def update_relationship(self, relationship: Relationship) -> bool:
        """Replace all of the relationship but its tenant and id; False if there is no such one.

        Raises:
            NotFoundError: One of the entities that it leads to now does not exist in the tenant, or is deleted.
        """

    @abstractmethod
    async def delete_relationship(self, tenant_id: UUID, relationship_id: UUID) -> bool:
        """Delete the relationship; True the first time."""

    # -- the graph and the whole -----------------------------------------------------------------------------

    @abstractmethod
    async def traverse_from_entities(
        self,
        entity_ids: Iterable[UUID],
        tenant_id: UUID,
        group_id: str,
        *,
        depth: int = 2,
        relation_types: Iterable[str] | None = None,
        limit: int = 1_000,
        with_embeddings: bool = False,
    ) -> list[Entity]:
        """The entities that are reached from these by up to `depth` relationships, inside the group.

        Relationships are followed both ways. The starts come first (those that are of the group), then what is
        one relationship away, and so on; inside a distance by id; each entity once, at its least distance. With a
        depth below 1, or without ids, the result is empty.

        The time it takes grows with the number of relationships of the entities that it goes on from, and with
        nothing else. It ends when `limit` entities are found, so that no depth leads further than `limit` steps; all
        relationships of the last ones it goes on from are read all the same, to find which come first by id.

        Args:
            entity_ids: The starts.
            tenant_id: The tenant.
            group_id: The group that every entity and relationship on the way is of.
            depth: The most relationships between a start and what is reached.
            relation_types: Only relationships of these types are followed; of an empty list, none.
            limit: The most entities that are returned, starts included: the first in the order above.
            with_embeddings: Whether entities come with their embeddings. Without, `embedding` is None: do not pass
                such an entity to `update_entity`, which would remove what is stored.
        """

    @abstractmethod
    async def delete_by_group(self, tenant_id: UUID, group_id: str) -> int:
        """Delete all episodes, entities and relationships of the group; returns how many.

        With the entities go their relationships, those of other groups included. Outside of a unit of work it goes
        part by part, each kept: if it fails, call it again for the rest.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Remove for good what was deleted longer ago than `older_than`; returns how many went.

        Outside of a unit of work it goes part by part, each kept: if it fails, call it again for the rest. A removal
        leaves nothing to know it by: a part that is repeated because its reply was lost is not counted.
        """

    # -- data subjects ---------------------------------------------------------------------------------------

    @abstractmethod
    async def list_subject_sessions(self, subject: DataSubject) -> list[UUID]:
        """The sessions that the person's episodes are of, in order."""
