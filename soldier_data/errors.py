"""The errors that leave this package.

Every store raises a `StoreError` subclass and nothing else: no exception of asyncpg, SQLAlchemy, redis-py or
Pydantic crosses the border. Messages say what was being done, on which entity, and what to do about it; they
never hold a password, a parameter value or personal data.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error that a store raises.

    Attributes:
        cause: The driver's exception, kept for debuggers. Its text may hold values that were being stored, so
            it is deliberately not chained (`__cause__`), printed or logged.
        committed: Whether a callback of `UnitOfWork.after_commit` raised it, so that everything which the unit of
            work wrote is saved: do not repeat that.
    """

    committed = False

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class StoreConnectionError(StoreError):
    """The server could not be reached, refused the log-in, or did not answer in time."""


class NotFoundError(StoreError):
    """A row that the call refers to does not exist in the tenant."""


class ConflictError(StoreError):
    """A unique value is taken, the revision is stale, or an immutable record differs."""


class ValidationError(StoreError):
    """The value cannot be stored.

    Attributes:
        field: Name of the offending field, where one field is to blame.
    """

    def __init__(self, message: str, *, field: str | None = None, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.field = field


class ConfigurationError(StoreError):
    """A setting is missing or wrong, or the database does not fit the package (not migrated, say)."""
