"""The declarative base, mixins for mapped classes, and the column type of embeddings."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnClause,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    Uuid,
    cast,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.statements import quoted


class EmbeddingVector(UserDefinedType[list[float]]):
    """A pgvector column with `SOLDIER_EMBEDDING_DIMENSIONS` dimensions.

    The number of dimensions is read when DDL is rendered, so that models and migrations always agree. Values are sent
    in pgvector's binary format, by the codec that `engine.py` registers on each connection.

    Args:
        length: A different number of dimensions, for columns that migrations reflect.
    """

    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def get_col_spec(self, **_kw: Any) -> str:
        """The type in DDL, such as public.VECTOR(1536)."""
        return f"{quoted(ddl_options().extensions_schema)}.VECTOR({self.dimensions})"

    @property
    def dimensions(self) -> int:
        """Number of dimensions."""
        return self.length or ddl_options().embedding_dimensions

    class Comparator(TypeEngine.Comparator[list[float]]):
        """Adds pgvector's distances to columns."""

        def cosine_distance(self, other: Any) -> ColumnElement[float]:
            """Cosine distance: 0 (same direction) to 2 (opposite direction)."""
            return _CosineDistance(self.expr, other)

        def l2_distance(self, other: Any) -> ColumnElement[float]:
            """Euclidean distance."""
            return _L2Distance(self.expr, other)

        def max_inner_product(self, other: Any) -> ColumnElement[float]:
            """The inner product, negated: the smaller, the more similar."""
            return _NegativeInnerProduct(self.expr, other)

    comparator_factory = Comparator


class _Distance(FunctionElement[float]):
    """A distance between two vectors. Its operator is qualified with the schema of pgvector."""

    type = Float()
    inherit_cache = True
    operator: str

    def __init__(self, column: ColumnElement[Any], other: Any) -> None:
        # A list would be taken for several arguments.
        super().__init__(column, literal(other, column.type) if isinstance(other, list) else other)


class _CosineDistance(_Distance):
    operator = "<=>"
    inherit_cache = True


class _L2Distance(_Distance):
    operator = "<->"
    inherit_cache = True


class _NegativeInnerProduct(_Distance):
    operator = "<#>"
    inherit_cache = True


@compiles(_Distance)
def _render_distance(element: _Distance, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({left} OPERATOR({quoted(ddl_options().extensions_schema)}.{element.operator}) {right})"


class Document(TypeDecorator[Any]):
    """A JSON column that preserves documents exactly: JSONB would turn 1e22 into an integer.

    It is selected as text, whatever JSON codec the connection has. The stores parse the text with Pydantic, three
    times as fast as `json.loads`.
    """

    impl = JSON
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select the text of the document."""
        return type_coerce(cast(column, Text), self)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - as SQLAlchemy calls it.
        """Parse the text, for selects that SQLAlchemy runs."""
        return None if value is None else json.loads(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare as JSON does."""
        return self.impl_instance.coerce_compared_value(op, value)


# A row has to fit a page of 8 kB, with some space for the other columns.
_LARGEST_INLINE_DIMENSIONS = 1_792


def vector_storage() -> str:
    """The storage strategy of vectors: PLAIN (inline) if they fit the row, else EXTERNAL.

    By default PostgreSQL stores values above 2 kB out of line, after an attempt at compression that float32 numbers
    do not benefit from. An exact search of 10,000 vectors with 1,536 dimensions takes 40 ms that way, 12 ms inline.
    """
    return "PLAIN" if EmbeddingVector().dimensions <= _LARGEST_INLINE_DIMENSIONS else "EXTERNAL"


STORED_INLINE = {"storage": "MAIN"}
"""Set as `info` of columns that vector searches filter by.

PostgreSQL would store them out of line to make room for a vector of 6 kB, and a filter would fetch them for each row.
"""


def column_storage(column: Column[Any]) -> str | None:
    """The storage strategy of a column: its `info["storage"]`, such as MAIN; None for the default of its type."""
    if isinstance(column.type, EmbeddingVector):
        return vector_storage()
    storage: str | None = column.info.get("storage")
    return storage


class Base(DeclarativeBase):
    """Declarative base of all mapped classes. Alembic compares the database with its metadata."""

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
        # Columns that are searched by containment declare JSONB themselves.
        dict[str, Any]: Document,
    }


class TenantKey:
    """Primary key of all tables. It begins with the tenant, so that rows of different tenants cannot collide."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-2)
    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)


class Revisioned:
    """Columns of rows that can be updated.

    Attributes:
        write_id: Unique to each call that writes. A call that is repeated after a lost reply finds its own write_id
            in the row, and knows that it has taken effect.
    """

    created_at: Mapped[datetime] = mapped_column(sort_order=100)
    updated_at: Mapped[datetime] = mapped_column(sort_order=101)
    revision: Mapped[int] = mapped_column(sort_order=103)
    write_id: Mapped[UUID] = mapped_column(sort_order=104)


class SoftDeleted:
    """Column of soft-deleted rows, which reads hide and a purge removes."""

    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=102)


LIVING: ColumnClause[bool] = literal_column("deleted_at IS NULL")
"""Predicate of indexes that contain only rows that are not deleted."""


def purge_index(table: str) -> Index:
    """The index that a purge reads: the deleted rows of a tenant by age."""
    return Index(
        f"ix_{table}_purge",
        "tenant_id",
        "deleted_at",
        postgresql_where=literal_column("deleted_at IS NOT NULL"),
    )
