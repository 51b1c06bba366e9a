"""The sessions that a scenario migration applies to."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model


class ScopeFilter(Model):
    """Selects the sessions that a scenario migration applies to. Empty lists and None select all.

    Attributes:
        include_channels: Channels of the sessions to select.
        exclude_channels: Channels of the sessions to leave out.
        include_current_nodes: Names of the current steps of the sessions to select.
        exclude_current_nodes: Names of the current steps of the sessions to leave out.
        max_session_age_days: Maximum age of a session since its creation, in days.
        min_session_age_days: Minimum age of a session since its creation, in days.
        custom_conditions: For the service's own use; stores do not interpret them.
    """

    include_channels: list[Channel] = Field(default_factory=list)
    exclude_channels: list[Channel] = Field(default_factory=list)
    include_current_nodes: list[str] = Field(default_factory=list)
    exclude_current_nodes: list[str] = Field(default_factory=list)
    max_session_age_days: int | None = Field(default=None, ge=0)
    min_session_age_days: int | None = Field(default=None, ge=0)
    custom_conditions: dict[str, Any] = Field(default_factory=dict)
