"""The declarative base, mixins for mapped classes, and the column type of documents."""

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
    Connection,
    DateTime,
    Dialect,
    Double,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    Uuid,
    cast,
    event,
    inspect,
    literal_column,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Relationship, mapped_column, relationship

from soldier_data.base.models import new_id, utcnow
from soldier_data.postgres.vector_types import (
    EmbeddingVector as EmbeddingVector,  # noqa: PLC0414 - migrations import it from here.
)


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
        float: Double,
        list[float]: EmbeddingVector,
        # Columns that are searched by containment declare JSONB themselves.
        dict[str, Any]: Document,
    }


def listed(join: str, order_by: str) -> Relationship[Any]:
    """A relationship that reads the rows that a store would list, in the same order.

    Args:
        join: The condition that both rows meet, which compares their tenants.
        order_by: The order of the rows.
    """
    return relationship(primaryjoin=join, order_by=order_by, viewonly=True, lazy="raise")


class TenantKey:
    """Primary key of all tables. It begins with the tenant, so that rows of different tenants cannot collide."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-2)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-1)


class Revisioned:
    """Columns of rows that can be updated.

    A flush of a changed object increments the revision and sets the time and the write_id, as a store does. It raises
    SQLAlchemy's `StaleDataError` if the row has a different revision by then.

    Attributes:
        write_id: Unique to each call that writes. A call that is repeated after a lost reply finds its own write_id
            in the row, and knows that it has taken effect.
    """

    created_at: Mapped[datetime] = mapped_column(default=utcnow, sort_order=100)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, sort_order=101)
    revision: Mapped[int] = mapped_column(default=1, sort_order=103)
    write_id: Mapped[UUID] = mapped_column(default=new_id, sort_order=104)
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": revision}


# Not `onupdate` of the columns: the stores' statements are compiled from the same tables.
@event.listens_for(Revisioned, "before_update", propagate=True)
def _mark_updated(_mapper: Mapper[Any], _connection: Connection, row: Revisioned) -> None:
    if inspect(row).session.is_modified(row):
        row.updated_at, row.write_id = utcnow(), new_id()


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
