"""Token usage of calls."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class TokenUsage(BaseModel):
    """Number of billed tokens, as the vendor reports it.

    Attributes:
        prompt_tokens: Tokens sent, including cached ones.
        completion_tokens: Tokens of the reply, including thinking.
        total_tokens: Sum of both.
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
    """Return the count `name` of a vendor's usage; 0 if missing, as with some compatible servers."""
    count: int | None = getattr(usage, name, None)
    return count or 0
