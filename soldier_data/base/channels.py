"""The channels by which customers talk to agents."""

from __future__ import annotations

from enum import StrEnum


class Channel(StrEnum):
    """The channel of a conversation."""

    WHATSAPP = "whatsapp"
    SLACK = "slack"
    WEBCHAT = "webchat"
    EMAIL = "email"
    VOICE = "voice"
    API = "api"
