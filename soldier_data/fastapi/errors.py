"""Store errors as HTTP answers."""

from __future__ import annotations

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel

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
    """Let `app` answer store errors that leave an endpoint.

    NotFoundError is 404 and ConflictError 409, each with its message; ValidationError is 422, in the form in which
    FastAPI reports wrong arguments. StoreConnectionError and ConfigurationError are 503, anything else 500: what
    happened there is for the log alone.
    """
    app.add_exception_handler(StoreError, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    for kind, code in _TOLD.items():
        if isinstance(error, kind):
            return JSONResponse({"detail": str(error)}, code)
    if isinstance(error, ValidationError):
        place = [] if error.field is None else [error.field]
        detail = [{"loc": place, "msg": str(error), "type": "value_error"}]
        return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)
    route = request.scope.get("route")
    # The path as it was declared: what the caller put into it is the caller's.
    get_logger(__name__).error("request.failed", path=getattr(route, "path", None), error=str(error))
    if isinstance(error, StoreConnectionError | ConfigurationError):
        return JSONResponse(
            {"detail": "The data is not available at the moment: try again later"},
            status.HTTP_503_SERVICE_UNAVAILABLE,
            {"Retry-After": _RETRY_AFTER_SECONDS},
        )
    return JSONResponse({"detail": "Internal server error"}, status.HTTP_500_INTERNAL_SERVER_ERROR)
