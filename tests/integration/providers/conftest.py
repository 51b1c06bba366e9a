"""Providers on the local server, and on the real APIs where there are keys."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, MutableMapping
from importlib.util import find_spec
from typing import Any

import pytest
import structlog

# Not imported here: that takes seconds, in each test process.
if not (find_spec("anthropic") and find_spec("openai")):
    pytest.skip("needs the SDKs of Anthropic and OpenAI", allow_module_level=True)

from soldier_data.providers import AnthropicProvider, LLMProvider, OpenAIEmbeddingProvider, OpenAIProvider
from tests.integration.providers.wire import FakeClock, VendorServer

CANARY_KEY = "sk-canary-7QX"

LLMS: dict[str, type[AnthropicProvider | OpenAIProvider]] = {
    "anthropic": AnthropicProvider,
    "openai": OpenAIProvider,
}


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    """Both vendors, on loopback."""
    async with VendorServer().running() as running:
        yield running


@pytest.fixture
def log_lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, at every level, by what is made after it."""
    was_configured, before = structlog.is_configured(), structlog.get_config()
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    yield capture.entries
    structlog.reset_defaults()
    if was_configured:
        structlog.configure(**before)


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes at once."""
    return FakeClock()


def base_url(server: VendorServer, vendor: str) -> str:
    """What the vendor's SDK takes for its base_url."""
    return server.url if vendor == "anthropic" else f"{server.url}/v1"


@pytest.fixture(params=["anthropic", "openai"])
async def local_llm(
    request: pytest.FixtureRequest,
    server: VendorServer,
    clock: FakeClock,
    log_lines: list[MutableMapping[str, Any]],
) -> AsyncIterator[LLMProvider]:
    """Each vendor's provider on the local server."""
    provider = LLMS[request.param](CANARY_KEY, base_url=base_url(server, request.param), clock=clock)
    yield provider
    await provider.close()


@pytest.fixture(
    params=[
        "anthropic, local",
        "openai, local",
        pytest.param("anthropic, real", marks=pytest.mark.integration),
        pytest.param("openai, real", marks=pytest.mark.integration),
    ]
)
async def llm(request: pytest.FixtureRequest, server: VendorServer) -> AsyncIterator[LLMProvider]:
    """Each vendor's provider, on the local server and on the real API."""
    vendor, _, where = request.param.partition(", ")
    if where == "real":
        _require_key(vendor)
        provider = LLMS[vendor]()
    else:
        provider = LLMS[vendor](CANARY_KEY, base_url=base_url(server, vendor))
    yield provider
    await provider.close()


@pytest.fixture(params=["local", pytest.param("real", marks=pytest.mark.integration)])
async def embeddings(
    request: pytest.FixtureRequest, server: VendorServer
) -> AsyncIterator[OpenAIEmbeddingProvider]:
    """OpenAI's embeddings, on the local server and on the real API."""
    if request.param == "real":
        _require_key("openai")
        provider = OpenAIEmbeddingProvider(dimensions=256)
    else:
        provider = OpenAIEmbeddingProvider(CANARY_KEY, base_url=base_url(server, "openai"), dimensions=256)
    yield provider
    await provider.close()


def _require_key(vendor: str) -> None:
    variable = f"{vendor.upper()}_API_KEY"
    if not os.environ.get(variable):
        pytest.skip(f"no key for the real API: set {variable}")
