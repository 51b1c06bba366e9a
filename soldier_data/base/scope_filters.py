"""Which sessions a scenario migration concerns."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model


class ScopeFilter(Model):
    """Which sessions a scenario migration concerns. Empty lists and None mean "any".

    Attributes:
        include_current_nodes: Names of the steps that a session may stand at.
        exclude_current_nodes: Names of the steps that a session must not stand at.
        max_session_age_days: Sessions created longer ago are left out.
        min_session_age_days: Sessions created more recently are left out.
        custom_conditions: Kept for the service's own use; no store interprets them.
    """

    include_channels: list[Channel] = Field(default_factory=list)
    exclude_channels: list[Channel] = Field(default_factory=list)
    include_current_nodes: list[str] = Field(default_factory=list)
    exclude_current_nodes: list[str] = Field(default_factory=list)
    max_session_age_days: int | None = Field(default=None, ge=0)
    min_session_age_days: int | None = Field(default=None, ge=0)
    custom_conditions: dict[str, Any] = Field(default_factory=dict)
