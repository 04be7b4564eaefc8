"""The fault matrix: what a provider can do wrong, and what the client is told.

``docs/errors.md`` shows this table; ``test_faults`` runs it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from edwin.testing import ScriptedUpstream

Script = Callable[[ScriptedUpstream], None]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at the provider.

    Attributes:
        name: What happens, in words.
        script: Makes the upstream do it.
        status: Of a whole answer, and of a stream whose head is not out.
        code: Of the error; None where the client gets an answer.
        text: The answer's text, where there is one.
        headers: Response headers that the error has.
        partial: Text that a stream has given before it breaks off; then its head is
            out whatever headDelayMs says.
        calls: How often the provider is called, with one repetition allowed.
        base_url: Where the provider is, if not at the upstream.

    """

    name: str
    script: Script
    status: int = 200
    code: str | None = None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    partial: str = ""
    calls: int = 1
    base_url: str | None = None


def fail(status: int, *, times: int = 1, **options: Any) -> Script:
    def script(upstream: ScriptedUpstream) -> None:
        for _ in range(times):
            upstream.fail(status, **options)

    return script


def error(code: str) -> dict[str, Any]:
    return {"error": {"message": f"scripted {code}", "code": code, "type": "x"}}


def stream(*events: bytes, end: bytes = b"data: [DONE]\n\n") -> Script:
    """Answer with a whole event stream, byte for byte."""
    return sent(*events, rest=framed(end) + b"0\r\n\r\n")


def cut_stream(*events: bytes) -> Script:
    """Begin an event stream, and hang up before its end."""
    return sent(*events, rest=b"")


def framed(data: bytes) -> bytes:
    """Return *data* as a chunk of an HTTP body; nothing is none."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def sent(first: bytes, *events: bytes, rest: bytes) -> Script:
    """Send a head and the first event, and later what follows.

    So the first event is on its way to the client before anything goes wrong.
    """
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    later = b"".join(map(framed, events)) + rest
    return lambda upstream: upstream.raw(head + framed(first), later, gap_s=0.3)


def chunk(text: str | None = None, reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    document = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return b"data: " + orjson.dumps(document) + b"\n\n"


def split_character(upstream: ScriptedUpstream) -> None:
    """Send an answer in two pieces that part in the middle of a character."""
    body = chunk("žluťoučký 🐎") + chunk(None, "stop") + b"data: [DONE]\n\n"
    place = body.index("🐎".encode()) + 2
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    upstream.raw(head, body[:place], body[place:], gap_s=0.05)


def html(upstream: ScriptedUpstream) -> None:
    upstream.raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n"
        b"<html>hi</html>"
    )


def closed_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nothing(upstream: ScriptedUpstream) -> None:
    """Script nothing: the upstream is not reached."""


NO_RETRY = {"x-should-retry": "false"}
ANSWER, END = chunk("fine"), chunk(None, "stop")

FAULTS = [
    Fault("400", fail(400), 502, "provider_error", headers=NO_RETRY),
    Fault(
        "context overflow",
        fail(400, body=error("context_length_exceeded")),
        400,
        "context_length_exceeded",
    ),
    Fault("401", fail(401), 502, "provider_error", headers=NO_RETRY),
    Fault("403", fail(403), 502, "provider_error", headers=NO_RETRY),
    Fault("404", fail(404), 502, "provider_error", headers=NO_RETRY),
    Fault(
        "429 with Retry-After",
        fail(429, headers={"Retry-After": "77"}),
        429,
        "provider_rate_limited",
        headers={"Retry-After": "77"},
    ),
    Fault(
        "429 without Retry-After",
        fail(429, times=2),
        429,
        "provider_rate_limited",
        calls=2,
    ),
    Fault("500, then success", fail(500), text="Hello", calls=2),
    Fault("503 for ever", fail(503, times=2), 502, "provider_unavailable", calls=2),
    Fault(
        "connection refused",
        nothing,
        502,
        "provider_unavailable",
        calls=0,
        base_url="http://127.0.0.1:{closed}/v1",
    ),
    Fault(
        "DNS failure",
        nothing,
        502,
        "provider_unavailable",
        calls=0,
        base_url="http://nohost.invalid/v1",
    ),
    Fault(
        "TLS failure",
        nothing,
        502,
        "provider_unavailable",
        calls=0,
        base_url="https://127.0.0.1:{plain}/v1",
    ),
    Fault("hang before the head", lambda u: u.hang(), 504, "provider_timeout"),
    Fault(
        "hang before the first delta",
        lambda u: u.hang(after=[]),
        504,
        "provider_timeout",
    ),
    Fault(
        "hang in the middle",
        lambda u: u.hang(after=["half"]),
        504,
        "provider_timeout",
        partial="half",
    ),
    Fault(
        "drop before the head",
        lambda u: (u.raw(b""), u.raw(b""))[0],
        502,
        "provider_unavailable",
        calls=2,
    ),
    Fault(
        "drop in the middle",
        cut_stream(chunk("half")),
        502,
        "provider_stream_error",
        partial="half",
    ),
    Fault(
        "clean end without [DONE]",
        stream(chunk("half"), end=b""),
        502,
        "provider_stream_error",
        partial="half",
    ),
    Fault(
        "garbage JSON",
        stream(chunk("half"), b"data: {]\n\n"),
        502,
        "provider_stream_error",
        partial="half",
    ),
    Fault("HTML", html, 502, "provider_stream_error"),
    Fault(
        "an event of 1 MB", stream(chunk("x" * 1_000_000), END), text="x" * 1_000_000
    ),
    Fault("a character in two pieces", split_character, text="žluťoučký 🐎"),
    Fault(
        "comments and keep-alives",
        stream(b": hello\n\n", b"\n\n", ANSWER, b": ping\n\n", b"\r\n", END),
        text="fine",
    ),
    Fault("usage missing", stream(ANSWER, END), text="fine"),
    Fault("empty answer", stream(chunk(None, "stop")), text=""),
    Fault(
        "200 with an error object inside",
        fail(200, body=error("no_such_thing")),
        502,
        "provider_error",
    ),
    Fault(
        "an error object in the stream",
        stream(chunk("half"), b'data: {"error":{"message":"no","code":500}}\n\n'),
        502,
        "provider_stream_error",
        partial="half",
    ),
]


def told(fault: Fault) -> tuple[str, str]:
    """Return what a whole answer and a stream's client are told, in words."""
    if fault.code is None:
        return "200, the answer", "the answer"
    names = ", ".join(f"`{name}: {value}`" for name, value in fault.headers.items())
    whole = f"{fault.status} `{fault.code}`" + (f", {names}" if names else "")
    if fault.partial:
        return whole, f"the text so far, then `{fault.code}` as an event, and a cut"
    return whole, "the same; once the head is out, an event and a cut"


def markdown() -> str:
    """Return the matrix as the table that stands in docs/errors.md."""
    lines = [
        "| the provider's fault | whole answer | stream | calls |",
        "|---|---|---|---|",
    ]
    for fault in FAULTS:
        whole, streamed = told(fault)
        calls = "none" if not fault.calls else str(fault.calls)
        lines.append(f"| {fault.name} | {whole} | {streamed} | {calls} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
