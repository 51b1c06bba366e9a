"""What a call costs, in tokens."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class TokenUsage(BaseModel):
    """How many tokens were counted, and will be paid for.

    Attributes:
        prompt_tokens: Of what was sent, cached parts included.
        completion_tokens: Of the reply, thinking included.
        total_tokens: Of both.
    """

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    total_tokens: int = Field(default=0, ge=0)

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


def counted(usage: Any, name: str) -> int:
    """The number `name` in what a vendor counted: 0 where it did not, as some servers that speak its protocol."""
    count: int | None = getattr(usage, name, None)
    return count or 0
