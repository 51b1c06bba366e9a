"""TCP keep-alive options, which detect connections that a firewall dropped or whose peer disappeared."""

from __future__ import annotations

import math
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from soldier_data.settings import Settings


@dataclass(frozen=True)
class Keepalive:
    """Keep-alive options. Times are in seconds; 0 leaves the system's default.

    Attributes:
        idle: Idle time before the first probe; 0 disables probes.
        interval: Time between probes.
        count: Number of unanswered probes after which the connection is closed.
        user_timeout: Time that sent data may remain unacknowledged before the connection is closed.
    """

    idle: float
    interval: float
    count: int
    user_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The options in `settings`."""
        return cls(
            idle=settings.tcp_keepalive_idle.total_seconds(),
            interval=settings.tcp_keepalive_interval.total_seconds(),
            count=settings.tcp_keepalive_count,
            user_timeout=settings.tcp_user_timeout.total_seconds(),
        )

    def options(self) -> dict[int, int]:
        """Socket options of level IPPROTO_TCP, without those that this platform lacks."""
        chosen = {"TCP_USER_TIMEOUT": math.ceil(self.user_timeout * 1000)}
        if self.idle:
            chosen |= {
                # macOS uses a different name for the first one.
                "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": math.ceil(self.idle),
                "TCP_KEEPINTVL": math.ceil(self.interval),
                "TCP_KEEPCNT": self.count,
            }
        return {
            getattr(socket, name): value for name, value in chosen.items() if value and hasattr(socket, name)
        }

    def set_on(self, connection: socket.socket) -> None:
        """Set the options on `connection` if it is a TCP socket."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if self.idle:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in self.options().items():
            # Some sandboxes define an option but reject it.
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
