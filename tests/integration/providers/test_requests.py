"""What is sent to the vendors, how replies that do not fit are asked for again, and what is told of it."""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel, Field

from soldier_data.errors import ValidationError
from soldier_data.providers import (
    AnthropicProvider,
    AuthenticationError,
    ContentFilterError,
    LLMProvider,
    OpenAIProvider,
    ProviderError,
    StructuredOutputError,
    TokenUsage,
)
from soldier_data.settings import Settings
from tests.integration.providers.conftest import CANARY_KEY, LLMS
from tests.integration.providers.wire import Fault, Reply, VendorServer

CANARY = "canary-4ZK"

Lines: TypeAlias = list[MutableMapping[str, Any]]


class Score(BaseModel):
    value: int = Field(ge=0, le=10)


class Anything(BaseModel):
    value: Any


def _turns(server: VendorServer) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = server.requests[-1].body["messages"]
    return turns


async def test_options_that_are_not_given_are_not_sent(local_llm: LLMProvider, server: VendorServer) -> None:
    await local_llm.generate("Hello")

    longest = "max_tokens" if isinstance(local_llm, AnthropicProvider) else "max_completion_tokens"
    body = server.requests[0].body
    assert body == {
        "model": local_llm.model_id,
        "messages": [{"role": "user", "content": "Hello"}],
        longest: 1024,
    }


async def test_the_model_is_the_one_of_the_settings_unless_given(server: VendorServer) -> None:
    assert AnthropicProvider(CANARY_KEY).model_id == Settings().anthropic_model
    assert OpenAIProvider(CANARY_KEY).model_id == Settings().openai_model
    assert AnthropicProvider(CANARY_KEY, "claude-opus-5-5").model_id == "claude-opus-5-5"


async def test_openai_gets_the_temperature_and_anthropic_is_spared_it(
    local_llm: LLMProvider, server: VendorServer, log_lines: Lines
) -> None:
    await local_llm.generate("Hello", temperature=0.0)
    await local_llm.generate("Hello", temperature=0.0)

    sent = [request.body.get("temperature") for request in server.requests]
    warned = [line for line in log_lines if line["log_level"] == "warning"]
    if isinstance(local_llm, AnthropicProvider):
        assert (sent, len(warned)) == ([None, None], 1)
    else:
        assert (sent, len(warned)) == ([0.0, 0.0], 0)


async def test_a_schema_is_sent_by_the_vendors_own_mechanism(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    await local_llm.generate_structured('Reply with exactly this: {"value": 3}', Score)

    body = server.requests[0].body
    if isinstance(local_llm, AnthropicProvider):
        wanted = body["output_config"]["format"]
    else:
        wanted = body["response_format"]["json_schema"]
        assert wanted["strict"] is True
    assert wanted["schema"]["required"] == ["value"]
    assert wanted["schema"]["additionalProperties"] is False


async def test_a_reply_that_does_not_fit_is_asked_for_again_with_what_is_wrong(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Reply('{"value": 11}'), Reply('{"value": 10}')]

    score, response = await local_llm.generate_structured("How good is it?", Score)

    assert score == Score(value=10)
    assert [turn["role"] for turn in _turns(server)] == ["user", "assistant", "user"]
    assert _turns(server)[1]["content"] == '{"value": 11}'
    assert "value: less_than_equal" in _turns(server)[2]["content"]
    # Both replies are paid for.
    assert response.usage.completion_tokens == 4
    assert response.usage.total_tokens == response.usage.prompt_tokens + 4


@pytest.mark.parametrize("text", [f'{{"value": "{CANARY}"}}', f'{{"{CANARY}": 1}}', CANARY])
async def test_a_second_reply_that_does_not_fit_is_an_error_that_does_not_repeat_it(
    local_llm: LLMProvider, server: VendorServer, text: str
) -> None:
    server.script = [Reply(text), Reply(text)]

    with pytest.raises(StructuredOutputError, match="Score") as refused:
        await local_llm.generate_structured("How good is it?", Score)

    assert len(server.requests) == 2
    assert CANARY not in _everything_told(refused.value)
    # Both replies are paid for, and the prompt of the second holds the first.
    usage = refused.value.usage
    assert usage.completion_tokens == 2 * len(text.split())
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens > 2 * (3 + 2)


async def test_a_reply_cut_off_by_max_tokens_is_not_asked_for_again(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Reply('{"value": 3 }')]

    with pytest.raises(StructuredOutputError, match="raise max_tokens") as refused:
        await local_llm.generate_structured("How good is it?", Score, max_tokens=1)

    assert len(server.requests) == 1
    assert refused.value.usage.completion_tokens == 1


async def test_a_reply_cut_off_by_a_full_context_window_is_not_asked_for_again(server: VendorServer) -> None:
    provider = AnthropicProvider(CANARY_KEY, base_url=server.url)
    server.script = [Reply('{"value": 3', reason="model_context_window_exceeded")] * 2

    with pytest.raises(StructuredOutputError, match="shorten the prompt") as refused:
        await provider.generate_structured("How good is it?", Score)

    assert len(server.requests) == 1
    assert refused.value.usage.completion_tokens == 2
    response = await provider.generate("How good is it?")
    assert (response.content, response.finish_reason) == ('{"value": 3', "model_context_window_exceeded")
    await provider.close()


async def test_a_first_reply_is_paid_for_though_the_second_question_fails(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Reply('{"value": 11}'), Fault(401)]

    with pytest.raises(AuthenticationError) as refused:
        await local_llm.generate_structured("How good is it?", Score)

    assert (refused.value.usage.prompt_tokens, refused.value.usage.completion_tokens) == (4 + 2, 2)
    _everything_told(refused.value)


async def test_a_first_reply_and_a_second_one_that_is_cut_off_are_both_paid_for(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Reply('{"value": 11}'), Reply('{"value": 3 }')]

    with pytest.raises(StructuredOutputError, match="raise max_tokens") as refused:
        await local_llm.generate_structured("How good is it?", Score, max_tokens=2)

    assert refused.value.usage.completion_tokens == 4


async def test_what_was_never_answered_costs_nothing(local_llm: LLMProvider, server: VendorServer) -> None:
    server.script = [Fault(401)]

    with pytest.raises(AuthenticationError) as refused:
        await local_llm.generate("Hello")

    assert refused.value.usage == TokenUsage()


async def test_a_server_that_counts_no_tokens_is_used_all_the_same(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Reply("blue", uncounted=True)]

    response = await local_llm.generate("Which colour?")

    assert (response.content, response.usage) == ("blue", TokenUsage())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"system_prompt": ["Be kind"]}, "system_prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "1024"}, "max_tokens"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": 5}, "stop_sequences"),
        ({"stop_sequences": ["END", 5]}, "stop_sequences"),
    ],
)
async def test_an_argument_of_another_type_is_refused_by_name_before_anything_is_sent(
    local_llm: LLMProvider, server: VendorServer, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError, match=f"^{field}") as refused:
        await local_llm.generate(**{"prompt": "Hello", **arguments})
    assert refused.value.field == field
    if field != "stop_sequences":
        with pytest.raises(ValidationError, match=f"^{field}"):
            await local_llm.generate_structured(**{"prompt": "Hello", "schema": Score, **arguments})
    assert server.requests == []


async def test_a_schema_without_types_is_refused_by_name_where_the_vendor_takes_none(
    server: VendorServer,
) -> None:
    provider = AnthropicProvider(CANARY_KEY, base_url=server.url)
    with pytest.raises(StructuredOutputError, match="Anything"):
        await provider.generate_structured("Hello", Anything)
    assert server.requests == []
    await provider.close()


async def test_a_refusal_is_a_content_filter_error(local_llm: LLMProvider, server: VendorServer) -> None:
    server.script = [Reply(refused=True), Reply(refused=True)]

    with pytest.raises(ContentFilterError) as refused:
        await local_llm.generate("Hello")
    assert refused.value.usage.prompt_tokens == 1 + 2
    with pytest.raises(ContentFilterError):
        await local_llm.generate_structured("Hello", Score)


async def test_a_prompt_that_openai_filters_is_a_content_filter_error(
    local_llm: LLMProvider, server: VendorServer
) -> None:
    server.script = [Fault(400, body='{"error": {"code": "content_filter", "message": "no"}}')]

    with pytest.raises(ContentFilterError):
        await local_llm.generate("Hello")


@pytest.mark.parametrize("vendor", LLMS)
def test_a_missing_key_is_an_error_that_names_the_variable(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{vendor.upper()}_API_KEY", raising=False)
    with pytest.raises(AuthenticationError, match=f"{vendor.upper()}_API_KEY"):
        LLMS[vendor]()


@pytest.mark.parametrize("vendor", LLMS)
def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ProviderError, match=rf"soldier-data\[{vendor}\]"):
        LLMS[vendor](CANARY_KEY)


async def test_each_call_is_logged_with_its_model_time_and_tokens(
    local_llm: LLMProvider, log_lines: Lines
) -> None:
    response = await local_llm.generate("Reply with exactly this: one two")

    [line] = log_lines
    assert line["provider"] in LLMS
    assert line["model"] == local_llm.model_id
    assert 5 <= line["latency_ms"] < 10_000
    assert (line["prompt_tokens"], line["completion_tokens"]) == (response.usage.prompt_tokens, 2)


async def test_each_repetition_is_logged_with_its_reason_and_wait(
    local_llm: LLMProvider, server: VendorServer, log_lines: Lines
) -> None:
    server.script = [Fault(429, headers={"retry-after": "7"})]
    await local_llm.generate("Hello")

    [line] = [line for line in log_lines if line["log_level"] == "warning"]
    assert (line["error"], line["status_code"], line["wait_seconds"]) == ("RateLimitError", 429, 7.0)


async def test_neither_prompts_nor_keys_nor_replies_are_found_in_logs_errors_or_reprs(
    local_llm: LLMProvider, server: VendorServer, log_lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    repeated = json.dumps({"error": {"type": f"{CANARY} {CANARY_KEY}", "code": CANARY, "message": CANARY}})
    told: list[Any] = [local_llm, vars(local_llm)]
    told.append(await local_llm.generate(f"Reply with exactly this: {CANARY}", system_prompt=CANARY))
    for status in (400, 401, 404, 429, 500):
        server.script = [Fault(status, body=repeated)] * 10
        with pytest.raises(ProviderError) as refused:
            await local_llm.generate(f"Hello {CANARY}")
        told.append(_everything_told(refused.value))
    told += [log_lines, caplog.text]

    assert len(log_lines) > 5
    for text in map(repr, told):
        assert CANARY not in text
        assert CANARY_KEY not in text


def _everything_told(error: BaseException) -> str:
    """What a traceback would print."""
    assert error.__cause__ is None
    assert error.__context__ is None
    return f"{error!r} {error}"
