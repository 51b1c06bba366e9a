"""What redis-py's errors mean: each becomes a `StoreError` whose message holds no value and no secret."""

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

# Replies of a server that is there but cannot serve now, by their code. Those of the first table pass by themselves.
_PASSING = {
    _REPLICA: "it is a replica, which takes no writes: check its role and SOLDIER_REDIS_URL",
    "UNBLOCKED": "it has become a replica",
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": "a part of the cluster has no primary: check its nodes",
    "TRYAGAIN": "the cluster moves these keys to another node",
    "NOREPLICAS": "it lacks replicas (min-replicas-to-write)",
    "BUSY": "a script keeps it busy: wait for it, or end it by SCRIPT KILL",
}
_LASTING = {
    "OOM": "its memory is full: check maxmemory and its policy",
    "MISCONF": "it cannot write to its disk: check its disk and its log",
}
# redis-py has classes for some, and takes their code off the message.
_CODES: dict[type[Exception], str] = {
    ReadOnlyError: _REPLICA,
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    # What is left of redirections that led nowhere.
    AskError: "TRYAGAIN",
    MovedError: "TRYAGAIN",
    ClusterError: "TRYAGAIN",
    OutOfMemoryError: "OOM",
}
_LOG_IN = (AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError)
_LOG_IN_CODES = ("NOAUTH", "WRONGPASS")
# In a script the code is lost: "ACL failure in script: ..." from Redis 7 on, the second one before.
_PERMISSION = ("NOPERM ", "ACL failure in script", "executing the script can't")


def timed_out(cause: Exception) -> bool:
    """Whether no answer came in time."""
    return isinstance(cause, RedisTimeoutError | TimeoutError)


def tells_of_a_replica(cause: Exception) -> bool:
    """Whether the server that answered is a primary no longer."""
    return _code(cause) in (_REPLICA, "UNBLOCKED")


def may_pass(cause: Exception) -> bool:
    """Whether the same call may succeed in a moment.

    Not after a time-out: repeating that would take longer still.
    """
    cause = _innermost(cause)
    if timed_out(cause) or _refuses_log_in(cause) or _lacks_permission(cause):
        return False
    if isinstance(cause, MasterNotFoundError):
        return not _sentinels_refuse(cause)
    if isinstance(cause, ResponseError | ClusterError):
        return _code(cause) in _PASSING
    return isinstance(cause, RedisConnectionError | RedisClusterException | OSError)


def translate(action: str, cause: Exception, timeout: float) -> StoreError:
    """The error to raise for what redis-py raised while `action`."""
    inner = _innermost(cause)
    if isinstance(inner, PasswordError):
        kind = type(inner.failure).__name__
        return StoreConnectionError(
            f"no password for Redis while {action}: {inner.setting} failed ({kind}, see .cause)",
            cause=inner.failure,
        )
    if _refuses_log_in(inner):
        message = f"Redis refused the log-in while {action}: check user and password in SOLDIER_REDIS_URL"
        return StoreConnectionError(f"{message}, and SOLDIER_REDIS_PASSWORD", cause=cause)
    if timed_out(inner):
        message = (
            f"Redis did not answer within {timeout:g} s while {action}: "
            "check that it runs and is not overloaded, and SOLDIER_REDIS_URL"
        )
        return StoreConnectionError(message, cause=cause)
    if isinstance(inner, MasterNotFoundError):
        return _no_primary(action, inner)
    if isinstance(inner, ResponseError | ClusterError | BusyLoadingError):
        return _from_reply(action, inner)
    if isinstance(inner, RedisConnectionError | RedisClusterException | OSError):
        message = f"Redis cannot be reached while {action}: check that it runs, and SOLDIER_REDIS_URL"
        return StoreConnectionError(message, cause=cause)
    return StoreError(f"the Redis client failed ({type(cause).__name__}) while {action}", cause=cause)


def _from_reply(action: str, cause: Exception) -> StoreError:
    if _lacks_permission(cause):
        message = (
            f"the Redis user lacks a permission for {action} (a command, key pattern or channel): grant it"
        )
        return ConfigurationError(message, cause=cause)
    code = _code(cause)
    if why := _PASSING.get(code) or _LASTING.get(code):
        return StoreConnectionError(f"Redis cannot serve now while {action}: {why}", cause=cause)
    if "cluster support disabled" in str(cause):
        message = "SOLDIER_REDIS_URL names a server that is part of no cluster: begin it with redis://"
        return ConfigurationError(message, cause=cause)
    return StoreError(f"Redis refused the command ({code}) while {action}", cause=cause)


def _no_primary(action: str, cause: Exception) -> StoreConnectionError:
    if _sentinels_refuse(cause):
        why = "refused the log-in: check SOLDIER_REDIS_SENTINEL_USERNAME and SOLDIER_REDIS_SENTINEL_PASSWORD"
    else:
        why = "know no primary: check that they run, and the service in SOLDIER_REDIS_URL"
    return StoreConnectionError(f"Redis cannot be reached while {action}: its sentinels {why}", cause=cause)


def _innermost(cause: Exception) -> Exception:
    """What redis-py wrapped: on a Unix socket whatever fails during the log-in, on Cluster whatever a node said."""
    inner: BaseException | None = cause
    while isinstance(inner, RedisClusterException) or type(inner) is RedisConnectionError:
        inner = inner.__cause__ or (inner.__context__ if isinstance(inner, RedisClusterException) else None)
        if isinstance(inner, DRIVER_ERRORS):
            cause = inner
    return cause


def _refuses_log_in(cause: Exception) -> bool:
    return isinstance(cause, _LOG_IN) or str(cause).startswith(_LOG_IN_CODES)


def _sentinels_refuse(cause: Exception) -> bool:
    # Of the sentinels' errors redis-py leaves their repr alone.
    return "auth:" in str(cause)


def _lacks_permission(cause: Exception) -> bool:
    return isinstance(cause, NoPermissionError) or (
        isinstance(cause, ResponseError) and any(text in str(cause) for text in _PERMISSION)
    )


def _code(cause: Exception) -> str:
    """The code of a reply: its first word; the rest may hold values."""
    if code := _CODES.get(type(cause)):
        return code
    if not isinstance(cause, ResponseError):
        return ""
    text = str(cause)
    if text.startswith("WAIT cannot be used with replica"):
        # It was a primary still when it took the command before.
        return _REPLICA
    first = text.split(" ", 1)[0]
    if first in _PASSING or first in _LASTING:
        return first
    # Before Redis 7 the code of an error inside a script stands amid the message.
    inside = (code for code in (*_PASSING, *_LASTING) if f"-{code} " in text)
    return next(inside, first if first.isupper() else "ERR")
