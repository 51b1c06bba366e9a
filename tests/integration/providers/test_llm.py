"""What every language model does: on the local server, and on the real APIs where there are keys."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from soldier_data.providers import LLMProvider

SAY = "Reply with exactly this: "

# Thinking counts, so that a real model needs more than the few words of the reply.
ROOM = 512


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=150)
    languages: list[str]


async def test_generate_returns_the_reply_with_its_model_and_tokens(llm: LLMProvider) -> None:
    response = await llm.generate(f"{SAY}blue", max_tokens=ROOM)

    assert "blue" in response.content.lower()
    assert response.model.startswith(llm.model_id)
    assert response.finish_reason in ("end_turn", "stop")
    usage = response.usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert response.raw_response
    assert response.raw_response["model"] == response.model


async def test_the_system_prompt_reaches_the_model(llm: LLMProvider) -> None:
    response = await llm.generate("Hello!", system_prompt=f"{SAY}ahoy", max_tokens=ROOM)

    assert "ahoy" in response.content.lower()


async def test_max_tokens_cuts_the_reply_off_and_the_reason_tells(llm: LLMProvider) -> None:
    numbers = " ".join(str(number) for number in range(200))
    response = await llm.generate(f"{SAY}{numbers}", max_tokens=20)

    assert response.finish_reason in ("max_tokens", "length")
    assert "199" not in response.content
    assert response.usage.completion_tokens <= 20


async def test_a_stop_sequence_ends_the_reply_and_is_no_part_of_it(llm: LLMProvider) -> None:
    response = await llm.generate(f"{SAY}red, green, blue", stop_sequences=["green"], max_tokens=ROOM)

    assert "red" in response.content.lower()
    assert "green" not in response.content.lower()
    assert response.finish_reason in ("stop_sequence", "stop")


async def test_structured_output_is_a_validated_instance(llm: LLMProvider) -> None:
    person, response = await llm.generate_structured(
        f'{SAY}{{"name": "Ada", "age": 36, "languages": ["English", "French"]}}', Person, max_tokens=ROOM
    )

    assert person == Person(name="Ada", age=36, languages=["English", "French"])
    assert Person.model_validate_json(response.content) == person


async def test_several_calls_at_once_each_get_their_own_reply(llm: LLMProvider) -> None:
    words = ["red", "green", "blue"]
    responses = await asyncio.gather(*(llm.generate(f"{SAY}{word}", max_tokens=ROOM) for word in words))

    assert [word in response.content.lower() for word, response in zip(words, responses, strict=True)] == [
        True
    ] * 3
