"""The declarative base, the column groups that tables share, and the type of embedding columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnClause,
    DateTime,
    Float,
    Index,
    MetaData,
    Operators,
    Text,
    Uuid,
    literal_column,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine, UserDefinedType

from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.statements import EXTENSIONS, quoted


class EmbeddingVector(UserDefinedType[list[float]]):
    """A pgvector column whose length is `SOLDIER_EMBEDDING_DIMENSIONS`.

    The length is looked up when DDL is written, so that models and migrations can never disagree about it.
    Values travel in pgvector's binary form, by the codec that `engine.py` gives each connection.

    Args:
        length: Another length, of a column that migrations find or leave behind.
    """

    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def get_col_spec(self, **_kw: Any) -> str:
        """The type as DDL spells it: public.VECTOR(1536)."""
        return f"{quoted(ddl_options().extensions_schema)}.VECTOR({self.dimensions})"

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.length or ddl_options().embedding_dimensions

    class Comparator(TypeEngine.Comparator[list[float]]):
        """Adds pgvector's operators to columns."""

        def cosine_distance(self, other: Any) -> Operators:
            """1 minus the cosine of the angle: 0 (same direction) to 2 (opposite)."""
            return self.op(f"OPERATOR({EXTENSIONS}.<=>)", return_type=Float())(other)

    comparator_factory = Comparator


# A page of PostgreSQL has 8 kB; the other columns of a row need some of it.
_LARGEST_INLINE_DIMENSIONS = 1_792


def vector_storage() -> str:
    """How PostgreSQL keeps vectors: PLAIN, in the rows themselves, where they fit, else EXTERNAL.

    It would move values above 2 kB out of line and try to compress them, which float32 numbers resist. An exact
    search of 10,000 vectors with 1,536 numbers takes 40 ms that way, and 12 ms in line.
    """
    return "PLAIN" if EmbeddingVector().dimensions <= _LARGEST_INLINE_DIMENSIONS else "EXTERNAL"


STORED_INLINE = {"storage": "MAIN"}
"""The `info` of a column that vector searches are filtered by.

Beside a vector of 6 kB PostgreSQL would move it out of line, and a filter would fetch it for each row.
"""


def column_storage(column: Column[Any]) -> str | None:
    """How PostgreSQL is to keep a column: what its `info["storage"]` says, such as MAIN; None is the type's own way."""
    if isinstance(column.type, EmbeddingVector):
        return vector_storage()
    storage: str | None = column.info.get("storage")
    return storage


class Base(DeclarativeBase):
    """Base of every ORM class. Its metadata is what Alembic compares the database with."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        UUID: Uuid,
        datetime: DateTime(timezone=True),
        int: BigInteger,
        list[str]: ARRAY(Text),
        list[UUID]: ARRAY(Uuid),
        list[float]: EmbeddingVector,
        # JSON keeps the text as it was written, so that a document comes back exactly: JSONB turns 1e22 into an
        # integer. Columns that are searched by containment say JSONB themselves.
        dict[str, Any]: JSON,
    }


class TenantKey:
    """The primary key of every table: the tenant first, so that rows of tenants cannot meet."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-2)
    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)


class Revisioned:
    """Columns of rows that can be changed.

    Attributes:
        write_id: Made anew for each call that writes. A call that is repeated because its reply was lost finds
            its own write_id in the row and knows that it has taken effect.
    """

    created_at: Mapped[datetime] = mapped_column(sort_order=100)
    updated_at: Mapped[datetime] = mapped_column(sort_order=101)
    revision: Mapped[int] = mapped_column(sort_order=103)
    write_id: Mapped[UUID] = mapped_column(sort_order=104)


class SoftDeleted:
    """Rows that a deletion hides, and a purge removes."""

    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=102)


LIVING: ColumnClause[bool] = literal_column("deleted_at IS NULL")
"""The predicate of indexes that hold living rows alone."""


def purge_index(table: str) -> Index:
    """What a purge reads: the deleted rows of a tenant, by age."""
    return Index(
        f"ix_{table}_purge",
        "tenant_id",
        "deleted_at",
        postgresql_where=literal_column("deleted_at IS NOT NULL"),
    )
