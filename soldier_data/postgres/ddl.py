"""What DDL is written with: the length of embeddings, their index, and the schema of the extensions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from soldier_data.settings import Settings


@dataclass(frozen=True, slots=True)
class DDLOptions:
    """What depends on the settings where SQL spells types, indexes and extensions.

    Attributes:
        embedding_dimensions: Length of embeddings.
        vector_index: The index of embeddings: "hnsw", "ivfflat" or "none".
        extensions_schema: The schema of pgvector and pg_trgm.
    """

    embedding_dimensions: int
    vector_index: str
    extensions_schema: str

    @classmethod
    def of(cls, settings: Settings) -> DDLOptions:
        """The options that `settings` name."""
        return cls(settings.embedding_dimensions, settings.vector_index, settings.extensions_schema)


_options: ContextVar[DDLOptions | None] = ContextVar("ddl_options", default=None)


def ddl_options() -> DDLOptions:
    """The options in force: those of the enclosing `use_ddl_options()`, else those of the environment's settings."""
    return _options.get() or DDLOptions.of(Settings())


@contextmanager
def use_ddl_options(options: DDLOptions) -> Iterator[None]:
    """Write DDL with `options` within the block."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)
