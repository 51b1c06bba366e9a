"""When a TCP connection that has gone silent is given up: firewalls forget connections, and machines vanish."""

from __future__ import annotations

import math
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from soldier_data.settings import Settings


@dataclass(frozen=True)
class Keepalive:
    """Limits in seconds; 0 leaves one to the system.

    Attributes:
        idle: Silence after which the system asks the other end whether it is there; 0 switches asking off.
        interval: How long it waits for the answer before it asks again.
        count: How often it asks before it gives the connection up.
        user_timeout: How long data that was sent may stay unacknowledged before it gives the connection up.
    """

    idle: float
    interval: float
    count: int
    user_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        return cls(
            idle=settings.tcp_keepalive_idle.total_seconds(),
            interval=settings.tcp_keepalive_interval.total_seconds(),
            count=settings.tcp_keepalive_count,
            user_timeout=settings.tcp_user_timeout.total_seconds(),
        )

    def options(self) -> dict[int, int]:
        """The socket options of the level IPPROTO_TCP, as far as this platform has them."""
        chosen = {"TCP_USER_TIMEOUT": math.ceil(self.user_timeout * 1000)}
        if self.idle:
            chosen |= {
                # macOS has the first one under another name.
                "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": math.ceil(self.idle),
                "TCP_KEEPINTVL": math.ceil(self.interval),
                "TCP_KEEPCNT": self.count,
            }
        return {
            getattr(socket, name): value for name, value in chosen.items() if value and hasattr(socket, name)
        }

    def set_on(self, connection: socket.socket) -> None:
        """Set the options on a socket; one that is not TCP's stays as it is."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if self.idle:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in self.options().items():
            # Some sandboxes have the name of an option and refuse it.
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
