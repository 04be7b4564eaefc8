"""Whatever happens in whatever order, runs keep theirs, and nothing is lost.

``EDWIN_MODEL_SEED`` and ``EDWIN_MODEL_EXAMPLES`` choose others than the usual ones.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tornado.ioloop import IOLoop

from tests.conftest import chat
from tests.runs_house import NAMES, PATIENCE_S, Call, House, reply
from tests.runs_model import Errand, Model, Run

SEED = int(os.environ.get("EDWIN_MODEL_SEED", "1"))
EXAMPLES = int(os.environ.get("EDWIN_MODEL_EXAMPLES", "30"))
STEPS = 25
# So many steps are between two that clear a session, and twice as many between starts.
REST = 4

# None: a call without a session.
SESSIONS = st.sampled_from(["ann", *NAMES, None])
FATES = st.sampled_from(["whole", "whole", "whole", "cut", "refused"])
WHICH = st.integers(0, 7)


class Runs(RuleBasedStateMachine):
    """Does the same to a gateway and to the model of it, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.numbers = 0
        self.last_text: dict[str | None, str] = {}
        self.since_start = self.since_clearing = 0
        self.folder = tempfile.TemporaryDirectory()
        self.loop = IOLoop(make_current=False)
        asyncio.set_event_loop(self.loop.asyncio_loop)
        self.sound = True
        self.house = House(Path(self.folder.name))
        self.do(self.house.start())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let the loop run until *work* is done."""
        return self.loop.asyncio_loop.run_until_complete(work)

    @rule(session=SESSIONS, keyed=st.booleans(), fate=FATES)
    def ask(self, session: str | None, keyed: bool, fate: str) -> None:
        """Send a call that is answered in whole."""
        self.submit(session, "whole", keyed, fate)

    @rule(session=SESSIONS, keyed=st.booleans(), fate=FATES)
    def ask_for_a_stream(self, session: str | None, keyed: bool, fate: str) -> None:
        """Send a call that is answered as a stream."""
        self.submit(session, "streamed", keyed, fate)

    @rule(session=SESSIONS, keyed=st.booleans(), fate=FATES)
    def begin_detached(self, session: str | None, keyed: bool, fate: str) -> None:
        """Begin a run that nobody waits for."""
        self.submit(session, "detached", keyed, fate)

    @precondition(lambda self: self.last_text)
    @rule(which=WHICH, keyed=st.booleans())
    def ask_again(self, which: int, keyed: bool) -> None:
        """Send a session its last words once more."""
        session = pick(list(self.last_text), which)
        self.submit(session, "streamed", keyed, "whole", self.last_text[session])

    def submit(
        self, session: str | None, way: str, keyed: bool, fate: str, text: str = ""
    ) -> None:
        """Send a call with words that nobody used, unless *text* gives them."""
        self.numbers += 1
        run = Run(self.numbers, session, text or f"m{self.numbers}", fate)
        run.key = f"key-{run.number}" if keyed else None
        run.detached = way == "detached"
        self.last_text[session] = run.text
        self.begin(run, way)

    def begin(self, run: Run, way: str) -> None:
        """Let *run* come in, or be refused."""
        call = self.send(run, way)
        if self.model.is_full(run.session):
            self.house.calls.remove(call)
            response = self.do(asyncio.wait_for(call.task, PATIENCE_S))
            assert response.code == 429
            assert b"session_queue_full" in response.body
            return
        self.house.replies[run.number] = reply(run)
        self.model.submit(run, accepted=way != "whole")
        call.run = None if way == "detached" else run

    def send(self, run: Run, way: str) -> Call:
        """Send the call of *run*, to be answered in this *way*."""
        path = "/v1/runs" if way == "detached" else "/v1/chat/completions"
        document = chat(run.text, seed=run.number)
        if way == "streamed":
            document["stream"] = True
        headers = {}
        if run.session is not None:
            headers["x-edwin-session-key"] = run.session
        if run.key is not None:
            headers["Idempotency-Key"] = run.key
        call = self.do(self.call("POST", path, document, **headers))
        call.streamed = way == "streamed"
        return call

    async def call(self, *request: Any, **headers: str) -> Call:
        """Begin a call of the house's."""
        return self.house.call(*request, **headers)

    @precondition(lambda self: self.model.used)
    @rule(which=WHICH, way=st.sampled_from(["whole", "streamed"]))
    def repeat(self, which: int, way: str) -> None:
        """Send a call once more under its key."""
        key, before = pick(list(self.model.used.items()), which)
        run = self.model.keys.get(key)
        if run is None:
            same = before.number, before.session, before.text, before.fate
            self.begin(Run(*same, key=key), way)
            return
        call = self.send(run, way)
        call.run, call.joined = run, True
        if way == "streamed":
            self.model.accept(run)

    @precondition(lambda self: self.model.running)
    @rule(which=WHICH)
    def release(self, which: int) -> None:
        """Let the provider end one answer."""
        run = pick(self.model.running, which)
        self.house.requests[run].release()
        self.model.release(run)

    @precondition(lambda self: self.model.live)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        """Cancel a run by its id."""
        run = pick(self.model.live, which)
        status, shown = self.do(
            self.house.get("POST", f"/v1/runs/{run.run_id}/cancel", {})
        )
        assert (status, shown["state"]) == (200, "cancelled")
        self.model.cancel(run)

    @precondition(lambda self: self.readers())
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """Close the connection of a call that is answered."""
        call = pick(self.readers(), which)
        self.do(call.leave())
        self.house.calls.remove(call)
        run = call.run
        others = any(other.run is run for other in self.house.calls)
        if not (others or run.kept):
            self.model.cancel(run)

    def readers(self) -> list[Call]:
        """Return the calls that are answered with a run's answer."""
        return [call for call in self.house.calls if call.run is not None]

    @precondition(lambda self: self.may_clear())
    @rule(which=WHICH)
    def delete(self, which: int) -> None:
        """Delete a session."""
        session = pick(self.known(), which)
        runs = (*self.model.live, *self.model.unsettled)
        there = any(run.session == session for run in runs)
        path = f"/v1/sessions/item?agent=main&key={session}"
        call = self.do(self.call("DELETE", path))
        self.clear(call, Errand("delete", session, there))

    @precondition(lambda self: self.may_clear())
    @rule(which=WHICH)
    def reset(self, which: int) -> None:
        """Let a session begin anew."""
        session = pick(self.known(), which)
        document = {"agent": "main", "key": session}
        call = self.do(self.call("POST", "/v1/sessions/reset", document))
        self.clear(call, Errand("reset", session, there=False))

    def clear(self, call: Call, errand: Errand) -> None:
        """Do *errand*, which *call* waits for."""
        self.since_clearing = 0
        call.errand = errand
        self.model.do(errand)

    def may_clear(self) -> bool:
        """Return whether a session may be deleted or reset: seldom enough."""
        return self.since_clearing > REST and bool(self.known())

    def known(self) -> list[str]:
        """Return the sessions that somebody has used."""
        return [session for session in self.last_text if session is not None]

    def may_end(self) -> bool:
        """Return whether the gateway may be ended: seldom, and with work under way."""
        return self.since_start > 2 * REST and len(self.model.live) > 1

    @precondition(lambda self: self.may_end() and not list(self.model.errands))
    @rule()
    def restart(self) -> None:
        """Stop the gateway, and start it on the same state folder."""
        self.since_start = 0
        self.model.stop()
        self.do(self.house.served.stop())
        self.do(self.house.start_gateway())
        self.house.checked.clear()

    @precondition(lambda self: self.may_end())
    @rule()
    def crash(self) -> None:
        """Start a gateway on what the disk holds when another one is lost."""
        self.since_start = 0
        self.model.crash()
        self.do(self.house.crash())
        self.house.checked.clear()

    @invariant()
    def settle(self) -> None:
        """All is as the model has it."""
        self.sound = False
        self.since_start += 1
        self.since_clearing += 1
        self.do(self.house.settle(self.model))
        self.do(self.house.check_sessions(self.model))
        self.sound = True

    def teardown(self) -> None:
        """In the end every run comes to its end, and nothing is left."""
        try:
            if self.sound:
                self.finish()
        finally:
            self.do(self.house.stop())
            left = asyncio.all_tasks(self.loop.asyncio_loop)
            self.loop.close()
            asyncio.set_event_loop(None)
        if self.sound:
            self.house.check_ledger(self.model)
            assert not left
        self.folder.cleanup()

    def finish(self) -> None:
        """Let the provider end every answer."""
        while self.model.running:
            self.release(0)
            self.settle()
        self.do(self.house.check_sessions(self.model, all=True))
        assert not self.model.live and not self.house.calls
        engine = self.house.served.gateway.engine
        assert not engine._lanes._lanes and not engine.live()


def pick(items: list[Any], which: int) -> Any:
    """Return one of *items*."""
    return items[which % len(items)]


def test_runs_model() -> None:
    """Calls, cancelling, departures, deletions and restarts, in any order."""
    print(f"EDWIN_MODEL_SEED={SEED}")
    run_state_machine_as_test(
        seed(SEED)(Runs),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
