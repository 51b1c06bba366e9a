"""The contract of language model providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticValidationError

from soldier_data.providers.errors import ProviderError, StructuredOutputError
from soldier_data.providers.usage import TokenUsage

S = TypeVar("S", bound=BaseModel)

# Finish reasons of truncated replies, by Anthropic and OpenAI, and their remedies.
_TRUNCATED = {
    "max_tokens": "raise max_tokens",
    "length": "raise max_tokens",
    "model_context_window_exceeded": "the model's context window is full: shorten the prompt",
}


class LLMResponse(BaseModel):
    """A model's reply.

    Attributes:
        content: Text of the reply.
        model: Name of the model that wrote it, as the vendor reports it.
        usage: Tokens used, including those of a repeated request.
        finish_reason: The vendor's reason for the end of the reply: "end_turn" (Anthropic) or "stop" (OpenAI) if
            complete, "stop_sequence" or "stop" at a stop sequence, "max_tokens" or "length" if truncated by max_tokens,
            "model_context_window_exceeded" (Anthropic) if truncated because the context window was full.
        raw_response: The vendor's complete response.
    """

    content: str = Field(repr=False)
    model: str
    usage: TokenUsage
    finish_reason: str
    raw_response: dict[str, Any] | None = Field(default=None, repr=False)


class LLMProvider(ABC):
    """Generates text with a vendor's model.

    Calls that fail transiently (429, 500, 502, 503, 529, a timeout, a lost connection) are retried, with exponential
    backoff or after the wait that the vendor specifies. The number of retries and the total time are limited.

    Raises (every method):
        AuthenticationError: The API key is invalid, or not allowed to use the model.
        ModelError: The model does not exist.
        InvalidRequestError: The vendor rejected the request, as too long for example.
        ContentFilterError: The prompt or the reply was declined.
        RateLimitError: Too many requests, despite retries.
        ProviderUnavailableError: The vendor failed or did not respond, despite retries.
        ProviderError: Base class of the above, and any other failure. `usage` holds the tokens that were consumed.
        ValidationError: An argument has the wrong type (`soldier_data.errors`); raised before anything is sent.
    """

    @property
    @abstractmethod
    def model_id(self) -> str:
        """Name of the model."""

    @abstractmethod
    async def generate(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        max_tokens: int = 1024,
        temperature: float | None = None,
        stop_sequences: Sequence[str] | None = None,
    ) -> LLMResponse:
        """Return the model's reply to `prompt`.

        Args:
            prompt: The user's message.
            system_prompt: Instructions and context for the model.
            max_tokens: Largest length of the reply in tokens, including thinking. A longer reply is truncated, as
                `finish_reason` shows.
            temperature: Randomness of the reply, 0 to 2; by default the vendor's. Anthropic's API has not supported it
                since version 2026-10-21: it is ignored there, with a warning in the log.
            stop_sequences: Strings that end the reply, and are not part of it. OpenAI allows four.
        """

    @abstractmethod
    async def generate_structured(
        self,
        prompt: str,
        schema: type[S],
        *,
        system_prompt: str | None = None,
        max_tokens: int = 1024,
    ) -> tuple[S, LLMResponse]:
        """Return the model's reply as a validated instance of `schema`, and the reply itself.

        The vendor's structured outputs enforce the types of the schema. Constraints that they cannot express (a range,
        a custom validator) may fail; the model is then asked once more, with a description of the errors.

        Raises:
            StructuredOutputError: The second reply is invalid too, or a reply was truncated by `max_tokens`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


class Message(NamedTuple):
    """A message of a conversation, in the format of both vendors."""

    role: Literal["user", "assistant"]
    content: str


Ask: TypeAlias = Callable[[list[Message]], Awaitable[LLMResponse]]
"""Sends a conversation to the vendor and returns the reply."""


async def ask_for(schema: type[S], prompt: str, ask: Ask, model_id: str) -> tuple[S, LLMResponse]:
    """Implement `LLMProvider.generate_structured` with the vendor's `ask`."""
    messages = [Message("user", prompt)]
    first = await ask(messages)
    parsed, problems = _validated(schema, first, model_id)
    if parsed is not None:
        return parsed, first
    if first.content:
        messages.append(Message("assistant", first.content))
    messages.append(
        Message("user", f"Your reply does not match the schema. {problems} Reply again, in full.")
    )
    try:
        second = await ask(messages)
    except ProviderError as error:
        error.usage += first.usage
        raise
    second = second.model_copy(update={"usage": first.usage + second.usage})
    parsed, problems = _validated(schema, second, model_id)
    if parsed is None:
        raise StructuredOutputError(
            f"{model_id}: two replies do not match {schema.__name__}: {problems}", usage=second.usage
        )
    return parsed, second


def _validated(schema: type[S], response: LLMResponse, model_id: str) -> tuple[S | None, str]:
    if response.finish_reason in _TRUNCATED:
        raise StructuredOutputError(
            f"{model_id}: the reply was truncated before the end of {schema.__name__}: "
            f"{_TRUNCATED[response.finish_reason]}",
            usage=response.usage,
        )
    try:
        return schema.model_validate_json(response.content), ""
    except PydanticValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
    return None, " ".join(f"{_field(schema, detail['loc'])}: {detail['type']}." for detail in details[:10])


def _field(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Return the invalid field. Unknown keys come from the reply, which no error message may contain."""
    known = [str(part) for part in location[:1] if part in schema.model_fields]
    return known[0] if known else "the reply"
