"""Kill the gateway again and again under sessions with slow streams."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tools.soak import proof
from tools.soak.callers import Answer, Callers, document
from tools.soak.house import House
from tools.soak.proof import Turn
from tools.soak.report import Report
from tools.soak.script import Prompt

SESSIONS = 20
KINDS = ("whole", "streamed", "detached")
# Uptime until the next kill, and how long it stays down, at most.
UP_S, DOWN_S = 1.2, 0.1
END_S = 60.0
SETTINGS = {
    # The second call of a session is accepted while the first is under way.
    "http": {"headDelayMs": 30},
    "runs": {"graceSeconds": 60},
}


class Guests:
    """The clients of one crash test.

    Args:
        callers: Make the calls.
        seed: Of all that is chosen.

    Attributes:
        up: Whether there is a gateway.
        kills: How often there was none any more.
        over: No new turns but a last one for each session.
        counts: What happened, by name.
        faults: What should not have.
        turns: What each user sent in its session, in order.
        alone: What was sent without a session.
        keys: The users' session keys.

    """

    def __init__(self, callers: Callers, seed: int) -> None:
        self.callers = callers
        self.up = asyncio.Event()
        self.up.set()
        self.kills = 0
        self.over = False
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.turns: dict[str, list[Turn]] = {}
        self.alone: list[Turn] = []
        self.keys: dict[str, str] = {}
        self._seed = seed

    async def converse(self, user: str) -> None:
        """Be *user*, until it is over."""
        rng = random.Random(f"{self._seed} {user}")
        turns = self.turns.setdefault(user, [])
        group = 0
        while not self.over:
            group += 1
            first = self._turn(user, group, rng)
            if rng.random() < 0.25:
                second = self._turn(user, group, rng)
                await asyncio.gather(
                    self._carry(user, first),
                    self._carry(user, second, wait_s=rng.uniform(0, 0.1)),
                )
            else:
                await self._carry(user, first)
            answered = [turn for turn in turns if turn.text is not None]
            if answered and rng.random() < 0.2:
                await self._repeat(user, rng.choice(answered), rng)
            if rng.random() < 0.2:
                await self._no_session(rng)
        last = self._turn(user, group + 1, rng)
        await self._carry(user, last)
        if last.text is None:
            self.faults.append(f"{last.name}, the last call of {user}, had no answer")

    async def _no_session(self, rng: random.Random) -> None:
        """Ask without a session; what came of it is kept all the same."""
        turn = _turn(f"alone-{len(self.alone)}", 0, rng)
        self.alone.append(turn)
        await self._carry(None, turn)
        if turn.text is not None:
            await self._repeat(None, turn, rng)

    def _turn(self, user: str, group: int, rng: random.Random) -> Turn:
        turns = self.turns[user]
        turns.append(_turn(f"{user}-t{len(turns):03d}", group, rng))
        return turns[-1]

    async def _carry(
        self, user: str | None, turn: Turn, *, wait_s: float = 0.0
    ) -> None:
        """Send *turn* until something came of it."""
        await asyncio.sleep(wait_s)
        attempt = self._detached if turn.kind == "detached" else self._chat
        self.counts["calls"] += 1
        while True:
            await self.up.wait()
            kills = self.kills
            answer = await attempt(user, turn)
            if answer.code == "run_interrupted":
                if self._interrupted(turn, answer):
                    return
            elif answer.complete:
                self._complete(turn, answer)
                return
            elif answer.code not in (None, "gateway_restarted") or kills == self.kills:
                self.faults.append(f"{turn.name} ({turn.kind}) came to {answer}")
                return
            self.counts["sent again"] += 1

    async def _chat(self, user: str | None, turn: Turn) -> Answer:
        body = document(turn.prompt, user, stream=turn.kind == "streamed")
        answer = await self.callers.chat(body, key=turn.name)
        if answer.status == 200:
            turn.accepted = True
            self._note_key(user, answer.session_key)
        return answer

    async def _detached(self, user: str | None, turn: Turn) -> Answer:
        """Begin a run, and follow its events over every break."""
        answer, events = Answer(), list[Any]()
        try:
            begun = await self.callers.fetch(
                "POST", "/v1/runs", document(turn.prompt, user), key=turn.name
            )
        except aiohttp.ClientError:
            return answer
        answer.status, answer.headers = begun.status, begun.headers
        if begun.status != 202:
            answer.error = begun.body["error"]
            return answer
        turn.accepted = True
        self._note_key(user, begun.body["session_key"])
        while not events or events[-1]["event"] not in ("run.finished", "run.failed"):
            await self.up.wait()
            kills = self.kills
            after = events[-1]["seq"] if events else 0
            try:
                await self.callers.events(begun.body["id"], after, events)
            except aiohttp.ClientError as error:
                if kills == self.kills:
                    self.faults.append(f"the events of {turn.name} broke off: {error}")
                    return answer
        return self._ended(turn, answer, events)

    def _note_key(self, user: str | None, key: str) -> None:
        if user is not None:
            self.keys[user] = key

    def _ended(self, turn: Turn, answer: Answer, events: list[Any]) -> Answer:
        """Return *answer* with what *events* say."""
        place = 0
        for event in events:
            if event["seq"] != place + 1 and event["event"] != "events.gap":
                self.faults.append(f"events of {turn.name}: {place}, {event}")
            place = event["seq"]
            if event["event"] == "text.delta":
                answer.text += event["payload"]["text"]
        payload = events[-1]["payload"]
        if "error" in payload:
            answer.error = payload["error"]
            return answer
        text = (payload["message"] or {}).get("content")
        if text is None:
            self.faults.append(f"{turn.name} ended without an answer: {payload}")
            return answer
        gap = any(event["event"] == "events.gap" for event in events)
        if text != answer.text and not gap:
            self.faults.append(f"{turn.name} ended with {text!r}, after {answer}")
        answer.text, answer.complete = text, True
        return answer

    def _interrupted(self, turn: Turn, answer: Answer) -> bool:
        """Note that the run of *turn* was lost; return whether that was said twice."""
        self.counts["lost"] += not turn.interrupted
        turn.interrupted += 1
        if answer.status != 500 or answer.headers.get("x-should-retry") != "false":
            self.faults.append(f"{turn.name} was lost with {answer}")
        return turn.interrupted == 2

    def _complete(self, turn: Turn, answer: Answer) -> None:
        before = answer.text.split(" after ", 1)[-1].partition(":")[0]
        if answer.text != turn.prompt.answer(before):
            self.faults.append(f"{turn.name} was answered with {answer}")
        turn.text = answer.text
        self.counts["answered"] += 1

    async def _repeat(self, user: str | None, turn: Turn, rng: random.Random) -> None:
        """Call again what was answered: the same must come."""
        await self.up.wait()
        kills = self.kills
        body = document(turn.prompt, user, stream=rng.random() < 0.5)
        answer = await self.callers.chat(body, key=turn.name)
        if answer.complete or kills == self.kills:
            self.counts["replayed"] += 1
            replayed = answer.headers.get("x-edwin-replayed")
            if answer.text != turn.text or replayed != "true":
                self.faults.append(f"{turn.name} was replayed as {answer}")


def _turn(name: str, group: int, rng: random.Random) -> Turn:
    prompt = Prompt(name, rng.randint(3, 12), rng.randint(10, 60))
    return Turn(prompt, group, rng.choice(KINDS))


async def run(folder: Path, moments: int, seed: int) -> Report:
    """Kill a gateway at *moments* random moments; return what came of it."""
    rng = random.Random(seed)
    with House(folder, SETTINGS) as house:
        async with Callers(house.url) as callers:
            guests = Guests(callers, seed)
            users = [f"u{number:02d}" for number in range(SESSIONS)]
            tasks = [asyncio.create_task(guests.converse(u), name=u) for u in users]
            calls: Counter[str] = Counter()
            in_flight = []
            for _ in range(moments):
                await asyncio.sleep(rng.uniform(0, UP_S))
                in_flight.append(_count(house, calls))
                guests.up.clear()
                guests.kills += 1
                house.kill()
                await asyncio.sleep(rng.uniform(0, DOWN_S))
                await asyncio.to_thread(house.begin)
                callers.url = house.url
                guests.up.set()
            guests.over = True
            guests.faults += await _finish(tasks)
            _count(house, calls)
            for user in users:
                lines = await _transcript(callers, guests.keys.get(user, ""))
                guests.faults += proof.faults(guests.turns[user], lines, calls)
            for turn in guests.alone:
                guests.faults += proof.alone_faults(turn, calls[turn.name])
        guests.faults += _store_faults(house)
        guests.faults += house.faults()
    rows = [("kills", str(moments)), ("sessions", str(SESSIONS))]
    rows += [(name, str(count)) for name, count in sorted(guests.counts.items())]
    rows += [("generated", str(calls.total()))]
    rows += [("in flight at a kill", f"{min(in_flight)} to {max(in_flight)}")]
    return Report(rows, guests.faults)


def _store_faults(house: House) -> list[str]:
    """Return what is wrong with the store, when the gateway has stopped."""
    house.stop()
    ((verdict, *_), *_) = house.read("PRAGMA integrity_check")
    orphans = house.read("PRAGMA foreign_key_check")
    if verdict == "ok" and not orphans:
        return []
    return [f"the database is not whole: {verdict} {orphans}"]


def _count(house: House, calls: Counter[str]) -> int:
    """Count what the provider got in *calls*; return how much of it is under way."""
    ended, open_ = house.calls()
    calls.update(call.name for call in ended)
    return len(open_)


async def _finish(tasks: list[asyncio.Task[None]]) -> list[str]:
    """Wait for the last calls; return which sessions are stuck."""
    done, stuck = await asyncio.wait(tasks, timeout=END_S)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    for task in done:
        task.result()
    return [f"{task.get_name()} is stuck" for task in stuck]


async def _transcript(callers: Callers, key: str) -> list[Any]:
    """Return all messages of a session, superseded ones too."""
    lines: list[Any] = []
    query: dict[str, Any] = {"agent": "main", "key": key, "superseded": "true"}
    while True:
        page = await callers.fetch("GET", f"/v1/sessions/item?{urlencode(query)}")
        if page.status != 200:
            return lines
        lines += page.body["data"]
        if not page.body["has_more"]:
            return lines
        query["after"] = page.body["next"]
