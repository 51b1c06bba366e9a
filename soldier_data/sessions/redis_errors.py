"""Translation of redis-py's errors into `StoreError`, with messages that hold no values and no secrets."""

from __future__ import annotations

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.sessions.connections import PasswordError

DRIVER_ERRORS = (RedisError, RedisClusterException, OSError)

_REPLICA = "READONLY"

# Error codes of a server that is temporarily unavailable. Only errors of the first table are transient.
_TRANSIENT = {
    _REPLICA: "it is a replica, which does not accept writes: check its role and SOLDIER_REDIS_URL",
    "UNBLOCKED": "it has become a replica",
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": "a part of the cluster has no primary: check its nodes",
    "TRYAGAIN": "the cluster is moving these keys to another node",
    "NOREPLICAS": "it has too few replicas (min-replicas-to-write)",
    "BUSY": "a script keeps it busy: wait for the script, or stop it with SCRIPT KILL",
}
_PERSISTENT = {
    "OOM": "its memory is full: check maxmemory and maxmemory-policy",
    "MISCONF": "it cannot write to its disk: check the disk and the log of Redis",
}
# redis-py has classes for some codes, and removes the code from their messages.
_CODES: dict[type[Exception], str] = {
    ReadOnlyError: _REPLICA,
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    # Raised after too many redirections.
    AskError: "TRYAGAIN",
    MovedError: "TRYAGAIN",
    ClusterError: "TRYAGAIN",
    OutOfMemoryError: "OOM",
}
_LOGIN_ERRORS = (AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError)
_LOGIN_CODES = ("NOAUTH", "WRONGPASS")
# Errors inside a script lack the code. The second text is that of Redis 7 and later, the third of earlier versions.
_PERMISSION = ("NOPERM ", "ACL failure in script", "executing the script can't")


def is_timeout(cause: Exception) -> bool:
    """Return whether Redis did not answer in time."""
    return isinstance(cause, RedisTimeoutError | TimeoutError)


def is_from_replica(cause: Exception) -> bool:
    """Return whether the server that answered is no longer a primary."""
    return _code(cause) in (_REPLICA, "UNBLOCKED")


def is_transient(cause: Exception) -> bool:
    """Return whether the same call may succeed soon.

    Timeouts do not count as transient: a retry would make the caller wait even longer.
    """
    cause = _innermost(cause)
    if is_timeout(cause) or _is_login_failure(cause) or _lacks_permission(cause):
        return False
    if isinstance(cause, MasterNotFoundError):
        return not _is_sentinel_login_failure(cause)
    if isinstance(cause, ResponseError | ClusterError):
        return _code(cause) in _TRANSIENT
    return isinstance(cause, RedisConnectionError | RedisClusterException | OSError)


def translate(action: str, cause: Exception, timeout: float) -> StoreError:
    """Return the error to raise for an error of redis-py during an operation."""
    inner = _innermost(cause)
    if isinstance(inner, PasswordError):
        kind = type(inner.failure).__name__
        return StoreConnectionError(
            f"no password for Redis while {action}: {inner.setting} failed ({kind}, see .cause)",
            cause=inner.failure,
        )
    if _is_login_failure(inner):
        message = f"Redis rejected the login while {action}: check user and password in SOLDIER_REDIS_URL"
        return StoreConnectionError(f"{message} or SOLDIER_REDIS_PASSWORD", cause=cause)
    if is_timeout(inner):
        message = f"Redis did not answer within {timeout:g} s while {action}"
        return StoreConnectionError(
            f"{message}: check the server, its load and SOLDIER_REDIS_URL", cause=cause
        )
    if isinstance(inner, MasterNotFoundError):
        return _no_primary(action, inner)
    if isinstance(inner, ResponseError | ClusterError | BusyLoadingError):
        return _from_reply(action, inner)
    if isinstance(inner, RedisConnectionError | RedisClusterException | OSError):
        message = f"Redis cannot be reached while {action}: check the server and SOLDIER_REDIS_URL"
        return StoreConnectionError(message, cause=cause)
    return StoreError(f"the Redis client failed ({type(cause).__name__}) while {action}", cause=cause)


def _from_reply(action: str, cause: Exception) -> StoreError:
    if _lacks_permission(cause):
        message = f"the Redis user lacks a permission for {action}"
        return ConfigurationError(f"{message}: grant it the command, key pattern or channel", cause=cause)
    code = _code(cause)
    if why := _TRANSIENT.get(code) or _PERSISTENT.get(code):
        return StoreConnectionError(f"Redis is temporarily unavailable while {action}: {why}", cause=cause)
    if "cluster support disabled" in str(cause):
        message = "SOLDIER_REDIS_URL names a server that is not part of a cluster: use redis:// instead"
        return ConfigurationError(message, cause=cause)
    return StoreError(f"Redis refused the command ({code}) while {action}", cause=cause)


def _no_primary(action: str, cause: Exception) -> StoreConnectionError:
    if _is_sentinel_login_failure(cause):
        why = "rejected the login: check SOLDIER_REDIS_SENTINEL_USERNAME and SOLDIER_REDIS_SENTINEL_PASSWORD"
    else:
        why = "know no primary: check the sentinels and the service in SOLDIER_REDIS_URL"
    return StoreConnectionError(f"Redis cannot be reached while {action}: its sentinels {why}", cause=cause)


def _innermost(cause: Exception) -> Exception:
    """Return the error that redis-py wrapped: for Unix sockets during the login, for Cluster errors of a node."""
    inner: BaseException | None = cause
    while isinstance(inner, RedisClusterException) or type(inner) is RedisConnectionError:
        inner = inner.__cause__ or (inner.__context__ if isinstance(inner, RedisClusterException) else None)
        if isinstance(inner, DRIVER_ERRORS):
            cause = inner
    return cause


def _is_login_failure(cause: Exception) -> bool:
    return isinstance(cause, _LOGIN_ERRORS) or str(cause).startswith(_LOGIN_CODES)


def _is_sentinel_login_failure(cause: Exception) -> bool:
    # redis-py keeps only the repr of the sentinels' errors.
    return "auth:" in str(cause)


def _lacks_permission(cause: Exception) -> bool:
    return isinstance(cause, NoPermissionError) or (
        isinstance(cause, ResponseError) and any(text in str(cause) for text in _PERMISSION)
    )


def _code(cause: Exception) -> str:
    """Return the code of an error reply, its first word; the rest may hold values."""
    if code := _CODES.get(type(cause)):
        return code
    if not isinstance(cause, ResponseError):
        return ""
    text = str(cause)
    if text.startswith("WAIT cannot be used with replica"):
        # The server became a replica after the previous command.
        return _REPLICA
    first = text.split(" ", 1)[0]
    if first in _TRANSIENT or first in _PERSISTENT:
        return first
    # Before Redis 7 the code of an error inside a script is in the middle of the message.
    inside = (code for code in (*_TRANSIENT, *_PERSISTENT) if f"-{code} " in text)
    return next(inside, first if first.isupper() else "ERR")
