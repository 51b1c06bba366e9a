"""The registry in tests/cases/kinds is complete: no entity, part, table or field is left out of the tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from inspect import signature
from typing import Any, get_args, get_type_hints
from uuid import uuid4

import pytest
from pydantic import BaseModel

from soldier_data.runs import RunStats
from soldier_data.schema import metadata
from tests.cases.case import Domain, public_methods
from tests.cases.kind import Kind
from tests.cases.kinds import KINDS, kinds_of
from tests.cases.stores import DOMAINS, in_memory

COMPUTED = {RunStats}
"""What stores return and do not keep."""

SET_BY_STORES = {"updated_at", "revision", "deleted_at", "replaced_at", "last_activity_at"}
"""Fields whose values are the store's, in the entities of all kinds. (In parts, `updated_at` is the caller's.)"""

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.store)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, and in the fields of those and of named tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        inner = [field.annotation for field in annotation.model_fields.values()]
    elif isinstance(annotation, type) and hasattr(annotation, "_fields"):
        inner = list(get_type_hints(annotation).values())
    else:
        inner = list(get_args(annotation))
    for each in inner:
        yield from models_in(each)


def held_by(value: Any) -> Iterator[BaseModel]:
    """The models in a value: itself, and its parts."""
    if isinstance(value, BaseModel):
        yield value
        value = dict(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from held_by(inner)


@every_domain
def test_every_entity_that_a_store_takes_or_returns_is_of_a_kind_or_a_part_of_one(
    domain: Domain[Any, Any],
) -> None:
    known = {model for kind in KINDS for model in models_in(kind.model)}
    for method in public_methods(domain.contract):
        for hint in get_type_hints(getattr(domain.contract, method)).values():
            missing = {model.__name__ for model in models_in(hint)} - {
                model.__name__ for model in known | COMPUTED
            }
            assert not missing, (
                f"add a Kind for {', '.join(sorted(missing))} of {method} to tests/cases/kinds/{domain.store}.py"
            )


@every_domain
def test_every_store_has_kinds(domain: Domain[Any, Any]) -> None:
    assert kinds_of(domain.store)


def test_every_table_holds_a_kind() -> None:
    # That the tables of a kind are those that it is kept in, its round trip shows.
    held = [table for kind in KINDS for table in kind.table_names]
    # What profiles had once: a profile that loses something writes it, and no entity is saved as such a row.
    held.append("former_identifiers")
    assert sorted(held) == sorted(metadata.tables), (
        "a table that is missing belongs to a Kind in tests/cases/kinds"
    )


@every_kind
def test_the_full_example_leaves_no_field_of_it_or_of_a_part_at_its_default(kind: Kind) -> None:
    full = kind.full()
    entity = kind.make(**full, tenant_id=uuid4(), **{name: uuid4() for name in kind.parents})
    examples = defaultdict(list)
    for model in held_by(entity):
        examples[type(model)].append(model)
    for part in models_in(kind.model):
        is_whole = part is kind.model
        skipped = {kind.id_field, *kind.parents, *SET_BY_STORES} if is_whole else {"replaced_at"}
        for name, field in part.model_fields.items():
            if field.is_required() or name in skipped:
                continue
            default = field.get_default(call_default_factory=True, validated_data={})
            assert any(
                # A default that is made anew each time differs from any other.
                name in (full if is_whole else example.model_fields_set) and getattr(example, name) != default
                for example in examples[part]
            ), (
                f"give {part.__name__}.{name} a value in the full example of {kind}, tests/cases/kinds/{kind.store}.py"
            )


@every_kind
def test_what_is_saved_on_a_condition_counts_its_saves(kind: Kind) -> None:
    contract = next(domain.contract for domain in DOMAINS if domain.store == kind.store)
    conditional = isinstance(kind.adds, str) and (
        "if_revision" in signature(getattr(contract, kind.method(kind.adds))).parameters
    )
    assert conditional == (kind.counter is not None), f"{kind} has to have a counter if it has a revision"


@every_domain
async def test_the_seed_of_a_store_holds_every_kind(domain: Domain[Any, Any]) -> None:
    own = await domain.seed(in_memory(domain), uuid4())
    seeded = {type(each) for each in (own, *vars(own).values())}
    missing = {kind.model.__name__ for kind in kinds_of(domain.store) if kind.model not in seeded}
    assert not missing, f"the seed in tests/cases/{domain.store}.py stores no {', '.join(missing)}"
