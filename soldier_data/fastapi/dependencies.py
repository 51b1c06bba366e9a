"""What endpoints ask for: the data layer, its stores, a unit of work, and who calls."""

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
    """Who sends a request.

    Attributes:
        tenant_id: Whose data the request may touch.
        actor: As in `Run.actor`: whose runs it may see.
    """

    model_config = ConfigDict(frozen=True)

    tenant_id: UUID
    actor: str = Field(min_length=1)


async def get_caller() -> Caller:
    """Who calls. A service overrides this with what it knows of its callers; without, nobody is let in.

    Raises:
        HTTPException: 401, always.
    """
    raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated", {"WWW-Authenticate": "Bearer"})


async def get_data_layer(request: Request) -> DataLayer:
    """The data layer that `lifespan` opened.

    Raises:
        StoreConnectionError: The application runs without that life span.
    """
    data = getattr(request.app.state, "data_layer", None)
    if not isinstance(data, DataLayer):
        raise StoreConnectionError("no data layer is open: pass lifespan=soldier_data.fastapi.lifespan()")
    return data


CallerDep = Annotated[Caller, Depends(get_caller)]
DataLayerDep = Annotated[DataLayer, Depends(get_data_layer)]


async def get_unit_of_work(data: DataLayerDep) -> AsyncIterator[UnitOfWork]:
    """A unit of work: it commits when the endpoint returns, and rolls back if the endpoint raises anything.

    Ask for it as `UnitOfWorkDep`: its scope ends before the response is sent. So a refused commit is answered as an
    error, and no connection is held while a body streams.
    """
    async with data.unit_of_work() as unit:
        yield unit


UnitOfWorkDep = Annotated[UnitOfWork, Depends(get_unit_of_work, scope="function")]


async def get_config_store(data: DataLayerDep) -> ConfigStore:
    """The config store."""
    return data.config


async def get_memory_store(data: DataLayerDep) -> MemoryStore:
    """The memory store."""
    return data.memory


async def get_audit_store(data: DataLayerDep) -> AuditStore:
    """The audit store."""
    return data.audit


async def get_profile_store(data: DataLayerDep) -> ProfileStore:
    """The profile store."""
    return data.profiles


async def get_run_store(data: DataLayerDep) -> RunStore:
    """The run store."""
    return data.runs


async def get_vector_store(data: DataLayerDep) -> VectorStore:
    """The vector store."""
    return data.vectors


async def get_session_store(data: DataLayerDep) -> SessionStore:
    """The session store."""
    return data.sessions


ConfigStoreDep = Annotated[ConfigStore, Depends(get_config_store)]
MemoryStoreDep = Annotated[MemoryStore, Depends(get_memory_store)]
AuditStoreDep = Annotated[AuditStore, Depends(get_audit_store)]
ProfileStoreDep = Annotated[ProfileStore, Depends(get_profile_store)]
RunStoreDep = Annotated[RunStore, Depends(get_run_store)]
VectorStoreDep = Annotated[VectorStore, Depends(get_vector_store)]
SessionStoreDep = Annotated[SessionStore, Depends(get_session_store)]
