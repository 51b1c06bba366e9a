"""All settings, read from environment variables (prefix ``SOLDIER_``) and a ``.env`` file."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from soldier_data.errors import ConfigurationError
from soldier_data.setting_names import (
    PREFIX,
    refuse_unknown_arguments,
    variable_name,
    warn_of_unknown_variables,
)

DatabaseBackend = Literal["postgres", "inmemory"]
SessionBackend = Literal["redis", "inmemory"]
SessionDurability = Literal["redis", "postgres"]

Password = str | Callable[[], str | Awaitable[str]]
"""A password, or a function, sync or async, that returns one for each new connection."""

VectorIndex = Literal["hnsw", "ivfflat", "none"]

_NUMBER = TypeAdapter(float)

_PLAIN_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
# Alembic appends _pkc for the name of the primary key.
_LONGEST_VERSION_TABLE = 59


def _seconds(value: Any) -> Any:
    """Read a bare number as seconds, and leave ISO 8601 durations to Pydantic."""
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

    An unknown variable with that prefix is ignored, with one warning in the log. An unknown argument is an error.

    Raises:
        ConfigurationError: A value is invalid, an argument is unknown, or the ``.env`` file cannot be read. The
            message has one line for each invalid setting and never repeats the value, which may be a secret.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        # Some editors put a byte-order mark before the first name.
        env_file_encoding="utf-8-sig",
        # The file may hold variables of other programs too.
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    database_url: str = Field(
        default="postgresql://postgres@localhost:5432/postgres",
        validation_alias=AliasChoices("SOLDIER_DATABASE_URL", "DATABASE_URL"),
        repr=False,
        description="PostgreSQL URL: postgres://, postgresql:// or postgresql+asyncpg://, with one host or "
        "several.",
    )
    database_password: Password | None = Field(
        default=None,
        repr=False,
        description="Password for PostgreSQL; takes precedence over the URL's. In code, also a function, sync or "
        "async, called for each new connection: `Settings(database_password=token)`.",
    )
    database_schema: str = Field(
        default="public", description="Schema of the tables. `soldier-data db upgrade` creates it."
    )
    extensions_schema: str = Field(
        default="public", description="Schema of the extensions vector and pg_trgm."
    )
    version_table: str = Field(
        default="alembic_version",
        description="Table, in the schema of the tables, that holds the revision of the database.",
    )
    redis_url: str = Field(
        default="redis://localhost:6379/0",
        validation_alias=AliasChoices("SOLDIER_REDIS_URL", "REDIS_URL"),
        repr=False,
        description="Redis URL: redis://, rediss:// or unix://; redis+sentinel://host,host/service or "
        "redis+cluster://host,host; use rediss for TLS.",
    )
    redis_password: Password | None = Field(
        default=None,
        repr=False,
        description="Password for Redis; takes precedence over the URL's. In code, also a function, sync or async, "
        "called for each new connection.",
    )
    redis_sentinel_username: str | None = Field(
        default=None, description="User name for the sentinels, if they require one."
    )
    redis_sentinel_password: Password | None = Field(
        default=None, repr=False, description="Password for the sentinels; in code, also a function."
    )

    config_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of agents and their rules: `postgres` or `inmemory`."
    )
    memory_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of episodes and entities: `postgres` or `inmemory`."
    )
    audit_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of turn records: `postgres` or `inmemory`."
    )
    profile_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of customer profiles: `postgres` or `inmemory`."
    )
    run_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of runs: `postgres` or `inmemory`."
    )
    vector_backend: DatabaseBackend = Field(
        default="postgres", description="Storage of free-standing embeddings: `postgres` or `inmemory`."
    )
    session_backend: SessionBackend = Field(
        default="redis", description="Storage of sessions: `redis` or `inmemory`."
    )
    session_durability: SessionDurability = Field(
        default="redis",
        description="Where the sessions of the backend `redis` are durable: in Redis alone (`redis`), or also in "
        "PostgreSQL (`postgres`).",
    )

    pool_size: int = Field(default=20, ge=1, description="PostgreSQL connections that the pool keeps open.")
    pool_overflow: int = Field(
        default=10, ge=0, description="Connections opened beyond pool_size at peak load."
    )
    pool_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest wait for a free connection of the pool."
    )
    pool_recycle: Duration = Field(
        default=timedelta(minutes=30), description="Age at which a connection is replaced."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=3),
        description="Time limit for opening a connection, for each host of the URL.",
    )
    command_timeout: Duration = Field(
        default=timedelta(seconds=60), description="Time limit for one statement."
    )
    retry_budget: Duration = Field(
        default=timedelta(seconds=15),
        description="Longest time that a call outside a unit of work is retried after a lost connection or a "
        "deadlock, or during a failover. 0 turns retries off.",
    )
    tcp_keepalive_idle: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        description="Idle time after which a TCP keepalive probe is sent. 0: never.",
    )
    tcp_keepalive_interval: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        description="Time between two keepalive probes.",
    )
    tcp_keepalive_count: int = Field(
        default=3, ge=1, le=127, description="Unanswered probes after which a connection is closed."
    )
    tcp_user_timeout: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        description="Time after which a connection with unacknowledged data is closed. 0: the system's default.",
    )
    pgbouncer: bool = Field(
        default=False,
        description="Connect through PgBouncer in transaction mode: prepared statements are not cached.",
    )
    row_level_security: bool = Field(
        default=False,
        description="Set app.tenant_id in every transaction, for roles that are subject to the policies.",
    )

    embedding_dimensions: int = Field(
        default=1536, ge=1, le=16_000, description="Dimensions of every stored embedding."
    )
    embedding_model: str | None = Field(
        default=None,
        min_length=1,
        description="Model whose embeddings a vector search compares, unless the call names another one. "
        "If not set, all embeddings are compared.",
    )
    vector_index: VectorIndex = Field(
        default="hnsw", description="Index on embeddings: `hnsw`, `ivfflat` or `none`."
    )

    anthropic_model: str = Field(
        default="claude-haiku-5-5", min_length=1, description="Model of `AnthropicProvider`."
    )
    openai_model: str = Field(default="gpt-5.4-mini", min_length=1, description="Model of `OpenAIProvider`.")
    openai_embedding_model: str = Field(
        default="text-embedding-3-small", min_length=1, description="Model of `OpenAIEmbeddingProvider`."
    )

    redis_max_connections: int = Field(
        default=100, ge=1, description="Largest number of Redis connections; callers wait for a free one."
    )
    redis_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Time limit for one Redis command, and for connecting."
    )
    redis_wait_replicas: int = Field(
        default=0, ge=0, description="Redis replicas that must confirm a save. 0: none."
    )
    redis_wait_timeout: Duration = Field(
        default=timedelta(seconds=1), description="Longest wait for these confirmations."
    )
    session_hot_ttl: Duration = Field(
        default=timedelta(minutes=30), description="Idle time after which a session leaves the hot tier."
    )
    session_persist_ttl: Duration = Field(
        default=timedelta(days=7), description="Idle time after which a session expires."
    )
    session_max_age: Duration = Field(
        default=timedelta(days=7), description="Time after its creation at which a session expires."
    )
    session_key_prefix: str = Field(
        default="session", min_length=1, pattern=r"^[^{}\s]+$", description="First part of every Redis key."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning",
        description="Lowest level that is logged, unless the service has configured structlog.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Format of log lines: `console` or `json`."
    )

    def __init__(self, **values: Any) -> None:
        refuse_unknown_arguments(values, type(self).model_fields)
        try:
            super().__init__(**values)
        except PydanticValidationError as error:
            message = "\n".join(_one_line(detail) for detail in error.errors())
        except UnicodeDecodeError:
            message = f"{self._env_file(values)} is not UTF-8 text: save it in that encoding"
        except OSError as error:
            message = f"{self._env_file(values)} cannot be read: {error.strerror}"
        else:
            return
        # Raised outside the except block, because the original errors hold rejected values or the whole file: secrets.
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
        """Keep Pydantic's order of sources, and warn of unknown variables in them."""
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                warn_of_unknown_variables(source.env_vars, cls.model_fields)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @classmethod
    def _env_file(cls, values: dict[str, Any]) -> Any:
        return values.get("_env_file", cls.model_config.get("env_file"))

    @property
    def uses_postgres(self) -> bool:
        """True if any store keeps its data in PostgreSQL."""
        return self.has_durable_sessions or "postgres" in (getattr(self, name) for name in self._backends())

    @property
    def has_durable_sessions(self) -> bool:
        """True if sessions are stored in PostgreSQL as well as in Redis."""
        return self.session_backend == "redis" and self.session_durability == "postgres"

    def in_memory(self) -> Settings:
        """Return a copy of these settings with every store in memory."""
        return self.model_copy(update=dict.fromkeys(self._backends(), "inmemory"))

    @classmethod
    def _backends(cls) -> list[str]:
        return [name for name in cls.model_fields if name.endswith("_backend")]

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        _check_url(value, ("postgres", "postgresql", "postgresql+asyncpg"))
        return value

    @field_validator("database_schema", "extensions_schema", "version_table")
    @classmethod
    def _check_name(cls, value: str, info: ValidationInfo) -> str:
        longest = _LONGEST_VERSION_TABLE if info.field_name == "version_table" else 63
        if not _PLAIN_NAME.fullmatch(value) or len(value) > longest:
            raise ValueError(
                f"must be up to {longest} lower-case letters, digits and underscores, not beginning with a digit or "
                "pg_"
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
        # Reports one error, where the union would report one for each of its members.
        if value is not None and not isinstance(value, str) and not callable(value):
            raise ValueError("must be a string or a function that returns one")
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
                "a session would expire while it is still in the hot tier"
            )
        return self


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
