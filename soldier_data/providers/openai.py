"""Text and embeddings from OpenAI's models, or from any server with a compatible API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from soldier_data.errors import ConfigurationError, ValidationError
from soldier_data.logging import get_logger
from soldier_data.providers.arguments import check_prompt, check_text, checked_texts
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.errors import ContentFilterError, ProviderError
from soldier_data.providers.llm import LLMProvider, LLMResponse, Message, S, ask_for
from soldier_data.providers.retrying import Clock
from soldier_data.providers.usage import TokenUsage, counted
from soldier_data.providers.vendor import MAX_RETRIES, TIMEOUT, TOTAL_TIMEOUT, Vendor, without_nones
from soldier_data.settings import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_DIMENSIONS = {
    "text-embedding-ada-002": 1536,
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
}
"""Default number of dimensions by model."""

_SHORTENABLE = "text-embedding-3-"
"""Prefix of the models that can make vectors with fewer dimensions."""

_MAX_TEXTS = 2048
_MAX_TOKENS = 300_000
"""Limits of one embeddings request."""


class OpenAIProvider(LLMProvider):
    """`LLMProvider` on Chat Completions, because the Responses API has no stop sequences.

    Args:
        api_key: API key; by default the value of OPENAI_API_KEY.
        model: Name of the model; by default SOLDIER_OPENAI_MODEL.
        base_url: Base URL of the API; by default the vendor's.
        max_retries: Largest number of retries of a call.
        timeout: Time limit for one attempt, in seconds.
        total_timeout: Seconds after which no further attempt begins.
        clock: Clock to use in tests.

    Raises:
        AuthenticationError: No key is given or set.
        ProviderError: The package `openai` is not installed.
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
        self._vendor = Vendor("openai", api_key, max_retries, timeout, total_timeout, clock)
        self._model = model or Settings().openai_model
        self._client = _client(self._vendor, base_url)
        self._log = get_logger(__name__)

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
        options = without_nones(max_completion_tokens=max_tokens, temperature=temperature, stop=stops or None)
        return await self._send([Message("user", prompt)], system_prompt, options)

    async def generate_structured(
        self,
        prompt: str,
        schema: type[S],
        *,
        system_prompt: str | None = None,
        max_tokens: int = 1024,
    ) -> tuple[S, LLMResponse]:
        check_prompt(prompt, system_prompt, max_tokens)
        # The SDK's parse() does the same, but loses a reply that does not match the schema.
        tool = self._vendor.sdk.pydantic_function_tool(schema)["function"]
        json_schema = {"name": schema.__name__, "schema": tool["parameters"], "strict": True}
        options = {
            "max_completion_tokens": max_tokens,
            "response_format": {"type": "json_schema", "json_schema": json_schema},
        }
        return await ask_for(
            schema, prompt, lambda messages: self._send(messages, system_prompt, options), self._model
        )

    async def close(self) -> None:
        await self._client.close()

    async def _send(
        self, messages: list[Message], system_prompt: str | None, options: dict[str, Any]
    ) -> LLMResponse:
        started = time.perf_counter()
        turns: list[Any] = [message._asdict() for message in messages]
        if system_prompt is not None:
            turns.insert(0, {"role": "system", "content": system_prompt})
        response, declined = await self._vendor.call(
            lambda: self._ask(turns, options), f"asking {self._model}"
        )
        self._log.info(
            "generated text",
            provider="openai",
            model=response.model,
            latency_ms=round((time.perf_counter() - started) * 1000),
            prompt_tokens=response.usage.prompt_tokens,
            completion_tokens=response.usage.completion_tokens,
            finish_reason=response.finish_reason,
        )
        if declined:
            raise ContentFilterError(
                f"openai: {self._model} declined to answer: change the prompt", usage=response.usage
            )
        return response

    async def _ask(self, turns: Any, options: dict[str, Any]) -> tuple[LLMResponse, bool]:
        """Return the reply, and True if it is a refusal."""
        answer = await self._client.chat.completions.create(model=self._model, messages=turns, **options)
        choice = answer.choices[0]
        response = LLMResponse(
            content=choice.message.content or "",
            model=answer.model,
            usage=TokenUsage(
                prompt_tokens=counted(answer.usage, "prompt_tokens"),
                completion_tokens=counted(answer.usage, "completion_tokens"),
                total_tokens=counted(answer.usage, "total_tokens"),
            ),
            finish_reason=choice.finish_reason or "",
            raw_response=answer.model_dump(mode="json"),
        )
        return response, bool(choice.message.refusal) or choice.finish_reason == "content_filter"


class OpenAIEmbeddingProvider(EmbeddingProvider):
    """`EmbeddingProvider` on the embeddings API.

    Args:
        api_key: API key; by default the value of OPENAI_API_KEY.
        model: Name of the model; by default SOLDIER_OPENAI_EMBEDDING_MODEL.
        base_url: Base URL of the API; by default the vendor's.
        dimensions: Number of dimensions of the vectors; by default the model's. `text-embedding-3-*` can make fewer.
            Required for models that are not OpenAI's.
        max_retries: Largest number of retries of a request.
        timeout: Time limit for one attempt, in seconds.
        total_timeout: Seconds after which no further attempt begins.
        concurrency: Largest number of concurrent requests for a batch.
        clock: Clock to use in tests.

    Raises:
        AuthenticationError: No key is given or set.
        ProviderError: The package `openai` is not installed.
        ConfigurationError: The model does not support `dimensions`; or they are not given, and the model's are unknown
            or differ from SOLDIER_EMBEDDING_DIMENSIONS.
    """

    def __init__(
        self,
        api_key: str | None = None,
        model: str | None = None,
        base_url: str | None = None,
        *,
        dimensions: int | None = None,
        max_retries: int = MAX_RETRIES,
        timeout: float = TIMEOUT,
        total_timeout: float = TOTAL_TIMEOUT,
        concurrency: int = 4,
        clock: Clock | None = None,
    ) -> None:
        self._vendor = Vendor("openai", api_key, max_retries, timeout, total_timeout, clock)
        settings = Settings()
        self._model = model or settings.openai_embedding_model
        self._dimensions = _dimensions(self._model, dimensions, settings.embedding_dimensions)
        self._client = _client(self._vendor, base_url)
        self._semaphore = asyncio.Semaphore(concurrency)
        self._log = get_logger(__name__)

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def model_id(self) -> str:
        return self._model

    async def embed(self, text: str) -> list[float]:
        check_text(text, "text")
        if not text:
            raise ValidationError("text must not be empty", field="text")
        return (await self.embed_batch([text]))[0]

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        listed = checked_texts(texts, "texts")
        for number, text in enumerate(listed):
            if not text:
                raise ValidationError(f"texts[{number}] is empty: leave it out", field="texts")
        requests = [asyncio.create_task(self._embed(part)) for part in _parts(listed)]
        try:
            answers = await asyncio.gather(*requests)
        except ProviderError as error:
            for request in requests:
                if request.done() and not request.cancelled() and request.exception() is None:
                    error.usage += request.result()[1]
            raise
        finally:
            # After a failure the other requests are cancelled, to save time and tokens.
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        return [vector for vectors, _usage in answers for vector in vectors]

    async def close(self) -> None:
        await self._client.close()

    async def _embed(self, texts: list[str]) -> tuple[list[list[float]], TokenUsage]:
        async with self._semaphore:
            started = time.perf_counter()
            vectors, usage = await self._vendor.call(
                lambda: self._ask(texts), f"embedding with {self._model}"
            )
        self._log.info(
            "embedded texts",
            provider="openai",
            model=self._model,
            texts=len(texts),
            latency_ms=round((time.perf_counter() - started) * 1000),
            prompt_tokens=usage.prompt_tokens,
        )
        if [len(vector) for vector in vectors] != [self._dimensions] * len(texts):
            raise ProviderError(
                f"openai: {self._model} did not return {len(texts)} vectors of {self._dimensions} dimensions: "
                "pass the model's number of dimensions as dimensions",
                usage=usage,
            )
        return vectors, usage

    async def _ask(self, texts: list[str]) -> tuple[list[list[float]], TokenUsage]:
        shortened = self._dimensions != _DIMENSIONS.get(self._model, self._dimensions)
        options: dict[str, Any] = {"dimensions": self._dimensions} if shortened else {}
        answer = await self._client.embeddings.create(model=self._model, input=texts, **options)
        in_order = sorted(answer.data, key=lambda item: item.index)
        tokens = counted(answer.usage, "prompt_tokens")
        return [item.embedding for item in in_order], TokenUsage(prompt_tokens=tokens, total_tokens=tokens)


def _client(vendor: Vendor, base_url: str | None) -> AsyncOpenAI:
    client: AsyncOpenAI = vendor.sdk.AsyncOpenAI(
        api_key=vendor.api_key, base_url=base_url, max_retries=0, timeout=vendor.timeout
    )
    return client


def _dimensions(model: str, requested: int | None, stored: int) -> int:
    own = _DIMENSIONS.get(model)
    if requested is None:
        if own is None:
            raise ConfigurationError(
                f"dimensions: the number of dimensions of {model} is unknown: pass dimensions"
            )
        if own != stored:
            raise ConfigurationError(
                f"{model} makes vectors of {own} dimensions, but SOLDIER_EMBEDDING_DIMENSIONS is {stored}: "
                f"pass dimensions={stored} if the model supports it, or change the setting and migrate"
            )
        return own
    shortenable = model.startswith(_SHORTENABLE)
    if requested < 1 or (own is not None and (requested > own or (requested != own and not shortenable))):
        raise ConfigurationError(
            f"dimensions: {model} does not make vectors of {requested} dimensions: choose another model or number"
        )
    return requested


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Split the texts into requests within the API's limits. A token has at least one byte, so bytes are counted."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode("utf-8", "replace"))
        if part and (len(part) == _MAX_TEXTS or size + length > _MAX_TOKENS):
            yield part
            part, size = [], 0
        part.append(text)
        size += length
    if part:
        yield part
