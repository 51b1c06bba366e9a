"""Every table keeps its tenants apart; one that does not is told what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.schema import SchemaItem

from soldier_data.schema import metadata


def problems(table: Table) -> Iterator[str]:
    """What keeps `table` from holding rows of several tenants, each with what to do."""
    if [column.name for column in table.primary_key][:1] != ["tenant_id"]:
        yield f"{table.name}: the primary key must begin with tenant_id: derive the row from postgres.orm.TenantKey"
    elif table.columns["tenant_id"].nullable:
        yield f"{table.name}: tenant_id must not be nullable"
    for index in table.indexes:
        if index.unique and next(iter(index.expressions)) is not table.columns.get("tenant_id"):
            yield f"{table.name}: the unique index {index.name} must begin with tenant_id: make it the first column"
    for constraint in table.constraints:
        if constraint.name is None:
            kind = type(constraint).__name__
            yield f'{table.name}: a {kind} has no name: give it one, name="..."'
        if isinstance(constraint, UniqueConstraint) and next(iter(constraint.columns.keys())) != "tenant_id":
            yield (
                f"{table.name}: the unique constraint {constraint.name} must begin with tenant_id: make it the first "
                "column"
            )
        if isinstance(constraint, ForeignKeyConstraint):
            pairs = {(element.parent.name, element.column.name) for element in constraint.elements}
            if ("tenant_id", "tenant_id") not in pairs:
                yield (
                    f"{table.name}: the foreign key {constraint.name} lacks tenant_id: use "
                    'ForeignKeyConstraint(["tenant_id", ...], ["other.tenant_id", ...])'
                )
            if constraint.ondelete == "SET NULL":
                yield (
                    f"{table.name}: the foreign key {constraint.name} sets tenant_id to NULL too: let the store null "
                    "the other column"
                )


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_the_tables_of_the_package_keep_tenants_apart(table: Table) -> None:
    assert list(problems(table)) == []


def _table(*items: SchemaItem) -> Table:
    # Without the convention for checks, with which SQLAlchemy itself refuses one that has no name.
    whole = MetaData(
        naming_convention={"pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s_%(referred_table_name)s"}
    )
    Table("agents", whole, Column("tenant_id", Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    return Table("notes", whole, Column("tenant_id", Uuid), Column("id", Uuid), Column("n", Integer), *items)


_KEY = ("tenant_id", "id")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([PrimaryKeyConstraint("id")], "derive the row from postgres.orm.TenantKey"),
        ([PrimaryKeyConstraint("id", "tenant_id")], "derive the row from postgres.orm.TenantKey"),
        (
            [PrimaryKeyConstraint(*_KEY), Index("uq", "n", unique=True)],
            "the unique index uq must begin with tenant_id",
        ),
        (
            [PrimaryKeyConstraint(*_KEY), Index("uq", "n", "tenant_id", unique=True)],
            "the unique index uq must begin with tenant_id",
        ),
        (
            [PrimaryKeyConstraint(*_KEY), UniqueConstraint("n", "tenant_id", name="uq")],
            "the unique constraint uq must begin with tenant_id",
        ),
        (
            [PrimaryKeyConstraint(*_KEY), UniqueConstraint("n", name="uq")],
            "the unique constraint uq must begin with tenant_id",
        ),
        (
            [PrimaryKeyConstraint(*_KEY), ForeignKeyConstraint(["id"], ["agents.id"])],
            "the foreign key fk_notes_agents lacks tenant_id",
        ),
        (
            [
                PrimaryKeyConstraint(*_KEY),
                ForeignKeyConstraint(_KEY, ["agents.tenant_id", "agents.id"], ondelete="SET NULL"),
            ],
            "sets tenant_id to NULL too",
        ),
        ([PrimaryKeyConstraint(*_KEY), CheckConstraint("n > 0")], "a CheckConstraint has no name"),
    ],
)
def test_a_table_that_mixes_tenants_is_told_what_to_do(items: list[SchemaItem], expected: str) -> None:
    found = list(problems(_table(*items)))
    assert len(found) == 1
    assert expected in found[0]


def test_a_table_that_keeps_tenants_apart_has_no_problem() -> None:
    good = [
        PrimaryKeyConstraint(*_KEY),
        Index("uq", "tenant_id", "n", unique=True),
        ForeignKeyConstraint(_KEY, ["agents.tenant_id", "agents.id"]),
        CheckConstraint("n > 0", name="positive"),
    ]
    assert list(problems(_table(*good))) == []
