"""The base class of stores on PostgreSQL."""

from __future__ import annotations

from copy import copy
from typing import Self

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.executor import Executor


class PostgresStore:
    """Base class of stores on PostgreSQL."""

    _db: Executor

    def join(self, transaction: Executor | None) -> Self:
        """A copy of this store that runs on the transaction of a unit of work.

        Raises:
            ConfigurationError: The unit of work has no transaction, or one on a different database.
        """
        mine = self._db.settings
        if transaction is None or not (transaction.settings is mine or transaction.settings == mine):
            raise ConfigurationError(
                f"beginning a unit of work: {type(self).__name__} is not on the data layer's database, so they "
                "cannot commit together: create the store with a Database that has the data layer's settings"
            )
        joined = copy(self)
        joined._db = transaction  # noqa: SLF001 - of its own class.
        return joined
