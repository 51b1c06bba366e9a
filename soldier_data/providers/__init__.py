"""Providers of text and embeddings. A vendor's SDK is imported when one of its providers is created."""

from soldier_data.providers.anthropic import AnthropicProvider
from soldier_data.providers.embed_missing import EmbeddedStore, EmbedReport, embed_missing
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.errors import (
    AuthenticationError,
    ContentFilterError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitError,
    StructuredOutputError,
)
from soldier_data.providers.hashing import HashingEmbeddingProvider
from soldier_data.providers.llm import LLMProvider, LLMResponse
from soldier_data.providers.openai import OpenAIEmbeddingProvider, OpenAIProvider
from soldier_data.providers.usage import TokenUsage

__all__ = [
    "AnthropicProvider",
    "AuthenticationError",
    "ContentFilterError",
    "EmbedReport",
    "EmbeddedStore",
    "EmbeddingProvider",
    "HashingEmbeddingProvider",
    "InvalidRequestError",
    "LLMProvider",
    "LLMResponse",
    "ModelError",
    "OpenAIEmbeddingProvider",
    "OpenAIProvider",
    "ProviderError",
    "ProviderUnavailableError",
    "RateLimitError",
    "StructuredOutputError",
    "TokenUsage",
    "embed_missing",
]
