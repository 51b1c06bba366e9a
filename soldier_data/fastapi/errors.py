"""HTTP responses for store errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.models import Model
from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.logging import get_logger

_RETRY_AFTER_SECONDS = "1"

_COMMITTED = "The request was saved, but a later operation failed: do not send it again"

# The messages of these errors may be shown: they name fields and ids of the caller's tenant, and no stored values.
_CLIENT_ERRORS: dict[type[StoreError], int] = {
    NotFoundError: status.HTTP_404_NOT_FOUND,
    ConflictError: status.HTTP_409_CONFLICT,
}


class Problem(BaseModel):
    """Body of an error response.

    Attributes:
        detail: Description of the error.
    """

    detail: str


def add_exception_handlers(app: FastAPI) -> None:
    """Register handlers for the errors of stores and entities that endpoints raise.

    NotFoundError becomes 404 and ConflictError 409, with their messages. ValidationError becomes 422 in FastAPI's
    format, and so does Pydantic's ValidationError of an entity. StoreConnectionError and ConfigurationError become
    503, and any other StoreError 500; their messages are only logged.

    If a callback of `UnitOfWork.after_commit` failed, the response says that the request was saved, and is never 503,
    after which clients would retry.
    """
    app.add_exception_handler(StoreError, _answer)
    app.add_exception_handler(PydanticValidationError, _answer_invalid)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StoreError), "registered for this class"
    message = f"{error} ({_COMMITTED})" if error.committed else str(error)
    for kind, code in _CLIENT_ERRORS.items():
        if isinstance(error, kind):
            return JSONResponse({"detail": message}, code)
    if isinstance(error, ValidationError):
        place = [] if error.field is None else [error.field]
        return _invalid([{"loc": place, "msg": message, "type": "value_error"}])
    route = request.scope.get("route")
    # Logs the declared path, without the caller's values.
    get_logger(__name__).error(
        "request.failed", path=getattr(route, "path", None), error=str(error), committed=error.committed
    )
    if error.committed:
        return JSONResponse({"detail": _COMMITTED}, status.HTTP_500_INTERNAL_SERVER_ERROR)
    if isinstance(error, StoreConnectionError | ConfigurationError):
        return JSONResponse(
            {"detail": "The data is temporarily unavailable: try again later"},
            status.HTTP_503_SERVICE_UNAVAILABLE,
            {"Retry-After": _RETRY_AFTER_SECONDS},
        )
    return JSONResponse({"detail": "Internal server error"}, status.HTTP_500_INTERNAL_SERVER_ERROR)


async def _answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PydanticValidationError), "registered for this class"
    if error.title not in _names_of(Model):
        # A model of the service itself, which may not be the client's fault.
        raise error
    # Without the invalid values, which may be secrets.
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return _invalid([dict(detail) for detail in details])


def _invalid(details: list[dict[str, Any]]) -> JSONResponse:
    return JSONResponse({"detail": details}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def _names_of(base: type[Model]) -> set[str]:
    """Return the names of all entity classes, including those of the service."""
    return {base.__name__}.union(*(_names_of(kind) for kind in base.__subclasses__()))
