"""The data layer in a FastAPI service: lifespan, dependencies, error handlers, and a router for runs and health.

Requires the extra `fastapi`. Set up a service like this:

    app = FastAPI(lifespan=lifespan(settings))
    add_exception_handlers(app)
    app.include_router(router)
    app.dependency_overrides[get_caller] = authenticate
"""

try:
    import fastapi as _fastapi  # noqa: F401 - checks that it is installed.
except ModuleNotFoundError as error:
    if error.name != "fastapi":
        raise
    raise ModuleNotFoundError(
        'soldier_data.fastapi needs FastAPI: run `pip install "soldier-data[fastapi]"`', name=error.name
    ) from None

from soldier_data.fastapi.dependencies import (
    AuditStoreDep,
    Caller,
    CallerDep,
    ConfigStoreDep,
    DataLayerDep,
    MemoryStoreDep,
    ProfileStoreDep,
    RunStoreDep,
    SessionStoreDep,
    UnitOfWorkDep,
    VectorStoreDep,
    get_audit_store,
    get_caller,
    get_config_store,
    get_data_layer,
    get_memory_store,
    get_profile_store,
    get_run_store,
    get_session_store,
    get_unit_of_work,
    get_vector_store,
)
from soldier_data.fastapi.errors import add_exception_handlers
from soldier_data.fastapi.lifespan import lifespan
from soldier_data.fastapi.router import router

__all__ = [
    "AuditStoreDep",
    "Caller",
    "CallerDep",
    "ConfigStoreDep",
    "DataLayerDep",
    "MemoryStoreDep",
    "ProfileStoreDep",
    "RunStoreDep",
    "SessionStoreDep",
    "UnitOfWorkDep",
    "VectorStoreDep",
    "add_exception_handlers",
    "get_audit_store",
    "get_caller",
    "get_config_store",
    "get_data_layer",
    "get_memory_store",
    "get_profile_store",
    "get_run_store",
    "get_session_store",
    "get_unit_of_work",
    "get_vector_store",
    "lifespan",
    "router",
]
