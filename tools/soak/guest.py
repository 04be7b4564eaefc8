"""What one client of the mixed load does, and what it expects.

Each public method of :class:`Guest` is one thing to do; :data:`KINDS` says how often.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from tools.bench.processes import TOKEN
from tools.soak.callers import Answer, Callers, document
from tools.soak.script import NOBODY, Prompt

MAX_CONCURRENT, MAX_QUEUED, MAX_QUEUED_PER_SESSION = 64, 32, 8
BURST, SESSION_BURST = MAX_CONCURRENT + MAX_QUEUED + 20, MAX_QUEUED_PER_SESSION + 6
# A cancelled prompt would be answered for so long.
LONG = {"deltas": 100, "gap_ms": 100}
HEAD_S = 20.0


class WrongError(Exception):
    """The gateway did not do what it should."""


class RefusedError(Exception):
    """There was no place; properly said, while somebody takes them all."""


class Talk:
    """A session, as its client knows it.

    Attributes:
        user: Whose it is.
        key: The session key, once known.
        last: What the last prompt in its transcript may be.

    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.key = ""
        self.last = {NOBODY}


class Load:
    """What all guests of a load share.

    Attributes:
        callers: Make their calls.
        left: When a prompt's answer was given up, by name; unix seconds.
        crowded_until: When the last burst was over, unix seconds; inf: it is not.
        counts: Calls, by status.

    """

    def __init__(self, callers: Callers) -> None:
        self.callers = callers
        self.left: dict[str, float] = {}
        self.crowded_until = 0.0
        self.counts: Counter[str] = Counter()
        self._prompts = 0

    def prompt(self, *, deltas: int = 8, gap_ms: int = 0) -> Prompt:
        """Return a prompt that nobody had before."""
        self._prompts += 1
        return Prompt(f"p{self._prompts}", deltas, gap_ms)


class Guest:
    """One client: one thing at a time.

    Args:
        load: What it is part of.
        name: No other guest has it.
        rng: Chooses.
        talks: How many sessions it has.

    """

    def __init__(
        self, load: Load, name: str, rng: random.Random, *, talks: int
    ) -> None:
        self._load = load
        self._name = name
        self._rng = rng
        self._talks = [Talk(f"{name}-{number}") for number in range(talks)]

    async def whole(self) -> None:
        """Ask without a session, for a whole answer."""
        await self._ask(self._load.prompt(), None, stream=False)

    async def streamed(self) -> None:
        """Ask without a session, for a stream."""
        prompt = self._load.prompt(deltas=20, gap_ms=self._rng.choice((0, 10)))
        await self._ask(prompt, None, stream=True)

    async def turn(self) -> None:
        """Go on with a session."""
        talk = self._rng.choice(self._talks)
        stream = self._rng.random() < 0.5
        await self._ask(self._load.prompt(), talk, stream=stream)

    async def repeat(self) -> None:
        """Send the same call twice, one after the other or at once."""
        talk = self._rng.choice((None, *self._talks))
        prompt = self._load.prompt(gap_ms=5)
        first = self._ask(prompt, talk, stream=True, key=prompt.name)
        if self._rng.random() < 0.5:
            one = await first
            two = await self._ask(prompt, None, talk=talk, key=prompt.name)
            if two.headers.get("x-edwin-replayed") != "true":
                raise WrongError(f"not called a replay: {two.headers}")
        else:
            second = self._ask(prompt, None, talk=talk, key=prompt.name)
            one, two = await self._both(prompt, talk, first, second)
        if (one.text, one.run_id) != (two.text, two.run_id):
            raise WrongError(f"the same call was answered by {one} and {two}")

    async def _both(
        self, prompt: Prompt, talk: Talk | None, *calls: Coroutine[Any, Any, Answer]
    ) -> list[Answer]:
        """Return the answers of calls that are under way at the same time."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                # Refused the one may be, and the other not.
                self._stays(talk, prompt, sure=False)
                raise result
        return [result for result in results if isinstance(result, Answer)]

    async def come_back(self) -> None:
        """Leave in the middle, and call again with the same key."""
        prompt = self._load.prompt(gap_ms=20)
        body = document(prompt, stream=True)
        await self._load.callers.chat(body, key=prompt.name, until="piece-0001")
        await asyncio.sleep(self._rng.uniform(0, 0.3))
        await self._ask(prompt, None, key=prompt.name)

    async def detached(self) -> None:
        """Begin a run that goes on by itself; read its events with a break."""
        talk = self._rng.choice((None, *self._talks))
        prompt = self._load.prompt(gap_ms=10)
        body = _document(prompt, talk)
        answer = Answer()
        begun = await self._load.callers.fetch("POST", "/v1/runs", body)
        self._count(begun.status)
        if begun.status != 202:
            answer.status, answer.headers = begun.status, begun.headers
            answer.error = begun.body["error"]
            raise self._refused(answer)
        run, events = begun.body["id"], list[Any]()
        read = self._load.callers.events
        await read(run, 0, events, most=self._rng.randint(1, 9))
        while events[-1]["event"] != "run.finished":
            await asyncio.sleep(self._rng.uniform(0, 0.2))
            before = len(events)
            await read(run, events[-1]["seq"], events)
            if len(events) == before:
                raise WrongError(f"{run} ended with {events[-1:]}")
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            raise WrongError(f"the events of {run} are {events}")
        message = events[-1]["payload"]["message"]
        self._check(prompt, talk, message["content"])

    async def leave(self) -> None:
        """Go away in the middle of an answer."""
        talk = self._rng.choice((None, *self._talks))
        prompt = self._load.prompt(**LONG)
        stream = self._rng.random() < 0.5
        body = _document(prompt, talk, stream=stream)
        answer = Answer()
        if stream:
            await self._load.callers.chat(body, into=answer, until="piece-0001")
            if answer.status != 200 or answer.left_at is None:
                raise self._refused(answer)
            self._load.left[prompt.name] = answer.left_at
            self._stays(talk, prompt, sure=True)
            return
        call = asyncio.create_task(self._load.callers.chat(body, into=answer))
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        if call.done():
            raise self._refused(answer)
        self._load.left[prompt.name] = time.time()
        self._stays(talk, prompt, sure=False)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call

    async def cancel(self) -> None:
        """End a run by its id."""
        talk = self._rng.choice((None, *self._talks))
        prompt = self._load.prompt(**LONG)
        answer = Answer()
        body = _document(prompt, talk, stream=True)
        call = asyncio.create_task(self._load.callers.chat(body, into=answer))
        until = time.monotonic() + HEAD_S
        while not answer.status and not call.done() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if answer.status != 200:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            raise self._refused(answer)
        self._stays(talk, prompt, sure=True)
        self._load.left[prompt.name] = time.time()
        path = f"/v1/runs/{answer.run_id}/cancel"
        ended = await self._load.callers.fetch("POST", path)
        await call
        self._count(answer.status)
        if ended.status != 200 or ended.body["state"] != "cancelled":
            raise WrongError(f"cancelled, it is {ended}")
        if answer.complete or answer.code != "run_cancelled":
            raise WrongError(f"the stream of a cancelled run: {answer}")

    async def forget(self) -> None:
        """Delete a session."""
        talk = self._rng.choice(self._talks)
        if not talk.key:
            return
        query = urlencode({"agent": "main", "key": talk.key})
        found = await self._load.callers.fetch("DELETE", f"/v1/sessions/item?{query}")
        self._count(found.status)
        if found.status != 200 and (found.status, NOBODY in talk.last) != (404, True):
            raise WrongError(f"deleting: {found}")
        talk.last = {NOBODY}

    async def blunder(self) -> None:
        """Send what must be refused."""
        good = document(self._load.prompt())
        cases: list[tuple[Any, int]] = [
            ({**good, "messages": []}, 400),
            ({**good, "temperature": "hot"}, 400),
            ({**good, "model": "nobody"}, 404),
            (b'{"model": ', 400),
            (good, 401),
        ]
        body, status = self._rng.choice(cases)
        token = "wrong" if status == 401 else TOKEN
        answer = await self._load.callers.chat(body, token=token)
        self._count(answer.status)
        if answer.status != status or not answer.error:
            raise WrongError(f"for {body} it was {answer}")

    async def look(self) -> None:
        """Read lists and pages."""
        for path in ("/v1/runs?limit=50", "/v1/sessions", "/v1/models", "/readyz"):
            page = await self._load.callers.fetch("GET", path)
            self._count(page.status)
            if page.status != 200:
                raise WrongError(f"{path}: {page}")

    async def crowd(self) -> None:
        """Send more to one session than may wait in it."""
        talk = Talk(f"{self._name}-crowd")
        calls = (self._send(self._load.prompt(gap_ms=5), talk, None, stream=False)
                 for _ in range(SESSION_BURST))  # fmt: skip
        answers = await asyncio.gather(*calls)
        for answer in answers:
            if answer.status == 429:
                _check_refusal(answer)
            elif not answer.complete:
                raise self._refused(answer)

    async def burst(self) -> None:
        """Take all places there are, and more."""
        if self._load.crowded_until == math.inf:
            return
        self._load.crowded_until = math.inf
        try:
            prompts = [self._load.prompt(gap_ms=40) for _ in range(BURST)]
            calls = (self._send(p, None, None, stream=False) for p in prompts)
            answers = await asyncio.gather(*calls)
            for prompt, answer in zip(prompts, answers, strict=True):
                if answer.complete:
                    self._check(prompt, None, answer.text)
                else:
                    error = self._refused(answer)
                    if not isinstance(error, RefusedError):
                        raise error
        finally:
            self._load.crowded_until = time.time()

    async def _ask(
        self,
        prompt: Prompt,
        session: Talk | None,
        *,
        talk: Talk | None = None,
        stream: bool = False,
        key: str | None = None,
    ) -> Answer:
        """Ask *prompt* and check the answer.

        Args:
            prompt: What is asked.
            session: Whose next turn it is, or None.
            talk: Whose turn it is that was sent already.
            stream: Whether a stream is wanted.
            key: The idempotency key.

        """
        answer = await self._send(prompt, session or talk, key, stream=stream)
        if not answer.complete:
            raise self._refused(answer)
        if session is not None:
            session.key = answer.session_key
        if talk is None:
            self._check(prompt, session, answer.text)
        return answer

    async def _send(
        self, prompt: Prompt, talk: Talk | None, key: str | None, *, stream: bool
    ) -> Answer:
        body = _document(prompt, talk, stream=stream)
        answer = await self._load.callers.chat(body, key=key)
        self._count(answer.status)
        return answer

    def _count(self, status: int) -> None:
        self._load.counts[str(status)] += 1

    def _check(self, prompt: Prompt, talk: Talk | None, text: str) -> None:
        """Check that *text* answers *prompt*, read after the right one."""
        before: Collection[str] = {NOBODY} if talk is None else talk.last
        if text not in {prompt.answer(name) for name in before}:
            raise WrongError(f"{prompt} after {before} was answered with {text!r}")
        self._stays(talk, prompt, sure=True)

    def _stays(self, talk: Talk | None, prompt: Prompt, *, sure: bool) -> None:
        """Note that *prompt* is, or may be, the last one of *talk* now."""
        if talk is not None:
            talk.last = {prompt.name} if sure else {*talk.last, prompt.name}

    def _refused(self, answer: Answer) -> Exception:
        """Return what an answer that is none comes to."""
        if (answer.status, answer.code) != (503, "overloaded"):
            return WrongError(str(answer))
        if answer.sent_at > self._load.crowded_until:
            return WrongError(f"refused, and there is no burst: {answer}")
        _check_refusal(answer)
        return RefusedError()


def _check_refusal(answer: Answer) -> None:
    """Raise :class:`WrongError` unless a refusal says all it should."""
    after = answer.headers.get("Retry-After", "")
    if not (after.isdecimal() and int(after) and answer.headers.get("x-request-id")):
        raise WrongError(f"{answer} without its headers: {answer.headers}")


def _document(prompt: Prompt, talk: Talk | None, **fields: Any) -> dict[str, Any]:
    return document(prompt, talk.user if talk else None, **fields)


KINDS = {
    Guest.whole: 20,
    Guest.streamed: 20,
    Guest.turn: 30,
    Guest.repeat: 6,
    Guest.come_back: 3,
    Guest.detached: 8,
    Guest.leave: 8,
    Guest.cancel: 8,
    Guest.forget: 2,
    Guest.blunder: 6,
    Guest.look: 3,
    Guest.crowd: 1,
    Guest.burst: 0.3,
}
