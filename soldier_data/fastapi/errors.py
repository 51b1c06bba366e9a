"""Store errors as HTTP answers."""

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

_SAVED = "What was sent is saved, but something that follows it failed: do not send it again"

# Their messages name fields and ids of the caller's own tenant, and hold no stored value.
_TOLD: dict[type[StoreError], int] = {
    NotFoundError: status.HTTP_404_NOT_FOUND,
    ConflictError: status.HTTP_409_CONFLICT,
}


class Problem(BaseModel):
    """The body of an error.

    Attributes:
        detail: What is wrong.
    """

    detail: str


def add_exception_handlers(app: FastAPI) -> None:
    """Let `app` answer errors of stores and of entities that leave an endpoint.

    NotFoundError is 404 and ConflictError 409, each with its message; ValidationError is 422, in the form in which
    FastAPI reports wrong arguments, and so is Pydantic's, of an entity that cannot be made of what was sent.
    StoreConnectionError and ConfigurationError are 503, anything else 500: what happened there is for the log alone.

    Where a callback of `UnitOfWork.after_commit` failed, the answer says that the rest is saved, and is never 503,
    which asks for the request again.
    """
    app.add_exception_handler(StoreError, _answer)
    app.add_exception_handler(PydanticValidationError, _answer_invalid)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StoreError), "registered for this class"
    message = f"{error} ({_SAVED})" if error.committed else str(error)
    for kind, code in _TOLD.items():
        if isinstance(error, kind):
            return JSONResponse({"detail": message}, code)
    if isinstance(error, ValidationError):
        place = [] if error.field is None else [error.field]
        return _invalid([{"loc": place, "msg": message, "type": "value_error"}])
    route = request.scope.get("route")
    # The path as it was declared: what the caller put into it is the caller's.
    get_logger(__name__).error(
        "request.failed", path=getattr(route, "path", None), error=str(error), committed=error.committed
    )
    if error.committed:
        return JSONResponse({"detail": _SAVED}, status.HTTP_500_INTERNAL_SERVER_ERROR)
    if isinstance(error, StoreConnectionError | ConfigurationError):
        return JSONResponse(
            {"detail": "The data is not available at the moment: try again later"},
            status.HTTP_503_SERVICE_UNAVAILABLE,
            {"Retry-After": _RETRY_AFTER_SECONDS},
        )
    return JSONResponse({"detail": "Internal server error"}, status.HTTP_500_INTERNAL_SERVER_ERROR)


async def _answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PydanticValidationError), "registered for this class"
    if error.title not in _names_of(Model):
        # The service's own model, of which nobody knows that a request filled it.
        raise error
    # Without the values that were refused, which may be secrets.
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return _invalid([dict(detail) for detail in details])


def _invalid(details: list[dict[str, Any]]) -> JSONResponse:
    return JSONResponse({"detail": details}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def _names_of(base: type[Model]) -> set[str]:
    """The names of all entities, those of the service's own included."""
    return {base.__name__}.union(*(_names_of(kind) for kind in base.__subclasses__()))
