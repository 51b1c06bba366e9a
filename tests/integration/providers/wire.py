"""A server on loopback that speaks enough of the two vendors' protocols, and fails on request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from soldier_data.providers.retrying import Clock

_SAYING = re.compile(r"Reply with exactly this: (.*)", re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """What the server does with a request instead of answering it.

    Attributes:
        status: Of the answer.
        headers: Added to it.
        body: Of the answer, as it is.
        cut: Break the connection in the middle of the body.
        silent: Never answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"type": "some_error", "code": "some_error", "message": "no"}}'
    cut: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Reply:
    """What the model says instead of what it is told to.

    Attributes:
        text: The reply.
        refused: Whether it is a refusal.
        reason: Why it ends, in the vendor's own word, if not for what the server would say.
        uncounted: Whether the answer leaves out how many tokens were used.
    """

    text: str = ""
    refused: bool = False
    reason: str = ""
    uncounted: bool = False


@dataclass(frozen=True)
class Request:
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class VendorServer:
    """Both vendors' APIs.

    The model behind them says what its prompt, or else its system prompt, asks for after "Reply with exactly this:".

    Attributes:
        url: Where it listens.
        script: What to do with the next requests; those after it are answered.
        requests: What came in.
        most_at_once: How many requests were under way at the same time.
    """

    def __init__(self) -> None:
        self.url = ""
        self.script: list[Fault | Reply] = []
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[VendorServer]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
            self._ended.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            request = await _read(reader)
            self.requests.append(request)
            # Lets requests that were sent together arrive together.
            await asyncio.sleep(0.01)
            planned = self.script.pop(0) if self.script else Reply()
            if isinstance(planned, Fault):
                await self._fail(planned, writer)
            else:
                _send(writer, 200, {}, json.dumps(_answer(request, planned)))
            with suppress(ConnectionError):
                await writer.drain()
        finally:
            self._at_once -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _fail(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault.silent:
            await self._ended.wait()
        elif fault.cut:
            _send(writer, 200, {"content-length": "1000"}, '{"id": "half of')
        else:
            _send(writer, fault.status, fault.headers, fault.body)


class FakeClock(Clock):
    """Time that passes by sleeping alone, and at once.

    Attributes:
        slept: The waits.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(head[0].split()[1], headers, json.loads(body))


def _send(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: str) -> None:
    raw = body.encode()
    sent = {
        "content-type": "application/json",
        "content-length": str(len(raw)),
        "connection": "close",
        **headers,
    }
    lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + raw)


def _answer(request: Request, reply: Reply) -> dict[str, Any]:
    answer = _counted_answer(request, reply)
    if reply.uncounted:
        del answer["usage"]
    return answer


def _counted_answer(request: Request, reply: Reply) -> dict[str, Any]:
    match request.path:
        case "/v1/messages":
            return _message(request.body, reply)
        case "/v1/chat/completions":
            return _completion(request.body, reply)
        case "/v1/embeddings":
            return _embeddings(request.body)
    raise AssertionError(f"no such path: {request.path}")


def _message(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    prompt = body["messages"][-1]["content"]
    text, ended = _say(
        reply, (prompt, body.get("system", "")), body["max_tokens"], body.get("stop_sequences")
    )
    reasons = {"": "end_turn", "stop": "stop_sequence", "cut": "max_tokens", "refused": "refusal"}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [thought, {"type": "text", "text": text}],
        "stop_reason": reply.reason or reasons[ended],
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(prompt.split()),
            "cache_read_input_tokens": 2,
            "output_tokens": len(text.split()),
        },
    }


def _completion(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    prompts = [message["content"] for message in reversed(body["messages"])]
    text, ended = _say(reply, prompts, body["max_completion_tokens"], body.get("stop"))
    reasons = {"": "stop", "stop": "stop", "cut": "length", "refused": "stop"}
    refused = ended == "refused"
    message = {
        "role": "assistant",
        "content": None if refused else text,
        "refusal": "No." if refused else None,
    }
    spent, written = len(prompts[0].split()) + 2, len(text.split())
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": reply.reason or reasons[ended],
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": spent, "completion_tokens": written, "total_tokens": spent + written},
    }


def _say(reply: Reply, prompts: Any, max_tokens: int, stops: list[str] | None) -> tuple[str, str]:
    """What the model says, and why it ends."""
    if reply.refused:
        return "", "refused"
    asked = next((found[1] for prompt in prompts if (found := _SAYING.search(prompt))), "I see.")
    text = reply.text or asked
    for stop in stops or []:
        if stop in text:
            return text.partition(stop)[0], "stop"
    words = text.split()
    if len(words) > max_tokens:
        return " ".join(words[:max_tokens]), "cut"
    return text, ""


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"]
    assert len(texts) <= 2048
    length = body.get("dimensions", {"text-embedding-3-large": 3072}.get(body["model"], 1536))
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, length, body["encoding_format"])}
        for index, text in enumerate(texts)
    ]
    # In whatever order: each names the text that it is of.
    return {
        "object": "list",
        "model": body["model"],
        "data": data[::-1],
        "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
    }


def _vector(text: str, length: int, encoding: str) -> Any:
    """A vector of length 1 that tells the text from others."""
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % length
    vector = [1.0 if number == place else 0.0 for number in range(length)]
    if encoding == "base64":
        return base64.b64encode(array("f", vector).tobytes()).decode()
    return vector
