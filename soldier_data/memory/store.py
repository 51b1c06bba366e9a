"""The contract of the memory store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Unpack
from uuid import UUID

from soldier_data.base.embedded_texts import EmbeddedTextStore
from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject, SubjectStore
from soldier_data.memory.models import Entity, EntityHit, Episode, EpisodeFilter, EpisodeHit, Relationship


class MemoryStore(EmbeddedTextStore, SubjectStore):
    """The memory of agents: episodes, and a graph of entities and relationships.

    Adding requires a new id: one that is not stored, not even for a deleted item. Embeddings are stored as float32.

    Deletions are soft: reads and searches no longer return the item, and `purge_deleted` removes it later. A
    relationship is not returned if one of its entities is deleted. Reads return copies, which the caller may change.
    Calls are repeated after a lost connection and take effect once.

    `list_to_embed` lists the contents of episodes.

    The records of a data subject (see `SubjectStore`) are:

    - episodes with the customer_profile_id of the person;
    - episodes without a customer_profile_id that belong to one of the person's sessions, or mention the person in
      group_id or source_metadata;
    - entities that only these episodes mention, and entities and relationships that mention the person in group_id or
      attributes;
    - entities and relationships of groups whose episodes are all the person's;
    - all relationships of these entities.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; a field of an item has an invalid
            value, or a derived class adds a field; a text contains NUL or an unpaired surrogate; a value is not valid
            JSON; an embedding has the wrong number of dimensions, is not finite or is the zero vector; a datetime has
            no time zone; a limit is negative; the group_id of a stored item is longer than 2,000 bytes. Names the
            field.
    """

    # -- episodes --------------------------------------------------------------------------------------------

    @abstractmethod
    async def add_episode(self, episode: Episode) -> UUID:
        """Add an episode; return its id.

        Raises:
            ConflictError: The id is taken.
        """

    @abstractmethod
    async def add_episodes(self, episodes: Iterable[Episode]) -> int:
        """Add any number of episodes of one tenant, all or none; return their number.

        Raises:
            ConflictError: An id is taken, or is in the list twice.
            ValidationError: An episode cannot be stored, or belongs to another tenant than the first. Names its place.
        """

    @abstractmethod
    async def get_episode(self, tenant_id: UUID, episode_id: UUID) -> Episode | None:
        """Return the episode, or None if the tenant has no episode with this id."""

    @abstractmethod
    async def get_episodes(
        self, tenant_id: UUID, group_id: str, *, limit: int = 100, before: Cursor | None = None
    ) -> list[Episode]:
        """Return one page of the group's episodes, newest first: by occurred_at and id, descending.

        Args:
            tenant_id: The tenant.
            group_id: The group.
            limit: Maximum number of episodes.
            before: `Cursor.after` the last episode of the previous page; None for the first page.
        """

    @abstractmethod
    async def delete_episode(self, tenant_id: UUID, episode_id: UUID) -> bool:
        """Delete an episode; return whether it existed."""

    @abstractmethod
    async def vector_search_episodes(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
        **filters: Unpack[EpisodeFilter],
    ) -> list[EpisodeHit]:
        """Return the episodes whose embeddings are most similar to the query, best first, ties by id.

        Args:
            query_embedding: The query, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
            tenant_id: The tenant.
            limit: Maximum number of episodes.
            min_score: Minimum cosine similarity, -1 to 1.
            embedding_model: Only episodes whose embedding this model made. Defaults to SOLDIER_EMBEDDING_MODEL; if
                that is not set, embeddings of all models are compared.
            **filters: Restrict the search to some of the episodes: see `EpisodeFilter`.

        Returns:
            Pairs of an episode and its score, the cosine similarity. Episodes without an embedding are left out.
        """

    @abstractmethod
    async def text_search_episodes(
        self,
        query: str,
        tenant_id: UUID,
        *,
        limit: int = 10,
        **filters: Unpack[EpisodeFilter],
    ) -> list[Episode]:
        """Return the episodes whose content contains every word of the query, newest first as in `get_episodes`.

        Words are separated by white space, and also match inside longer words. Case is ignored by Unicode's case
        folding: "STRASSE" matches "Straße". No character has a special meaning. The result is empty if the query
        contains no word. Filters and `limit` as in `vector_search_episodes`.
        """

    @abstractmethod
    async def hybrid_search_episodes(
        self,
        query: str,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        limit: int = 10,
        embedding_model: str | None = None,
        **filters: Unpack[EpisodeFilter],
    ) -> list[EpisodeHit]:
        """Return the best episodes of a text search and a vector search combined, best first, ties by id.

        The two rankings are combined by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): the score
        of an episode is the sum of 1 / (60 + rank) over the rankings that contain it. Ranks count from 1, in the order
        of `text_search_episodes` and of `vector_search_episodes` without a minimum score. Each ranking contributes its
        first `limit` episodes, but at least 100.

        Filters as in `vector_search_episodes`; `embedding_model` applies to the vector search only.

        Returns:
            Pairs of an episode and its score.
        """

    # -- entities --------------------------------------------------------------------------------------------

    @abstractmethod
    async def add_entity(self, entity: Entity) -> UUID:
        """Add an entity; return its id.

        Raises:
            ConflictError: The id is taken.
        """

    @abstractmethod
    async def get_entity(self, tenant_id: UUID, entity_id: UUID) -> Entity | None:
        """Return the entity, or None if the tenant has no entity with this id."""

    @abstractmethod
    async def get_entities(
        self, tenant_id: UUID, group_id: str, *, entity_type: str | None = None, limit: int = 100
    ) -> list[Entity]:
        """Return the group's entities, by recorded_at and id.

        Args:
            tenant_id: The tenant.
            group_id: The group.
            entity_type: Only entities of this type; None for all.
            limit: Maximum number of entities.
        """

    @abstractmethod
    async def update_entity(self, entity: Entity) -> bool:
        """Replace all fields of an entity except its tenant and id; return whether the entity existed."""

    @abstractmethod
    async def delete_entity(self, tenant_id: UUID, entity_id: UUID) -> bool:
        """Delete an entity and its relationships; return whether it existed."""

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
        """Return the entities whose embeddings are most similar to the query, best first, ties by id.

        Arguments and result as in `vector_search_episodes`; `entity_type` restricts the search to entities of one
        type.
        """

    # -- relationships ---------------------------------------------------------------------------------------

    @abstractmethod
    async def add_relationship(self, relationship: Relationship) -> UUID:
        """Add a relationship between two entities of the tenant, in any groups; return its id.

        Raises:
            NotFoundError: The tenant has no such entity, or it is deleted.
            ConflictError: The id is taken.
        """

    @abstractmethod
    async def get_relationship(self, tenant_id: UUID, relationship_id: UUID) -> Relationship | None:
        """Return the relationship, or None if the tenant has no relationship with this id."""

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
        """Return the group's relationships, by recorded_at and id.

        Args:
            tenant_id: The tenant.
            group_id: The group.
            from_entity_id: Only relationships from this entity; None for all.
            to_entity_id: Only relationships to this entity; None for all.
            relation_type: Only relationships of this type; None for all.
        """

    @abstractmethod
    async def update_relationship(self, relationship: Relationship) -> bool:
        """Replace all fields of a relationship except its tenant and id; return whether the relationship existed.

        Raises:
            NotFoundError: The tenant has no such entity as the new from_entity_id or to_entity_id, or it is deleted.
        """

    @abstractmethod
    async def delete_relationship(self, tenant_id: UUID, relationship_id: UUID) -> bool:
        """Delete a relationship; return whether it existed."""

    # -- traversal, groups and purging -----------------------------------------------------------------------

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
        """Return the entities within `depth` relationships of the given ones, inside one group.

        Relationships are followed in both directions. The result starts with those of `entity_ids` that are in the
        group, followed by their neighbours, and so on: each entity once, by distance and id.

        The running time depends only on the number of relationships of the visited entities. The traversal stops when
        it has found `limit` entities, but it reads all relationships of the last ones it visits to determine the order
        by id.

        Args:
            entity_ids: The entities to start from. The result is empty if there are none.
            tenant_id: The tenant.
            group_id: The group of every entity and relationship on the path.
            depth: Maximum distance. The result is empty if it is less than 1.
            relation_types: Follow only relationships of these types; None for all.
            limit: Maximum number of entities, including those to start from.
            with_embeddings: Whether to read embeddings. Without, `embedding` is None: do not pass such an entity to
                `update_entity`, which would remove the stored embedding.
        """

    @abstractmethod
    async def delete_by_group(self, tenant_id: UUID, group_id: str) -> int:
        """Delete all episodes, entities and relationships of a group; return their number.

        Relationships of other groups are deleted with their entities. Outside of a unit of work the items are deleted
        in batches, each in a transaction of its own: after an error, call it again.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Permanently remove items that were deleted longer ago than `older_than`; return their number.

        Outside of a unit of work the items are removed in batches, each in a transaction of its own: after an error,
        call it again. A batch that is repeated because its reply was lost is not counted.
        """

    # -- data subjects ---------------------------------------------------------------------------------------

    @abstractmethod
    async def list_subject_sessions(self, subject: DataSubject) -> list[UUID]:
        """Return the ids of the sessions that the person's episodes belong to, sorted."""
