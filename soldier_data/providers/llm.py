"""The contract of providers of large language models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticValidationError

from soldier_data.providers.errors import ProviderError, StructuredOutputError
from soldier_data.providers.usage import TokenUsage

S = TypeVar("S", bound=BaseModel)

# What Anthropic and OpenAI call a reply that ended too early, and what to do about it.
_CUT_OFF = {
    "max_tokens": "raise max_tokens",
    "length": "raise max_tokens",
    "model_context_window_exceeded": "the model's context window is full: shorten the prompt",
}


class LLMResponse(BaseModel):
    """A reply.

    Attributes:
        content: Its text.
        model: Which model wrote it, as the vendor names it.
        usage: Tokens, those of a repeated question included.
        finish_reason: Why the reply ended, in the vendor's own word: "end_turn" (Anthropic) or "stop" (OpenAI) by
            itself, "stop_sequence" or "stop" at a stop sequence, "max_tokens" or "length" when it was cut off, and
            "model_context_window_exceeded" (Anthropic) when it was cut off because the context window was full.
        raw_response: The vendor's whole answer as a dictionary.
    """

    content: str = Field(repr=False)
    model: str
    usage: TokenUsage
    finish_reason: str
    raw_response: dict[str, Any] | None = Field(default=None, repr=False)


class LLMProvider(ABC):
    """Writes text with one model of one vendor.

    Calls that fail transiently (429, 500, 502, 503, 529, no answer in time, a broken connection) are repeated,
    after a wait that doubles or that the vendor asks for, a bounded number of times and for a bounded time.

    Raises (every method):
        AuthenticationError: The key is wrong, or may not use the model.
        ModelError: The vendor does not know the model.
        InvalidRequestError: The vendor refuses the request: too long, say.
        ContentFilterError: The prompt or the reply is declined.
        RateLimitError: Too many requests, still after the retries.
        ProviderUnavailableError: The vendor fails or does not answer, still after the retries.
        ProviderError: Anything else; every one above is a ProviderError as well. Its `usage` tells what tokens were
            spent all the same.
        ValidationError: An argument is not of its type; of `soldier_data.errors`, and raised before anything is sent.
    """

    @property
    @abstractmethod
    def model_id(self) -> str:
        """The model that is asked."""

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
        """The model's reply to `prompt`.

        Args:
            prompt: What the user says.
            system_prompt: What the model is to be and to know.
            max_tokens: The longest reply, in tokens, thinking included; a longer one is cut off, which
                `finish_reason` tells.
            temperature: How varied replies are, 0 to 2; None leaves it to the vendor. Anthropic's API takes none
                any more (since its version of 2026-10-21): there it is left out, and a warning logged.
            stop_sequences: Texts that end the reply, and are not part of it. OpenAI takes four.
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
        """The model's reply as an instance of `schema`, validated, and the reply that it was read from.

        The vendor's structured outputs keep the reply to the schema's types. What they cannot express (a range, a
        validator of your own) may still fail: then the model is asked once more, with what was wrong.

        Raises:
            StructuredOutputError: The second reply does not fit either, or a reply was cut off by `max_tokens`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


class Message(NamedTuple):
    """One turn of a conversation, in the form that both vendors take."""

    role: Literal["user", "assistant"]
    content: str


Ask: TypeAlias = Callable[[list[Message]], Awaitable[LLMResponse]]
"""Sends a conversation to the vendor and returns the reply."""


async def ask_for(schema: type[S], prompt: str, ask: Ask, model_id: str) -> tuple[S, LLMResponse]:
    """As `LLMProvider.generate_structured`, on the vendor's own `ask`."""
    messages = [Message("user", prompt)]
    first = await ask(messages)
    found, complaint = _validated(schema, first, model_id)
    if found is not None:
        return found, first
    if first.content:
        messages.append(Message("assistant", first.content))
    messages.append(Message("user", f"Your reply does not fit the schema. {complaint} Reply again, in full."))
    try:
        second = await ask(messages)
    except ProviderError as error:
        error.usage += first.usage
        raise
    second = second.model_copy(update={"usage": first.usage + second.usage})
    found, complaint = _validated(schema, second, model_id)
    if found is None:
        raise StructuredOutputError(
            f"{model_id}: the reply does not fit {schema.__name__}, nor does a second one: {complaint}",
            usage=second.usage,
        )
    return found, second


def _validated(schema: type[S], response: LLMResponse, model_id: str) -> tuple[S | None, str]:
    if response.finish_reason in _CUT_OFF:
        raise StructuredOutputError(
            f"{model_id}: the reply was cut off before it was a whole {schema.__name__}: "
            f"{_CUT_OFF[response.finish_reason]}",
            usage=response.usage,
        )
    try:
        return schema.model_validate_json(response.content), ""
    except PydanticValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
    return None, " ".join(f"{_place(schema, detail['loc'])}: {detail['type']}." for detail in details[:10])


def _place(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The field at fault. Keys that the model made up are text of the reply, which no error may repeat."""
    known = [str(part) for part in location[:1] if part in schema.model_fields]
    return known[0] if known else "the reply"
