"""Options of DDL: the dimensions of embeddings, their index, and the schema of the extensions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect

from soldier_data.settings import Settings


@dataclass(frozen=True, slots=True)
class DDLOptions:
    """Settings that types, indexes and extensions are rendered with.

    Attributes:
        embedding_dimensions: Number of dimensions of embeddings.
        vector_index: Type of the index of embeddings: "hnsw", "ivfflat" or "none".
        extensions_schema: Schema of pgvector and pg_trgm.
    """

    embedding_dimensions: int
    vector_index: str
    extensions_schema: str

    @classmethod
    def of(cls, settings: Settings) -> DDLOptions:
        """The options in `settings`."""
        return cls(settings.embedding_dimensions, settings.vector_index, settings.extensions_schema)


_options: ContextVar[DDLOptions | None] = ContextVar("ddl_options", default=None)


def ddl_options() -> DDLOptions:
    """The current options: those of the enclosing `use_ddl_options()`, else those of the environment's settings."""
    return _options.get() or DDLOptions.of(Settings())


@contextmanager
def use_ddl_options(options: DDLOptions) -> Iterator[None]:
    """Render DDL with `options` inside the block."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


_extensions_schemas: WeakKeyDictionary[Dialect, str] = WeakKeyDictionary()


def set_extensions_schema(dialect: Dialect, schema: str) -> None:
    """Render types and operators of extensions with `schema` on the engine that has this dialect."""
    _extensions_schemas[dialect] = schema


def extensions_schema(dialect: Dialect | None) -> str:
    """The schema of the extensions on the engine that has this dialect, else that of the current options."""
    known = _extensions_schemas.get(dialect) if dialect else None
    return known or ddl_options().extensions_schema
