"""SQL statements: written with SQLAlchemy, compiled once, executed by asyncpg.

Compiling and executing through SQLAlchemy's connection costs several times what a short query itself takes (the
figures are in benchmarks/RESULTS.md). A `Statement` therefore keeps the compiled text; the database executes it on
the driver's connection, where asyncpg keeps it prepared.

Every table, and every type and operator of an extension, is named with its schema, so that what a statement means
never hangs on the search_path of the role that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Boolean,
    ClauseElement,
    Column,
    ColumnElement,
    Dialect,
    FromClause,
    Integer,
    Table,
    any_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.ddl import DDLOptions, use_ddl_options
from soldier_data.settings import Settings

_DIALECT: Dialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]

# SQLAlchemy reserves the plain names of columns for itself in INSERT and UPDATE.
_PREFIX = "p_"

# What stands in a compiled text for the two schemas until it is known which they are.
_TABLES, EXTENSIONS = "__tables__", "__extensions__"

# Statements are compiled when their modules are imported, before any settings are known.
_COMPILING = DDLOptions(embedding_dimensions=0, vector_index="none", extensions_schema=EXTENSIONS)


class Schemas(NamedTuple):
    """Where things are in a database.

    Attributes:
        tables: The schema of the tables, SOLDIER_DATABASE_SCHEMA.
        extensions: The schema of pgvector and pg_trgm, SOLDIER_EXTENSIONS_SCHEMA.
    """

    tables: str = "public"
    extensions: str = "public"

    @classmethod
    def of(cls, settings: Settings) -> Schemas:
        """The schemas that `settings` name."""
        return cls(settings.database_schema, settings.extensions_schema)


class Statement:
    """One SQL statement, its parameters named.

    Attributes:
        operation: What the statement does, for error messages: "saving the rule".
    """

    __slots__ = ("_constants", "_names", "_template", "_texts", "operation")

    def __init__(self, operation: str, clause: ClauseElement) -> None:
        with use_ddl_options(_COMPILING):
            compiled = clause.compile(
                dialect=_DIALECT, schema_translate_map={None: _TABLES}, render_schema_translate=True
            )
        self.operation = operation
        self._template = str(compiled)
        self._texts: dict[Schemas, str] = {}
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._names = tuple(
            name.removeprefix(_PREFIX) for name in getattr(compiled, "positiontup", None) or ()
        )

    @property
    def sql(self) -> str:
        """The text where tables and extensions are in the schema public; parameters as asyncpg's: $1, $2, ..."""
        return self.sql_in(Schemas())

    def sql_in(self, schemas: Schemas) -> str:
        """The text for a database whose tables and extensions are in `schemas`."""
        text = self._texts.get(schemas)
        if text is None:
            text = self._template.replace(_TABLES, quoted(schemas.tables))
            text = self._texts[schemas] = text.replace(EXTENSIONS, quoted(schemas.extensions))
        return text

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The parameters in order, taken from `values` by the names given to `param()`.

        Raises:
            ConfigurationError: There is none for one of them.
        """
        constants = self._constants
        try:
            return [constants[name] if name in constants else values[name] for name in self._names]
        except KeyError as error:
            missing = str(error.args[0])
        raise unknown_column(self.operation, missing)


def in_order(names: Sequence[str], values: Mapping[str, Any], operation: str) -> tuple[Any, ...]:
    """A row for COPY: the values of the columns `names`.

    Raises:
        ConfigurationError: There is none for one of them.
    """
    try:
        return tuple(values[name] for name in names)
    except KeyError as error:
        missing = str(error.args[0])
    raise unknown_column(operation, missing)


def unknown_column(operation: str, name: str) -> ConfigurationError:
    """The error for a column of an ORM class that the entity has no value for."""
    return ConfigurationError(
        f"{operation}: the entity has no field for the column {name} of the ORM class: add a field of that name to the "
        "entity, or take the column out of the ORM class"
    )


def quoted(name: str) -> str:
    """The name of a schema, table or role as SQL spells it."""
    return _DIALECT.identifier_preparer.quote(name)


def param(name: str, type_: TypeEngine[Any]) -> BindParameter[Any]:
    """A parameter of a statement."""
    return bindparam(_PREFIX + name, type_=type_)


def column_param(column: Column[Any]) -> BindParameter[Any]:
    """A parameter named and typed as `column`."""
    return param(column.name, column.type)


def has_key(table: Table) -> ColumnElement[bool]:
    """The row that the parameters tenant_id and id lead to."""
    return (table.c.tenant_id == column_param(table.c.tenant_id)) & (table.c.id == column_param(table.c.id))


def force_custom_plan() -> ColumnElement[bool]:
    """True, and the reason why PostgreSQL makes a plan for the values at hand each time.

    Where the best plan hangs on how many rows there are of a tenant, or how common a word is, a plan made once for
    all values is wrong for many by a factor of a hundred. PostgreSQL compares the costs of both; this makes the plan
    for all values, which does not know that the parameter `force_custom_plan` is true, look dear.
    """
    one = literal_column("1", Integer)
    rows = select(func.count()).select_from(func.generate_series(one, literal_column("1000000000")))
    return or_(param("force_custom_plan", Boolean()), rows.scalar_subquery() == one)


def table_of(row: type[DeclarativeBase]) -> Table:
    """The table of an ORM class."""
    table: FromClause = row.__table__
    assert isinstance(table, Table)
    return table


def equals_any(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The column has one of the values in the parameter `name`, a list."""
    condition: ColumnElement[bool] = column == any_(param(name, ARRAY(column.type)))
    return condition
