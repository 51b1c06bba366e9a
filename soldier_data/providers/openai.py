"""Text and embeddings by OpenAI's models, or by any server that speaks the same protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from soldier_data.errors import ConfigurationError, ValidationError
from soldier_data.logging import get_logger
from soldier_data.providers.arguments import check_question, check_text, checked_texts
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
"""How long the vectors of each model are."""

_SHORTENABLE = "text-embedding-3-"
"""The models that make shorter vectors when asked to."""

_MOST_TEXTS = 2048
_MOST_TOKENS = 300_000
"""What one request for embeddings may hold."""


class OpenAIProvider(LLMProvider):
    """`LLMProvider` on Chat Completions, which know stop sequences (the Responses API does not).

    Args:
        api_key: By default what OPENAI_API_KEY holds.
        model: By default what SOLDIER_OPENAI_MODEL says.
        base_url: Another address of the API.
        max_retries: How often a call is repeated.
        timeout: Seconds that one attempt may take.
        total_timeout: Seconds after which no further attempt begins.
        clock: Another time than the machine's, for tests.

    Raises:
        AuthenticationError: There is no key.
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
        self._vendor = Vendor(
            "openai",
            api_key,
            max_retries=max_retries,
            timeout=timeout,
            total_timeout=total_timeout,
            clock=clock,
        )
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
        check_question(prompt, system_prompt, max_tokens)
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
        check_question(prompt, system_prompt, max_tokens)
        # The SDK's parse() would do the same, but loses the reply that does not fit.
        tool = self._vendor.sdk.pydantic_function_tool(schema)["function"]
        wanted = {"name": schema.__name__, "schema": tool["parameters"], "strict": True}
        options = {
            "max_completion_tokens": max_tokens,
            "response_format": {"type": "json_schema", "json_schema": wanted},
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
            "text was generated",
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
        """The reply, and whether it is a refusal."""
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
        api_key: By default what OPENAI_API_KEY holds.
        model: By default what SOLDIER_OPENAI_EMBEDDING_MODEL says.
        base_url: Another address of the API.
        dimensions: Length of the vectors, by default the model's own. The models `text-embedding-3-*` make
            shorter ones when asked to; for a model that is not OpenAI's it has to be given.
        max_retries: How often a request is repeated.
        timeout: Seconds that one attempt may take.
        total_timeout: Seconds after which no further attempt begins.
        concurrency: How many requests of a batch run at the same time.
        clock: Another time than the machine's, for tests.

    Raises:
        AuthenticationError: There is no key.
        ProviderError: The package `openai` is not installed.
        ConfigurationError: The model does not make vectors of that length; or no `dimensions` are given, and the
            model's own are unknown or not what SOLDIER_EMBEDDING_DIMENSIONS says.
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
        self._vendor = Vendor(
            "openai",
            api_key,
            max_retries=max_retries,
            timeout=timeout,
            total_timeout=total_timeout,
            clock=clock,
        )
        settings = Settings()
        self._model = model or settings.openai_embedding_model
        self._dimensions = _dimensions(self._model, dimensions, settings.embedding_dimensions)
        self._client = _client(self._vendor, base_url)
        self._at_a_time = asyncio.Semaphore(concurrency)
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
            raise ValidationError("text is empty, which has no embedding", field="text")
        return (await self.embed_batch([text]))[0]

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        listed = checked_texts(texts, "texts")
        for number, text in enumerate(listed):
            if not text:
                raise ValidationError(
                    f"texts[{number}] is empty, which has no embedding: leave it out", field="texts"
                )
        requests = [asyncio.create_task(self._embed(part)) for part in _parts(listed)]
        try:
            answers = await asyncio.gather(*requests)
        except ProviderError as error:
            for request in requests:
                if request.done() and not request.cancelled() and request.exception() is None:
                    error.usage += request.result()[1]
            raise
        finally:
            # After a failure the others are neither waited for nor paid.
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        return [vector for vectors, _usage in answers for vector in vectors]

    async def close(self) -> None:
        await self._client.close()

    async def _embed(self, texts: list[str]) -> tuple[list[list[float]], TokenUsage]:
        async with self._at_a_time:
            started = time.perf_counter()
            vectors, usage = await self._vendor.call(
                lambda: self._ask(texts), f"embedding with {self._model}"
            )
        self._log.info(
            "texts were embedded",
            provider="openai",
            model=self._model,
            texts=len(texts),
            latency_ms=round((time.perf_counter() - started) * 1000),
            prompt_tokens=usage.prompt_tokens,
        )
        if [len(vector) for vector in vectors] != [self._dimensions] * len(texts):
            raise ProviderError(
                f"openai: {self._model} did not answer with {len(texts)} vectors of {self._dimensions} numbers: "
                "pass the length that the model makes as dimensions",
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


def _dimensions(model: str, wanted: int | None, stored: int) -> int:
    own = _DIMENSIONS.get(model)
    if wanted is None:
        if own is None:
            raise ConfigurationError(
                f"dimensions: how long the vectors of {model} are is unknown: pass dimensions"
            )
        if own != stored:
            raise ConfigurationError(
                f"{model} makes vectors of {own} numbers, but SOLDIER_EMBEDDING_DIMENSIONS is {stored}: "
                f"pass dimensions={stored} if the model makes shorter ones, or change the setting and migrate"
            )
        return own
    shortenable = model.startswith(_SHORTENABLE)
    if wanted < 1 or (own is not None and (wanted > own or (wanted != own and not shortenable))):
        raise ConfigurationError(
            f"dimensions: {model} does not make vectors of {wanted} numbers: choose another model or length"
        )
    return wanted


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in requests that the API takes. A token is one byte at least, so bytes bound the tokens."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode("utf-8", "replace"))
        if part and (len(part) == _MOST_TEXTS or size + length > _MOST_TOKENS):
            yield part
            part, size = [], 0
        part.append(text)
        size += length
    if part:
        yield part
