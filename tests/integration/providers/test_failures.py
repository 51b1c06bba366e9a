"""Each failure of a vendor: the error that it becomes, how often it is tried again, and after which waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from soldier_data.providers import (
    AuthenticationError,
    InvalidRequestError,
    LLMProvider,
    ModelError,
    OpenAIEmbeddingProvider,
    ProviderError,
    ProviderUnavailableError,
    RateLimitError,
)
from soldier_data.providers.retrying import Clock
from tests.integration.providers.conftest import CANARY_KEY, LLMS, base_url
from tests.integration.providers.wire import FakeClock, Fault, VendorServer

RETRIES = 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, ModelError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (409, ProviderError),
    ],
)
async def test_a_refusal_fails_at_once(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock, status: int, kind: type[ProviderError]
) -> None:
    server.script = [Fault(status)]

    with pytest.raises(ProviderError) as refused:
        await local_llm.generate("Hello")

    assert type(refused.value) is kind
    assert refused.value.status_code == status
    assert not refused.value.is_transient
    assert refused.value.cause is not None
    assert (len(server.requests), clock.slept) == (1, [])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(429), RateLimitError),
        (Fault(408), ProviderUnavailableError),
        (Fault(500), ProviderUnavailableError),
        (Fault(502, body="<html>Bad gateway</html>"), ProviderUnavailableError),
        (Fault(503), ProviderUnavailableError),
        (Fault(529), ProviderUnavailableError),
        (Fault(cut=True), ProviderUnavailableError),
    ],
)
async def test_a_passing_failure_is_tried_again_after_waits_that_double_then_raised(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock, fault: Fault, kind: type[ProviderError]
) -> None:
    server.script = [fault] * 10

    with pytest.raises(ProviderError) as refused:
        await local_llm.generate("Hello")

    assert type(refused.value) is kind
    assert refused.value.is_transient
    assert len(server.requests) == 1 + RETRIES
    assert len(clock.slept) == RETRIES
    for wait, longest in zip(clock.slept, (0.5, 1.0, 2.0, 4.0), strict=True):
        assert longest / 2 <= wait <= longest


@pytest.mark.parametrize("fault", [Fault(429), Fault(500), Fault(529), Fault(cut=True)])
async def test_a_failure_that_passes_is_not_noticed(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock, fault: Fault
) -> None:
    server.script = [fault, fault]

    assert (await local_llm.generate("Reply with exactly this: blue")).content == "blue"
    assert (len(server.requests), len(clock.slept)) == (3, 2)


@pytest.mark.parametrize("vendor", LLMS)
async def test_a_reply_that_never_comes_is_given_up_and_asked_for_again(
    vendor: str, server: VendorServer, clock: FakeClock
) -> None:
    server.script = [Fault(silent=True)]
    # Long enough for a busy machine to answer the second time.
    provider = LLMS[vendor](CANARY_KEY, base_url=base_url(server, vendor), timeout=1.0, clock=clock)

    assert (await provider.generate("Reply with exactly this: blue")).content == "blue"
    assert server.requests
    assert clock.slept
    await provider.close()


@pytest.mark.parametrize("vendor", LLMS)
async def test_a_vendor_that_stays_silent_or_cannot_be_reached_is_unavailable(
    vendor: str, server: VendorServer, clock: FakeClock
) -> None:
    server.script = [Fault(silent=True)] * 2
    provider = LLMS[vendor](
        CANARY_KEY, base_url=base_url(server, vendor), timeout=0.3, max_retries=1, clock=clock
    )
    with pytest.raises(ProviderUnavailableError, match="timed out"):
        await provider.generate("Hello")
    assert len(clock.slept) == 1
    await provider.close()

    nowhere = LLMS[vendor](CANARY_KEY, base_url="http://127.0.0.1:9", max_retries=1, clock=clock)
    with pytest.raises(ProviderUnavailableError, match="could not be reached"):
        await nowhere.generate("Hello")
    assert len(clock.slept) == 2
    await nowhere.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
    ],
)
async def test_the_wait_is_what_the_vendor_asks_for(
    local_llm: LLMProvider,
    server: VendorServer,
    clock: FakeClock,
    headers: dict[str, str],
    seconds: float,
) -> None:
    server.script = [Fault(429, headers=headers)]

    await local_llm.generate("Hello")

    assert clock.slept == [seconds]


async def test_the_wait_may_be_given_as_a_date(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    server.script = [Fault(429, headers={"retry-after": format_datetime(at)})]

    await local_llm.generate("Hello")

    # A date has no part of a second, and the request took a moment.
    assert clock.slept == [pytest.approx(85, abs=5.1)]


@pytest.mark.parametrize("text", ["soon", "-3", "nan", "inf"])
async def test_a_retry_after_that_makes_no_sense_is_not_heeded(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock, text: str
) -> None:
    server.script = [Fault(429, headers={"retry-after": text})]

    await local_llm.generate("Hello")

    assert 0.25 <= clock.slept[0] <= 0.5


async def test_a_wait_longer_than_the_time_left_fails_at_once_and_is_told(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock
) -> None:
    server.script = [Fault(429, headers={"retry-after": "100"})] * 3

    with pytest.raises(RateLimitError) as refused:
        await local_llm.generate("Hello")

    # 180 seconds in all: room for one such wait.
    assert clock.slept == [100.0]
    assert len(server.requests) == 2
    assert refused.value.retry_after == 100.0


async def test_an_account_without_money_is_not_asked_again(
    local_llm: LLMProvider, server: VendorServer, clock: FakeClock
) -> None:
    server.script = [Fault(429, body='{"error": {"code": "insufficient_quota", "message": "no"}}')]

    with pytest.raises(RateLimitError, match="insufficient_quota"):
        await local_llm.generate("Hello")

    assert (len(server.requests), clock.slept) == (1, [])


@pytest.mark.parametrize("body", ['{"id": "msg_1", "content": [', "<html>Log in</html>", "{}", "[]", "null"])
async def test_an_answer_that_is_none_is_an_error_and_nothing_else(
    local_llm: LLMProvider, server: VendorServer, body: str
) -> None:
    server.script = [Fault(body=body)]

    with pytest.raises(ProviderError, match="base_url") as refused:
        await local_llm.generate("Hello")

    assert type(refused.value) is ProviderError
    assert refused.value.__context__ is None


@pytest.fixture
async def local_embeddings(server: VendorServer, clock: Clock) -> AsyncIterator[OpenAIEmbeddingProvider]:
    """OpenAI's embeddings on the local server."""
    provider = OpenAIEmbeddingProvider(CANARY_KEY, base_url=base_url(server, "openai"), clock=clock)
    yield provider
    await provider.close()


async def test_embeddings_are_tried_again_alike(
    local_embeddings: OpenAIEmbeddingProvider, server: VendorServer, clock: FakeClock
) -> None:
    server.script = [Fault(429, headers={"retry-after": "3"}), Fault(503)]

    assert len(await local_embeddings.embed("Hello")) == 1536
    assert (len(server.requests), clock.slept[0]) == (3, 3.0)
    server.script = [Fault(401)]
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        await local_embeddings.embed("Hello")
    server.script = [Fault(body='{"data": "none"}')]
    with pytest.raises(ProviderError):
        await local_embeddings.embed("Hello")
