"""A gateway, its provider and the calls under way, beside their model."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from edwin.runs.run import Run as GatewayRun
from edwin.testing import (
    BEFORE_HEAD,
    TOKEN,
    LocalGateway,
    Reply,
    Request,
    ScriptedUpstream,
)
from tests.conftest import Answer, Response
from tests.runs_model import PLACES, WAITING, Errand, Model, Run

NAMES = "ann", "bob", "cat"
PATIENCE_S = 10
CONFIG = {
    "gateway": {
        "http": {"headDelayMs": 0},
        "runs": {"maxConcurrent": PLACES, "maxQueuedPerSession": WAITING},
        "shutdownSeconds": 0,
        "monitor": {"blockedMs": 0},
    }
}


class Call:
    """One HTTP call.

    Attributes:
        head: Whether the head of its answer has come.
        run: The run it reads in the model, if it reads one.
        errand: What it waits for there, if that is it.

    """

    def __init__(self, send: Callable[[], Any]) -> None:
        self.head = False
        self.run: Run | None = None
        self.errand: Errand | None = None
        self.streamed = False
        self.joined = False
        self.task = asyncio.ensure_future(self._carry_out(send))

    async def _carry_out(self, send: Callable[[], Any]) -> Response:
        async with send() as response:
            self.head = True
            return await Response.read(response)

    @property
    def is_over(self) -> bool:
        """Whether its answer is to be there, in whole."""
        if self.errand is not None:
            return self.errand.found is not None
        return self.run is None or not self.run.live

    def check(self) -> None:
        """Check that the answer is the right one."""
        answer, run = Answer(self.task.result()), self.run
        if self.errand is not None:
            assert answer.status == (200 if self.errand.found else 404), answer.body
        elif run is None:
            assert answer.status == 202, answer.body
        elif run.code is not None:
            assert "[DONE]" not in answer.body
            if answer.status == 200:
                assert self.streamed and answer.cut
                assert answer.events[-1]["error"]["code"] == run.code
            else:
                assert answer.error["code"] == run.code, run
        else:
            assert (answer.status, answer.text) == (200, run.answer)
            assert self.joined == ("x-edwin-replayed" in answer.headers)
            assert not self.streamed or answer.events[-1] == "[DONE]"

    async def leave(self) -> None:
        """Close the connection."""
        self.task.cancel()
        await asyncio.wait([self.task])


class House:
    """A gateway that can be started anew, its provider, and the calls under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.upstream = ScriptedUpstream()
        self.replies: dict[int, Reply] = {}
        self.requests: dict[Run, Request] = {}
        self.seen = 0
        self.calls: list[Call] = []
        self.checked: dict[str, list[tuple[str, bool, bool]] | None] = {}
        self.served: LocalGateway
        self.client: aiohttp.ClientSession

    @property
    def state_dir(self) -> Path:
        """Where the gateway of today keeps its state."""
        return self.folder / str(self.number)

    async def start(self) -> None:
        """Start all of it."""
        await self.upstream.start()
        self.upstream.on_request = lambda body: self.replies[body["seed"]]
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self.client = aiohttp.ClientSession(connector=connector)
        await self.start_gateway()

    async def start_gateway(self) -> None:
        """Start a gateway on the state folder of today."""
        self.served = LocalGateway(self.state_dir, CONFIG, upstream=self.upstream)
        await self.served.start()

    async def crash(self) -> None:
        """Start a gateway on what the disk holds at this moment."""
        before = self.state_dir
        self.number += 1
        shutil.copytree(before, self.state_dir, ignore=shutil.ignore_patterns("*lock*"))
        # First: those that wait in it are not to begin when others leave.
        await self.served.stop()
        for call in self.calls:
            await call.leave()
        self.calls.clear()
        await self.start_gateway()

    async def stop(self) -> None:
        """Stop all of it."""
        for call in self.calls:
            await call.leave()
        await self.served.stop()
        await self.client.close()
        await self.upstream.stop()

    def call(
        self, method: str, path: str, document: Any = None, **headers: str
    ) -> Call:
        """Send a request; its answer is awaited in :meth:`settle`."""
        sent = {"Authorization": f"Bearer {TOKEN}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.served.url + path
        call = Call(
            lambda: self.client.request(method, url, json=document, headers=sent)
        )
        self.calls.append(call)
        return call

    async def get(
        self, method: str, path: str, document: Any = None
    ) -> tuple[int, Any]:
        """Send a request and return the status and the document of its answer."""
        call = self.call(method, path, document)
        self.calls.remove(call)
        async with asyncio.timeout(PATIENCE_S):
            response = await call.task
        return response.code, json.loads(response.body)

    async def settle(self, model: Model) -> None:
        """Wait until all is as *model* has it, and check what came of calls."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self._difference(model):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(self._difference(model)) from None
        for call in [call for call in self.calls if call.is_over]:
            self.calls.remove(call)
            call.check()

    def _difference(self, model: Model) -> str:
        """Return what is not yet as *model* has it; empty: nothing."""
        self._note_arrivals(model)
        engine = self.served.gateway.engine
        live, queued = model.live, [run for run in model.live if run.state == "queued"]
        seen = engine.running, engine.waiting, len(engine.live())
        expected = len(model.running), len(queued), len(live) + len(model.unsettled)
        if seen != expected:
            return f"(running, waiting, live) is {seen}, not {expected}"
        for run in live:
            if not self._is_as_it_should(run):
                return f"not where it should be: {run}"
        for call in self.calls:
            if call.is_over != call.task.done():
                return f"should{'' if call.is_over else ' not'} have ended: {call}"
            if call.streamed and not call.head:
                return f"has no head: {call}"
        reading = sum(call.run is not None and call.run.live for call in self.calls)
        if reading != len(self.served.gateway.answers):
            return f"{len(self.served.gateway.answers)} are answered, not {reading}"
        return ""

    def _note_arrivals(self, model: Model) -> None:
        """Check that what came to the provider is what was to come."""
        for request in self.upstream.requests[self.seen :]:
            self.seen += 1
            number = request.body["seed"]
            read = [(m["role"], m["content"]) for m in request.body["messages"]]
            (run,) = [
                run
                for run in model.running
                if run.number == number and run not in self.requests
            ] or [None]
            assert run is not None, f"run {number} was not to begin"
            assert read == run.context, (number, read, run.context)
            self.requests[run] = request

    def _is_as_it_should(self, run: Run) -> bool:
        found = self.find(run)
        if found is None or found.state != run.state:
            return False
        run.run_id = found.id
        if run.state == "queued":
            pending = found.pending
            return (pending is not None and pending.done()) == run.accepted
        begun = found.begun is None or found.begun.done()
        heard = run.fate == "refused" or found.first_delta_ms is not None
        return begun and heard and run in self.requests

    def find(self, run: Run) -> GatewayRun | None:
        """Return the gateway's run of the model's *run*, while it is live."""
        for found in self.served.gateway.engine.live():
            if found.request.params["seed"] == run.number:
                return found
        return None

    async def check_sessions(self, model: Model, *, all: bool = False) -> None:
        """Every message that was accepted is in its session, once and in order.

        Unless *all* are to be looked at: in those that have changed.
        """
        for name in NAMES:
            lines = model.sessions.get(name)
            expected = lines and [(x.text, x.own, not x.gone) for x in lines]
            if not all and self.checked.get(name) == expected:
                continue
            query = f"agent=main&key={name}&superseded=true&limit=100"
            status, document = await self.get("GET", f"/v1/sessions/item?{query}")
            assert status == (404 if expected is None else 200), document
            kept = expected and [
                (line["message"]["content"], line["own"], line["current"])
                for line in document["data"]
            ]
            assert kept == expected, name
            self.checked[name] = expected

    def check_ledger(self, model: Model) -> None:
        """With the gateway stopped: the ledger says how every run ended."""
        with closing(sqlite3.connect(self.state_dir / "edwin.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            states = dict(database.execute("SELECT run_id, state FROM runs"))
            (pending,) = database.execute("SELECT count(*) FROM pending").fetchone()
        assert pending == 0
        for run in model.runs:
            state = states.pop(run.run_id, None)
            if run.accepted or state is not None:
                assert state == run.state, run
        assert not states


def reply(run: Run) -> Reply:
    """Return the provider's answer to *run*: a piece, the rest when released."""
    if run.fate == "refused":
        return Reply(status=503, body={}, silent_at=BEFORE_HEAD)
    pieces = [run.first_piece]
    if run.fate == "whole":
        pieces.append(run.answer.removeprefix(run.first_piece))
    return Reply(deltas=pieces, silent_at=1, cut=run.fate == "cut")
