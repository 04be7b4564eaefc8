"""Send them to a gateway in a process of its own, and look at what comes back."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
from yarl import URL

from edwin.errors import InvalidRequest
from edwin.openapi import openapi
from edwin.validate import Schemas
from tools.bench.processes import TOKEN, Server
from tools.fuzz.requests import Maker, Request

CALLERS = 8
PATIENCE_S = 30.0
# What the gateway holds before is what it holds once it has seen some of everything.
WARM_SHARE, WARM_MOST = 0.2, 4000
# Before, a gateway's memory is not what it will be.
MEASURED_FROM = 5000
GROWTH = 0.10
# What runs leave behind is kept for a while.
SETTLE_S = 90.0
MAX_FAULTS = 20


class Round:
    """What was sent, and what came of it.

    Args:
        folder: An empty folder, for the gateway.
        seed: Of the dice.

    Attributes:
        statuses: How often each came back.
        faults: What is wrong, in words.

    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []
        self._maker = Maker(random.Random(seed))
        self._schemas = Schemas()
        self._paths = openapi()["paths"]
        path = folder / "edwin.yaml"
        # JSON is YAML too.
        path.write_text(json.dumps(_configuration(folder)), "utf-8")
        self._gateway = Server(
            ["-m", "edwin.gateway", "--config", str(path), "--port", "0"],
            cores=os.sched_getaffinity(0),
            folder=folder / "gateway",
            port_of=_port,
            settle_s=0.0,
        )
        self._url = f"http://127.0.0.1:{self._gateway.port}"

    async def run(self, count: int) -> tuple[int, int]:
        """Send *count* requests; return its memory before and after, in bytes."""
        warm = min(int(count * WARM_SHARE), WARM_MOST)
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        ) as session:
            await self._send(session, warm)
            before = self._bytes()
            await self._send(session, count - warm)
        after, until = self._bytes(), time.monotonic() + SETTLE_S
        most = before * (1 + GROWTH) if count >= MEASURED_FROM else math.inf
        while after > most and time.monotonic() < until:
            await asyncio.sleep(1)
            after = self._bytes()
        if after > most:
            self.faults.append(f"it holds {after} bytes, and held {before} before")
        self.faults += [
            f"the log says: {line[:300]}"
            for line in self._gateway.output().splitlines()
            if not line.startswith("{") or '"level":"error"' in line
        ]
        return before, after

    def stop(self) -> None:
        """End the gateway.  Idempotent."""
        self._gateway.stop()

    async def _send(self, session: aiohttp.ClientSession, count: int) -> None:
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._call(session, numbers))

    async def _call(self, session: aiohttp.ClientSession, numbers: object) -> None:
        for _ in numbers:  # type: ignore[attr-defined]
            if len(self.faults) >= MAX_FAULTS:
                return
            request = self._maker.next()
            try:
                async with session.request(
                    request.verb,
                    URL(self._url + request.target, encoded=True),
                    headers=request.headers,
                    data=request.body,
                ) as response:
                    answer, whole = await _read(response)
            except (TimeoutError, aiohttp.ClientError) as error:
                self._fault(request, f"{type(error).__name__}: {error}")
                continue
            self.statuses[response.status] += 1
            if not whole:
                # Somebody else ended the run: the last event says so.
                answer = answer[answer.rfind(b"data: ") + 6 :]
                wrong = self._breaks("openai/error", answer)
            else:
                wrong = self._wrong(request, response, answer)
            if wrong:
                self._fault(request, f"{wrong}: {answer[:300]!r}")

    def _wrong(
        self, request: Request, response: aiohttp.ClientResponse, answer: bytes
    ) -> str | None:
        """Return what is wrong with an answer, or None."""
        status = response.status
        # The scripted model writes no JSON: to be told so is right.
        if status >= 500 and b'"structured_output_invalid"' not in answer:
            return f"status {status}"
        operation = self._paths[request.route.path][request.verb.lower()]
        promised = operation["responses"].get(str(status))
        if promised is None:
            return f"status {status} is not in the contract"
        if request.verb == "HEAD":
            return None
        kind = response.content_type
        if kind not in promised["content"]:
            return f"{kind} is not in the contract"
        if status >= 400:
            return self._not_the_error(status, answer, promised)
        if request.route.name == "createRun":
            self._maker.ids.append(json.loads(answer)["id"])
        schema = request.route.answers[status].content[kind]
        return self._breaks(schema, answer) if isinstance(schema, str) else None

    def _not_the_error(
        self, status: int, answer: bytes, promised: object
    ) -> str | None:
        if wrong := self._breaks("openai/error", answer):
            return wrong
        code = json.loads(answer)["error"]["code"]
        known = promised["content"]["application/json"]["examples"]  # type: ignore[index]
        if str(code) not in known:
            return f"code {code} is not in the contract for {status}"
        return None

    def _breaks(self, schema: str, answer: bytes) -> str | None:
        try:
            self._schemas.check(schema, json.loads(answer))
        except (ValueError, InvalidRequest) as error:
            return f"no {schema}: {error}"
        return None

    def _fault(self, request: Request, what: str) -> None:
        sent = f"{request.verb} {request.target[:200]} {request.headers}"
        self.faults.append(f"{what}\n  {sent}\n  {(request.body or b'')[:1000]!r}")

    def _bytes(self) -> int:
        self._gateway.check()
        return self._gateway.memory()["Rss"]


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Return what came of an answer, and whether that is all of it."""
    answer = b""
    try:
        async for piece in response.content.iter_any():
            answer += piece
    except aiohttp.ClientPayloadError:
        if response.content_type != "text/event-stream":
            raise
        return answer, False
    return answer, True


def _configuration(folder: Path) -> dict[str, object]:
    return {
        "gateway": {
            "stateDir": str(folder / "state"),
            "shutdownSeconds": 1,
            "auth": {"token": TOKEN},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        },
        "agents": {
            "defaults": {"model": "scripted/echo", "instructions": ""},
            "list": [{"id": "main"}, {"id": "beta"}],
        },
        "models": {"providers": {"scripted": {"api": "scripted"}}},
    }


def _port(output: str) -> int | None:
    for line in output.splitlines():
        if '"port":' in line and line.endswith("}"):
            return int(json.loads(line)["port"])
    return None
