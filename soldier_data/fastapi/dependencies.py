"""Dependencies for endpoints: the data layer, its stores, units of work, and the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Request, status
from pydantic import ConfigDict, Field

from soldier_data.audit.store import AuditStore
from soldier_data.base.models import Model
from soldier_data.config.store import ConfigStore
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError
from soldier_data.memory.store import MemoryStore
from soldier_data.profiles.store import ProfileStore
from soldier_data.runs.store import RunStore
from soldier_data.sessions.store import SessionStore
from soldier_data.unit_of_work import UnitOfWork
from soldier_data.vectors.store import VectorStore


class Caller(Model):
    """The sender of a request.

    Attributes:
        tenant_id: Tenant whose data the request may access.
        actor: Actor whose runs it may read, as in `Run.actor`.
    """

    model_config = ConfigDict(frozen=True)

    tenant_id: UUID
    actor: str = Field(min_length=1)


async def get_caller() -> Caller:
    """Return the caller. Override this dependency with the service's authentication; until then, it rejects all.

    Raises:
        HTTPException: 401, always.
    """
    raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated", {"WWW-Authenticate": "Bearer"})


async def get_data_layer(request: Request) -> DataLayer:
    """Return the data layer that `lifespan` opened.

    Raises:
        StoreConnectionError: The application was created without `lifespan`.
    """
    data = getattr(request.app.state, "data_layer", None)
    if not isinstance(data, DataLayer):
        raise StoreConnectionError("no data layer is open: pass lifespan=soldier_data.fastapi.lifespan()")
    return data


CallerDep = Annotated[Caller, Depends(get_caller)]
DataLayerDep = Annotated[DataLayer, Depends(get_data_layer)]


async def get_unit_of_work(data: DataLayerDep) -> AsyncIterator[UnitOfWork]:
    """Yield a unit of work that commits when the endpoint returns, and rolls back if it raises.

    Use it as `UnitOfWorkDep`, whose scope ends before the response is sent. So a failed commit becomes an error
    response, and no connection is held while a response is streamed.
    """
    async with data.unit_of_work() as unit:
        yield unit


UnitOfWorkDep = Annotated[UnitOfWork, Depends(get_unit_of_work, scope="function")]


async def get_config_store(data: DataLayerDep) -> ConfigStore:
    """Return the config store."""
    return data.config


async def get_memory_store(data: DataLayerDep) -> MemoryStore:
    """Return the memory store."""
    return data.memory


async def get_audit_store(data: DataLayerDep) -> AuditStore:
    """Return the audit store."""
    return data.audit


async def get_profile_store(data: DataLayerDep) -> ProfileStore:
    """Return the profile store."""
    return data.profiles


async def get_run_store(data: DataLayerDep) -> RunStore:
    """Return the run store."""
    return data.runs


async def get_vector_store(data: DataLayerDep) -> VectorStore:
    """Return the vector store."""
    return data.vectors


async def get_session_store(data: DataLayerDep) -> SessionStore:
    """Return the session store."""
    return data.sessions


ConfigStoreDep = Annotated[ConfigStore, Depends(get_config_store)]
MemoryStoreDep = Annotated[MemoryStore, Depends(get_memory_store)]
AuditStoreDep = Annotated[AuditStore, Depends(get_audit_store)]
ProfileStoreDep = Annotated[ProfileStore, Depends(get_profile_store)]
RunStoreDep = Annotated[RunStore, Depends(get_run_store)]
VectorStoreDep = Annotated[VectorStore, Depends(get_vector_store)]
SessionStoreDep = Annotated[SessionStore, Depends(get_session_store)]
