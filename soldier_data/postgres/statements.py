"""SQL statements: built with SQLAlchemy, compiled once, executed by asyncpg.

Executing a short query through SQLAlchemy's connection takes several times as long as the query itself (see
benchmarks/RESULTS.md). A `Statement` therefore keeps the compiled text, which is executed on the driver's connection,
where asyncpg keeps it prepared.

Tables, and the types and operators of extensions, are qualified with their schema, so that statements do not depend
on the search_path of the role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Column,
    Dialect,
    FromClause,
    Table,
    UpdateBase,
    bindparam,
)
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeEngine

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.ddl import DDLOptions, use_ddl_options
from soldier_data.settings import Settings

_DIALECT: Dialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]

Values: TypeAlias = Mapping[str, Any]
"""Parameters of a statement by name, always including tenant_id."""

Row: TypeAlias = Mapping[str, Any]
"""A row of a result: values by column name."""

# SQLAlchemy reserves parameters with the names of columns in INSERT and UPDATE.
_PREFIX = "p_"

# Placeholders of the two schemas in compiled texts.
_TABLES, _EXTENSIONS = "__tables__", "__extensions__"

# A statement is compiled once for all settings.
_COMPILING = DDLOptions(embedding_dimensions=0, vector_index="none", extensions_schema=_EXTENSIONS)


class Schemas(NamedTuple):
    """The schemas in use.

    Attributes:
        tables: Schema of the tables (SOLDIER_DATABASE_SCHEMA).
        extensions: Schema of pgvector and pg_trgm (SOLDIER_EXTENSIONS_SCHEMA).
    """

    tables: str = "public"
    extensions: str = "public"

    @classmethod
    def of(cls, settings: Settings) -> Schemas:
        """The schemas in `settings`."""
        return cls(settings.database_schema, settings.extensions_schema)


class _Compiled(NamedTuple):
    """The result of compiling a statement: its text, its parameters in order, and the values of constants."""

    text: str
    names: tuple[str, ...]
    constants: dict[str, Any]


class Statement:
    """An SQL statement with named parameters, compiled on first use.

    Args:
        operation: Description for error messages, such as "saving the rule".
        clause: The statement in SQLAlchemy, or a function that builds it on first use: most processes use a few of
            the statements, and building all of them takes a good part of an import.
    """

    def __init__(self, operation: str, clause: ClauseElement | Callable[[], ClauseElement]) -> None:
        self.operation = operation
        self._given = clause
        self._texts: dict[Schemas, str] = {}

    @cached_property
    def _clause(self) -> ClauseElement:
        return self._given if isinstance(self._given, ClauseElement) else self._given()

    @cached_property
    def writes(self) -> bool:
        """True if the statement, or a CTE of it, changes or locks rows."""
        return any(
            isinstance(part, UpdateBase) or getattr(part, "_for_update_arg", None) is not None
            for part in iterate(self._clause)
        )

    @cached_property
    def _compiled(self) -> _Compiled:
        with use_ddl_options(_COMPILING):
            compiled = self._clause.compile(
                dialect=_DIALECT, schema_translate_map={None: _TABLES}, render_schema_translate=True
            )
        return _Compiled(
            str(compiled),
            tuple(name.removeprefix(_PREFIX) for name in getattr(compiled, "positiontup", None) or ()),
            {name: value for name, value in compiled.params.items() if value is not None},
        )

    @property
    def sql(self) -> str:
        """The SQL text with tables and extensions in the schema public. Parameters are $1, $2, ..."""
        return self.sql_in(Schemas())

    def sql_in(self, schemas: Schemas) -> str:
        """The SQL text with tables and extensions in `schemas`."""
        text = self._texts.get(schemas)
        if text is None:
            text = self._compiled.text.replace(_TABLES, quoted(schemas.tables))
            text = self._texts[schemas] = text.replace(_EXTENSIONS, quoted(schemas.extensions))
        return text

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The arguments in the order of the parameters, from `values` by the names passed to `param()`.

        Raises:
            ConfigurationError: A value is missing.
        """
        _, names, constants = self._compiled
        try:
            if not constants:
                return [values[name] for name in names]
            return [constants[name] if name in constants else values[name] for name in names]
        except KeyError as error:
            missing = str(error.args[0])
        raise unknown_column(self.operation, missing)


def in_order(names: Sequence[str], values: Mapping[str, Any], operation: str) -> tuple[Any, ...]:
    """A row for COPY: the values of the columns `names`.

    Raises:
        ConfigurationError: A value is missing.
    """
    try:
        return tuple(values[name] for name in names)
    except KeyError as error:
        missing = str(error.args[0])
    raise unknown_column(operation, missing)


def unknown_column(operation: str, name: str) -> ConfigurationError:
    """The error for a column of a mapped class that the entity has no field for."""
    return ConfigurationError(
        f"{operation}: the entity has no field for the column {name} of the mapped class: add a field of that name to "
        "the entity, or remove the column from the mapped class"
    )


def quoted(name: str) -> str:
    """The name of a schema, table or role as an SQL identifier, quoted if necessary."""
    return _DIALECT.identifier_preparer.quote(name)


def param(name: str, type_: TypeEngine[Any]) -> BindParameter[Any]:
    """A parameter of a statement."""
    return bindparam(_PREFIX + name, type_=type_)


def column_param(column: Column[Any]) -> BindParameter[Any]:
    """A parameter with the name and type of `column`."""
    return param(column.name, column.type)


def table_of(row: type[DeclarativeBase]) -> Table:
    """The table of a mapped class."""
    table: FromClause = row.__table__
    assert isinstance(table, Table)
    return table
