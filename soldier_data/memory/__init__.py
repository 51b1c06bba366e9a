"""The memory of agents: episodes, and a graph of entities and relationships."""

from soldier_data.memory.inmemory import InMemoryMemoryStore
from soldier_data.memory.models import (
    ContentType,
    Entity,
    EntityHit,
    Episode,
    EpisodeFilter,
    EpisodeHit,
    EpisodeSource,
    Relationship,
)
from soldier_data.memory.postgres import PostgresMemoryStore
from soldier_data.memory.store import MemoryStore

__all__ = [
    "ContentType",
    "Entity",
    "EntityHit",
    "Episode",
    "EpisodeFilter",
    "EpisodeHit",
    "EpisodeSource",
    "InMemoryMemoryStore",
    "MemoryStore",
    "PostgresMemoryStore",
    "Relationship",
]
