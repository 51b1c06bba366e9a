"""Every setting in one place, read from the environment (prefix ``SOLDIER_``) or a ``.env`` file."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, TypeAdapter, field_validator, model_validator
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from soldier_data.errors import ConfigurationError
from soldier_data.logging import get_logger

DatabaseBackend = Literal["postgres", "inmemory"]
SessionBackend = Literal["redis", "inmemory"]

Password = str | Callable[[], str | Awaitable[str]]
"""A password, or what returns one (or awaits it) each time that a connection is opened."""

VectorIndex = Literal["hnsw", "ivfflat", "none"]

_NUMBER = TypeAdapter(float)

_PREFIX = "SOLDIER_"
# How the servers are named to this package's own tests.
_FOR_TESTS = "soldier_test_"

# Unknown variables that were warned of.
_told: set[str] = set()

_PLAIN_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


def _seconds(value: Any) -> Any:
    """Let a bare number in the environment mean seconds; ISO 8601 durations pass through."""
    if isinstance(value, str):
        try:
            return timedelta(seconds=_NUMBER.validate_python(value))
        except (PydanticValidationError, OverflowError):
            return value
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]

_REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)


class Settings(BaseSettings):
    """The settings of the data layer.

    Each field is read from the environment variable ``SOLDIER_<FIELD>`` (upper case); the two URLs also from
    ``DATABASE_URL`` and ``REDIS_URL``. Durations are seconds (``1800``, ``0.4``) or ISO 8601 (``PT30M``).

    A variable with that prefix that is no setting is ignored, and warned of once. An argument is not ignored.

    Raises:
        ConfigurationError: A value is wrong, there is no such setting, or the ``.env`` file cannot be read. The
            message is one line for each wrong variable and never repeats the value, which may be a secret.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        # Some editors put a byte-order mark before the first name.
        env_file_encoding="utf-8-sig",
        # Other programs' variables stand in the same file.
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    database_url: str = Field(
        default="postgresql://postgres@localhost:5432/postgres",
        validation_alias=AliasChoices("SOLDIER_DATABASE_URL", "DATABASE_URL"),
        repr=False,
        description="PostgreSQL URL: postgres://, postgresql:// and postgresql+asyncpg:// are all accepted, several "
        "hosts too.",
    )
    database_password: Password | None = Field(
        default=None,
        repr=False,
        description="Password for PostgreSQL, instead of the URL's. In code also a function, asked for each new "
        "connection: `Settings(database_password=token)`.",
    )
    database_schema: str = Field(
        default="public", description="Schema of the tables. `soldier-data db upgrade` creates it."
    )
    extensions_schema: str = Field(
        default="public", description="Schema that the extensions pgvector and pg_trgm are in."
    )
    redis_url: str = Field(
        default="redis://localhost:6379/0",
        validation_alias=AliasChoices("SOLDIER_REDIS_URL", "REDIS_URL"),
        repr=False,
        description="Redis URL: redis://, rediss:// or unix://; redis+sentinel://host,host/service or "
        "redis+cluster://host,host, with rediss for TLS.",
    )
    redis_password: Password | None = Field(
        default=None,
        repr=False,
        description="Password for Redis in place of the URL's. In code also a callable, sync or async, "
        "that is asked for one each time a connection is opened.",
    )
    redis_sentinel_username: str | None = Field(
        default=None, description="User name for the sentinels, where they ask for one."
    )
    redis_sentinel_password: Password | None = Field(
        default=None, repr=False, description="Password for the sentinels; in code also a callable."
    )

    config_backend: DatabaseBackend = Field(
        default="postgres", description="Where agents are kept: `postgres` or `inmemory`."
    )
    memory_backend: DatabaseBackend = Field(
        default="postgres", description="Where episodes and entities are kept: `postgres` or `inmemory`."
    )
    audit_backend: DatabaseBackend = Field(
        default="postgres", description="Where turn records are kept: `postgres` or `inmemory`."
    )
    profile_backend: DatabaseBackend = Field(
        default="postgres", description="Where customer profiles are kept: `postgres` or `inmemory`."
    )
    run_backend: DatabaseBackend = Field(
        default="postgres", description="Where runs are kept: `postgres` or `inmemory`."
    )
    vector_backend: DatabaseBackend = Field(
        default="postgres", description="Where free-standing embeddings are kept: `postgres` or `inmemory`."
    )
    session_backend: SessionBackend = Field(
        default="redis", description="Where sessions are kept: `redis` or `inmemory`."
    )

    pool_size: int = Field(default=20, ge=1, description="PostgreSQL connections kept open.")
    pool_overflow: int = Field(default=10, ge=0, description="Connections opened beyond pool_size in a rush.")
    pool_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest wait for a free connection."
    )
    pool_recycle: Duration = Field(
        default=timedelta(minutes=30), description="Age at which a connection is replaced."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=3), description="Limit for opening a connection, for each host of the URL."
    )
    command_timeout: Duration = Field(default=timedelta(seconds=60), description="Limit for one statement.")
    retry_budget: Duration = Field(
        default=timedelta(seconds=15),
        description="How long a call outside a unit of work is retried after a lost connection, a deadlock or "
        "while a server fails over. 0 switches retries off.",
    )
    tcp_keepalive_idle: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        description="Silence on a connection after which the other end is asked whether it is there. 0: never.",
    )
    tcp_keepalive_interval: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        description="Time from one such question to the next.",
    )
    tcp_keepalive_count: int = Field(
        default=3, ge=1, le=127, description="Unanswered questions after which a connection is lost."
    )
    tcp_user_timeout: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        description="Time after which a connection is lost on which sent data is not acknowledged. 0: the system's.",
    )
    pgbouncer: bool = Field(
        default=False, description="Set behind PgBouncer in transaction mode: no cached prepared statements."
    )
    row_level_security: bool = Field(
        default=False, description="Set app.tenant_id in every transaction, for roles bound by the policies."
    )

    embedding_dimensions: int = Field(
        default=1536, ge=1, le=16_000, description="Length of every stored embedding."
    )
    embedding_model: str | None = Field(
        default=None,
        min_length=1,
        description="Vector searches compare embeddings by this model alone, unless they name another one. "
        "Without it: all embeddings.",
    )
    vector_index: VectorIndex = Field(
        default="hnsw", description="Index of embeddings: `hnsw`, `ivfflat` or `none`."
    )

    anthropic_model: str = Field(
        default="claude-haiku-5-5", min_length=1, description="Model of `AnthropicProvider`."
    )
    openai_model: str = Field(default="gpt-5.4-mini", min_length=1, description="Model of `OpenAIProvider`.")
    openai_embedding_model: str = Field(
        default="text-embedding-3-small", min_length=1, description="Model of `OpenAIEmbeddingProvider`."
    )

    redis_max_connections: int = Field(
        default=100, ge=1, description="Redis connections; callers wait for one."
    )
    redis_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Limit for one Redis command and for connecting."
    )
    redis_wait_replicas: int = Field(
        default=0, ge=0, description="Redis replicas that must have a save before it counts. 0: none."
    )
    redis_wait_timeout: Duration = Field(
        default=timedelta(seconds=1), description="Longest wait for these replicas."
    )
    session_hot_ttl: Duration = Field(
        default=timedelta(minutes=30), description="Idle time after which a session leaves the hot tier."
    )
    session_persist_ttl: Duration = Field(
        default=timedelta(days=7), description="Idle time after which a session is gone."
    )
    session_max_age: Duration = Field(
        default=timedelta(days=7), description="Age since creation at which a session is gone."
    )
    session_key_prefix: str = Field(
        default="session", min_length=1, pattern=r"^[^{}\s]+$", description="First part of every Redis key."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning",
        description="Least severe level that is logged, unless the service set up structlog.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="How log lines are written."
    )

    def __init__(self, **values: Any) -> None:
        self._refuse_unknown(values)
        try:
            super().__init__(**values)
        except PydanticValidationError as error:
            message = "\n".join(_one_line(detail) for detail in error.errors())
        except UnicodeDecodeError:
            message = f"{self._env_file(values)} is not text in UTF-8: save it in that encoding"
        except OSError as error:
            message = f"{self._env_file(values)} cannot be read: {error.strerror}"
        else:
            return
        # Raised outside the except block: the errors hold the refused values or the whole file, secrets among them.
        raise ConfigurationError(message)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - Pydantic passes it by this name.
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from, in Pydantic's own order. Unknown variables among them are warned of."""
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                cls._warn_of_unknown(source.env_vars)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @classmethod
    def _refuse_unknown(cls, names: Iterable[str]) -> None:
        known = set(cls.model_fields)
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasChoices):
                known.update(str(alias) for alias in field.validation_alias.choices)
        # Those that begin with an underscore are for pydantic-settings.
        unknown = [name for name in names if name not in known and not name.startswith("_")]
        if unknown:
            raise ConfigurationError("\n".join(cls._unknown(name) for name in unknown))

    @classmethod
    def _unknown(cls, name: str) -> str:
        closest = cls._closest(name)
        advice = "leave it out" if closest is None else f"did you mean {closest}?"
        return f"{name}: there is no such setting: {advice}"

    @classmethod
    def _warn_of_unknown(cls, variables: Iterable[str]) -> None:
        for variable in variables:
            name = variable.lower()
            field = name.removeprefix(_PREFIX.lower())
            if field == name or field in cls.model_fields or name.startswith(_FOR_TESTS) or name in _told:
                continue
            _told.add(name)
            closest = cls._closest(field)
            get_logger(__name__).warning(
                "unknown environment variable is ignored",
                variable=name.upper(),
                did_you_mean=None if closest is None else variable_name(closest),
            )

    @classmethod
    def _closest(cls, name: str) -> str | None:
        return next(iter(get_close_matches(name, cls.model_fields, n=1)), None)

    @classmethod
    def _env_file(cls, values: dict[str, Any]) -> Any:
        return values.get("_env_file", cls.model_config.get("env_file"))

    @property
    def uses_postgres(self) -> bool:
        """Whether any store keeps its data in PostgreSQL."""
        return "postgres" in (
            self.config_backend,
            self.memory_backend,
            self.audit_backend,
            self.profile_backend,
            self.run_backend,
            self.vector_backend,
        )

    def in_memory(self) -> Settings:
        """These settings with every store in memory."""
        backends = [name for name in type(self).model_fields if name.endswith("_backend")]
        return self.model_copy(update=dict.fromkeys(backends, "inmemory"))

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        _check_url(value, ("postgres", "postgresql", "postgresql+asyncpg"))
        return value

    @field_validator("database_schema", "extensions_schema")
    @classmethod
    def _check_schema(cls, value: str) -> str:
        if not _PLAIN_NAME.fullmatch(value):
            raise ValueError(
                "must be up to 63 lower-case letters, digits and underscores, not beginning with a digit or pg_"
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        _check_url(value, _REDIS_SCHEMES)
        return value

    @field_validator("database_password", "redis_password", "redis_sentinel_password", mode="before")
    @classmethod
    def _check_password(cls, value: Any) -> Any:
        # One line, where the union would give one for each of its parts.
        if value is not None and not isinstance(value, str) and not callable(value):
            raise ValueError("must be a string, or a callable that returns one")
        return value

    @model_validator(mode="after")
    def _check_durations(self) -> Self:
        for name in (
            "pool_timeout",
            "connect_timeout",
            "command_timeout",
            "redis_timeout",
            "redis_wait_timeout",
            "session_hot_ttl",
            "session_persist_ttl",
            "session_max_age",
        ):
            if getattr(self, name) < timedelta(milliseconds=1):
                raise ValueError(f"{variable_name(name)} must be at least one millisecond")
        if self.redis_wait_replicas and self.redis_wait_timeout >= self.redis_timeout:
            raise ValueError("SOLDIER_REDIS_WAIT_TIMEOUT must be shorter than SOLDIER_REDIS_TIMEOUT")
        if self.session_hot_ttl > self.session_persist_ttl:
            raise ValueError(
                "SOLDIER_SESSION_HOT_TTL is longer than SOLDIER_SESSION_PERSIST_TTL: "
                "a session would be gone while it is still hot"
            )
        return self


def variable_name(field: str) -> str:
    """The environment variable that sets `field`."""
    return f"{_PREFIX}{field.upper()}"


def _check_url(value: str, schemes: tuple[str, ...]) -> None:
    try:
        scheme = urlsplit(value).scheme
    except ValueError:
        scheme = ""
    if scheme not in schemes:
        raise ValueError("must be a URL that begins with " + ", ".join(f"{name}://" for name in schemes))


def _one_line(detail: Any) -> str:
    location = str(detail["loc"][0]) if detail["loc"] else ""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    name = location if location.isupper() else variable_name(location)
    if name in ("SOLDIER_DATABASE_URL", "SOLDIER_REDIS_URL"):
        # Pydantic names the first of the two variables, whichever was set.
        name = f"{name} (or {name.removeprefix('SOLDIER_')})"
    return f"{name}: {message[:1].lower()}{message[1:]}"
