"""One kind of entity that a store keeps: how it is made, and how it is stored, read and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from soldier_data.base.models import Model

ByEntity: TypeAlias = Callable[[Any, Any, UUID], Awaitable[Any]]
"""A call of a store about an entity, with the entity's tenant_id or another tenant's."""


@dataclass(frozen=True)
class Kind:
    """One kind of entity.

    The names of the store's methods and of the table follow from the kind's name; those that do not are given. A
    method that is given by its name takes the entity, or, to read and to delete, the tenant_id and what stands in
    `key`.

    Attributes:
        name: What the store's methods call it.
        model: The class of the entities.
        make: The factory: makes an entity from keyword arguments.
        full: The fields of an example in which no field has its default. Those of `parents` may be left out.
        store: The attribute of a data layer that keeps it.
        tables: The tables that hold it and its parts.
        changed: A field, and another value for it; None if what is stored is never changed.
        counter: A field in which tests count the saves, and what it starts with: an integer, a text, or a document
            with the key "count". None if saves take no `if_revision`.
        parents: What has to be stored before, by the field that refers to it.
        id_field: The field with the id, which a save returns.
        key: The fields that it is read and deleted by; the id unless given.
        adds: The method that stores one.
        adds_many: The method that stores several at once; None if there is none.
        updates: The method that replaces the one of that id; None if there is none.
        gets: The method that reads one.
        deletes: The method that deletes one; None if there is none.
    """

    name: str
    model: type[Model]
    make: Callable[..., Any]
    full: Callable[[], dict[str, Any]]
    store: str
    tables: tuple[str, ...] = ("{name}s",)
    changed: tuple[str, Any] | None = None
    counter: tuple[str, Any] | None = None
    parents: Mapping[str, Kind] = field(default_factory=dict)
    id_field: str = "id"
    key: tuple[str, ...] = ()
    adds: str | ByEntity = "save_{name}"
    adds_many: str | None = None
    updates: str | ByEntity | None = "save_{name}"
    gets: str | ByEntity = "get_{name}"
    deletes: str | ByEntity | None = "delete_{name}"

    def __str__(self) -> str:
        return self.name

    def new(self, tenant_id: UUID, agent_id: UUID, **fields: Any) -> Any:
        """An entity of the tenant, and of the agent if its kind has one."""
        of_agent = {"agent_id": agent_id} if "agent_id" in self.model.model_fields else {}
        return self.make(tenant_id=tenant_id, **of_agent, **fields)

    def method(self, given: str | ByEntity | None) -> str:
        """The name of one of the methods, such as `adds`."""
        assert isinstance(given, str), f"{self} is not stored, read or deleted by one method"
        return given.format(name=self.name)

    @property
    def table_names(self) -> set[str]:
        """The names of the tables."""
        return {table.format(name=self.name) for table in self.tables}

    def required(self) -> list[str]:
        """The fields that have no default."""
        return [name for name, field in self.model.model_fields.items() if field.is_required()]

    def id(self, entity: Any) -> UUID:
        """The id that the entity is stored under."""
        id_: UUID = getattr(entity, self.id_field)
        return id_

    def change(self, entity: Any) -> None:
        """Change something."""
        assert self.changed is not None
        setattr(entity, *self.changed)

    async def store_parents(self, store: Any, tenant_id: UUID) -> dict[str, UUID]:
        """Store what an entity of this kind refers to, and return the fields that do so."""
        ids: dict[str, UUID] = {}
        for name, parent in self.parents.items():
            # A run's LLM call refers to a step of the same run.
            of_parent = {field: ids[field] for field in parent.parents}
            ids[name] = await parent.save(store, parent.make(tenant_id=tenant_id, **of_parent))
        return ids

    async def save(self, store: Any, entity: Any, if_revision: int | None = None) -> UUID:
        """Store an entity that is new, or replace it if the same method does both."""
        options = {} if if_revision is None else {"if_revision": if_revision}
        saved: UUID = await self._call(self.adds, store, entity, None, entity, **options)
        return saved

    async def save_all(self, store: Any, entities: Iterable[Any]) -> int:
        """Store entities at once."""
        assert self.adds_many is not None
        count: int = await getattr(store, self.method(self.adds_many))(entities)
        return count

    async def update(self, store: Any, entity: Any) -> Any:
        """Replace the entity that is stored under the same id; return what the store says."""
        assert self.updates is not None
        return await self._call(self.updates, store, entity, None, entity)

    async def get(self, store: Any, entity: Any, tenant_id: UUID | None = None) -> Any:
        """Read what is stored under the entity's key, or under the same one of another tenant."""
        return await self._by_key(self.gets, store, entity, tenant_id)

    async def delete(self, store: Any, entity: Any, tenant_id: UUID | None = None) -> bool:
        """Delete the entity, or what another tenant has under the same key."""
        assert self.deletes is not None
        deleted: bool = await self._by_key(self.deletes, store, entity, tenant_id)
        return deleted

    async def _by_key(self, method: str | ByEntity, store: Any, entity: Any, tenant_id: UUID | None) -> Any:
        key = [getattr(entity, name) for name in self.key or (self.id_field,)]
        return await self._call(method, store, entity, tenant_id, tenant_id or entity.tenant_id, *key)

    async def _call(
        self,
        method: str | ByEntity,
        store: Any,
        entity: Any,
        tenant_id: UUID | None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        if isinstance(method, str):
            return await getattr(store, self.method(method))(*arguments, **options)
        return await method(store, entity, tenant_id or entity.tenant_id)


def exactly(entity: Any) -> str:
    """The entity as text, in which 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    return "nothing" if entity is None else repr(entity.model_dump())
