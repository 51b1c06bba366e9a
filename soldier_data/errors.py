"""The errors that stores raise.

Stores raise subclasses of `StoreError` only, never exceptions of asyncpg, SQLAlchemy, redis-py or Pydantic.
Messages name the operation, the entity and the remedy; they never contain a password, a parameter value or
personal data.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base class of the errors that stores raise.

    Attributes:
        cause: The driver's exception, for debugging. Its text may contain stored values, so it is deliberately not
            chained (`__cause__`), printed or logged.
        committed: True if a callback of `UnitOfWork.after_commit` raised the error. The unit of work has been
            committed then: do not repeat it.
    """

    committed = False

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class StoreConnectionError(StoreError):
    """The server could not be reached, rejected the login, or did not respond in time."""


class NotFoundError(StoreError):
    """A record that the call refers to does not exist in the tenant."""


class ConflictError(StoreError):
    """A unique value is taken, the revision is stale, or an immutable record differs."""


class ValidationError(StoreError):
    """The value cannot be stored.

    Attributes:
        field: Name of the invalid field or argument; None if the error concerns several.
    """

    def __init__(self, message: str, *, field: str | None = None, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.field = field


class ConfigurationError(StoreError):
    """A setting is missing or invalid, or the database does not match the package (not migrated, for example)."""
