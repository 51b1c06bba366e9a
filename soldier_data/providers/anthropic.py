"""Text from Anthropic's models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from soldier_data.logging import get_logger
from soldier_data.providers.arguments import check_prompt, checked_texts
from soldier_data.providers.errors import ContentFilterError, StructuredOutputError
from soldier_data.providers.llm import LLMProvider, LLMResponse, Message, S, ask_for
from soldier_data.providers.retrying import Clock
from soldier_data.providers.usage import TokenUsage, counted
from soldier_data.providers.vendor import MAX_RETRIES, TIMEOUT, TOTAL_TIMEOUT, Vendor, without_nones
from soldier_data.settings import Settings

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


class AnthropicProvider(LLMProvider):
    """`LLMProvider` on the Messages API, with structured outputs (`output_config.format`).

    Args:
        api_key: API key; by default the value of ANTHROPIC_API_KEY.
        model: Name of the model; by default SOLDIER_ANTHROPIC_MODEL.
        base_url: Base URL of the API; by default the vendor's.
        max_retries: Largest number of retries of a call.
        timeout: Time limit for one attempt, in seconds.
        total_timeout: Seconds after which no further attempt begins.
        clock: Clock to use in tests.

    Raises:
        AuthenticationError: No key is given or set.
        ProviderError: The package `anthropic` is not installed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        model: str | None = None,
        base_url: str | None = None,
        *,
        max_retries: int = MAX_RETRIES,
        timeout: float = TIMEOUT,
        total_timeout: float = TOTAL_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        self._vendor = Vendor("anthropic", api_key, max_retries, timeout, total_timeout, clock)
        self._model = model or Settings().anthropic_model
        self._client: AsyncAnthropic = self._vendor.sdk.AsyncAnthropic(
            api_key=self._vendor.api_key, base_url=base_url, max_retries=0, timeout=timeout
        )
        self._log = get_logger(__name__)
        self._warned_of_temperature = False

    @property
    def model_id(self) -> str:
        return self._model

    async def generate(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        max_tokens: int = 1024,
        temperature: float | None = None,
        stop_sequences: Sequence[str] | None = None,
    ) -> LLMResponse:
        check_prompt(prompt, system_prompt, max_tokens)
        stops = None if stop_sequences is None else checked_texts(stop_sequences, "stop_sequences")
        if temperature is not None and not self._warned_of_temperature:
            self._warned_of_temperature = True
            self._log.warning("temperature is ignored: the API does not support it", model=self._model)
        options = without_nones(system=system_prompt, max_tokens=max_tokens, stop_sequences=stops or None)
        return await self._send([Message("user", prompt)], options)

    async def generate_structured(
        self,
        prompt: str,
        schema: type[S],
        *,
        system_prompt: str | None = None,
        max_tokens: int = 1024,
    ) -> tuple[S, LLMResponse]:
        check_prompt(prompt, system_prompt, max_tokens)
        options = without_nones(
            system=system_prompt, max_tokens=max_tokens, output_config={"format": self._format(schema)}
        )
        return await ask_for(schema, prompt, lambda messages: self._send(messages, options), self._model)

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, messages: list[Message], options: dict[str, Any]) -> LLMResponse:
        started = time.perf_counter()
        turns: Any = [message._asdict() for message in messages]
        response = await self._vendor.call(lambda: self._ask(turns, options), f"asking {self._model}")
        self._log.info(
            "generated text",
            provider="anthropic",
            model=response.model,
            latency_ms=round((time.perf_counter() - started) * 1000),
            prompt_tokens=response.usage.prompt_tokens,
            completion_tokens=response.usage.completion_tokens,
            finish_reason=response.finish_reason,
        )
        if response.finish_reason == "refusal":
            raise ContentFilterError(
                f"anthropic: {self._model} declined to answer: change the prompt", usage=response.usage
            )
        return response

    async def _ask(self, turns: Any, options: dict[str, Any]) -> LLMResponse:
        answer = await self._client.messages.create(model=self._model, messages=turns, **options)
        # input_tokens does not include tokens that are read from the vendor's cache or written to it.
        sent = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        prompt = sum(counted(answer.usage, name) for name in sent)
        written = counted(answer.usage, "output_tokens")
        return LLMResponse(
            content="".join(block.text for block in answer.content if block.type == "text"),
            model=answer.model,
            usage=TokenUsage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written),
            finish_reason=answer.stop_reason or "",
            raw_response=answer.model_dump(mode="json"),
        )

    def _format(self, schema: type[S]) -> dict[str, Any]:
        try:
            return {"type": "json_schema", "schema": self._vendor.sdk.transform_schema(schema)}
        except ValueError as error:
            cause = error
        raise StructuredOutputError(
            f"anthropic: {schema.__name__} has a field without a definite type: declare one", cause=cause
        )
