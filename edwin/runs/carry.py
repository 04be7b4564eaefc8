"""Carry one run from its start to its end; the same code for every engine.

Read the transcript, decide the context, let the executor work, keep what came of it.
The engine calls :meth:`Carrier.carry` when the run is at the head of its lane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from edwin.errors import (
    EdwinError,
    InternalError,
    InvalidRequest,
    ProviderStreamError,
    RunCancelled,
)
from edwin.executor import AgentExecutor
from edwin.log import milliseconds
from edwin.metrics import Metrics
from edwin.runs.run import Run
from edwin.sessions import SessionRegistry, reconcile, window
from edwin.store import Store
from edwin.tokens import text_tokens, total_tokens
from edwin.tracing import RunTrace, Tracing
from edwin.types import (
    Message,
    RunFailed,
    RunFinished,
    RunStarted,
    TextDelta,
    TurnFinished,
    Usage,
)

_log = logging.getLogger("edwin.runs")


class Answer:
    """What a run has produced so far, and the task that keeps its messages."""

    def __init__(self, trace: RunTrace) -> None:
        self.trace = trace
        self.messages: list[Message] = []
        self.turn: TurnFinished | None = None
        self.parts: list[str] = []
        self.begin: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the run's messages are durable."""
        task = self.begin
        return task is not None and task.done() and task.exception() is None

    def finished_turn(self, turn: TurnFinished) -> None:
        """Keep the turn's message in place of its pieces."""
        assert turn.message is not None
        self.messages.append(turn.message)
        self.turn = turn
        self.parts.clear()

    def stored(self, *, whole: bool) -> list[Message]:
        """Return the messages to store.

        Of an answer that is not *whole*: its text, without calls that nobody can
        answer any more.
        """
        if whole:
            return self.messages
        messages = list(self.messages)
        if self.parts:
            messages.append({"role": "assistant", "content": "".join(self.parts)})
        return list(window.sendable(messages))


class Carrier:
    """Carries runs out.

    Args:
        registry: Where transcripts come from and go to.
        store: Where the ledger lines of stateless runs go.
        executor: Talks to the model.
        tracing: Makes the runs' spans.
        metrics: Counts the runs.

    """

    def __init__(
        self,
        registry: SessionRegistry,
        store: Store,
        executor: AgentExecutor,
        tracing: Tracing,
        metrics: Metrics | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._executor = executor
        self._tracing = tracing
        self._metrics = metrics or Metrics()

    async def accept(self, run: Run) -> None:
        """Make the messages of *run* durable, wherever it is; see :meth:`Run.accepted`.

        Raises:
            StorageUnavailable: If they cannot be made so.

        """
        if not run.request.stateful or run.ended:
            return
        if run.state == "queued":
            run.pended = True
            await self._store.pend(run.record(), run.request.messages)
        elif run.begun is not None:
            await asyncio.shield(run.begun)

    def deliver(self, run: Run) -> None:
        """Note that the answer of *run* reached its client; see :meth:`Run.delivered`.

        A client that says it repeats a call whose answer was not delivered gets a new
        answer in place of the lost one.
        """
        if run.request.stateful:
            self._registry.delivered(run.request.session, run.id)

    async def carry(self, run: Run) -> None:
        """Carry *run* out; its last event says how it ended, nothing is raised.

        Cancelling the task closes the provider's connection at once and keeps the
        text that came; the run then ends with :attr:`Run.stopped`.
        """
        run.state = "running"
        run.started_at = time.time()
        run.emit(RunStarted())
        answer = Answer(self._tracing.run(run.request, created_at=run.created_at))
        error: EdwinError | None = None
        try:
            if run.request.stateful:
                await self._in_session(run, answer)
            else:
                reconcile.alone(run.request.messages)
                await self._converse(run, answer, run.request.messages)
        except asyncio.CancelledError:
            error = run.stopped or RunCancelled("the run was cancelled")
        except EdwinError as raised:
            error = raised
        except Exception:
            error = self._defect(run)
        run.sealed = True
        self._close(run, error)
        if error is None and answer.turn is not None:
            run.finish_reason = answer.turn.finish_reason
        try:
            error = await self._keep(run, answer, error)
        except Exception:
            error = self._defect(run)
            self._close(run, error)
        answer.trace.end(error, run.usage, run.finished_at)
        run.emit(RunFailed(error) if error else _finished(run, answer))
        self._count(run)
        self._write_line(run)

    async def settle(self, run: Run) -> None:
        """Store the messages of a *run* that was accepted and ended before it began."""
        session, messages = run.request.session, run.request.messages
        record = run.record()
        try:
            transcript = await self._registry.transcript(session)
            try:
                plan = reconcile.plan(transcript, messages)
            except InvalidRequest:
                # Kept, but of a failed run: no part of the conversation.
                plan = reconcile.verbatim(messages)
                record = record._replace(state="failed")
            await self._registry.begin(record, plan, since=transcript)
        except EdwinError as error:
            _log.warning("%s", error.message, extra={"fields": self._ids(run)})

    def drop(self, run: Run, error: EdwinError) -> None:
        """End a *run* that never began, with *error*."""
        run.sealed = True
        self._close(run, error)
        if not run.pended:
            self._store.note(run.record())
        trace = self._tracing.run(run.request, created_at=run.created_at)
        trace.end(error, run.usage, run.finished_at)
        run.emit(RunFailed(error))
        self._count(run)
        self._write_line(run)

    async def _in_session(self, run: Run, answer: Answer) -> None:
        request = run.request
        transcript = await self._registry.transcript(request.session)
        plan = reconcile.plan(
            transcript, request.messages, retry=request.retry_count > 0
        )
        limit = self._executor.context_tokens(request.agent)
        rest = limit - total_tokens(plan.messages) - total_tokens(plan.lead)
        history = window.cut(
            plan.history,
            plan.messages,
            max_messages=request.agent.max_history_messages,
            max_tokens=rest - text_tokens(request.agent.instructions),
        )
        begin = asyncio.create_task(
            self._registry.begin(run.record(), plan, since=transcript),
            name=f"{run.id} begin",
        )
        begin.add_done_callback(lambda task: self._began(run, task))
        answer.begin = begin
        try:
            await self._converse(run, answer, (*plan.lead, *history, *plan.messages))
        finally:
            # What is being written is awaited, whatever has become of the run.
            await _to_its_end(begin)
        begin.result()

    def _began(self, run: Run, task: asyncio.Task[None]) -> None:
        error = task.exception()
        if error is None:
            run.has_begun()
        elif isinstance(error, EdwinError):
            # Nothing may go out that is not kept: no reason to generate more of it.
            run.cancel(error)

    async def _converse(
        self, run: Run, answer: Answer, context: Sequence[Message]
    ) -> None:
        request = run.request
        events = self._executor.run(
            request.agent,
            window.sendable(context),
            request.params,
            deadline=run.deadline,
            trace=answer.trace,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, TurnFinished):
                        answer.finished_turn(event)
                        run.usage += event.usage or Usage()
                    else:
                        self._metrics.deltas += 1
                        if isinstance(event, TextDelta):
                            answer.parts.append(event.text)
                    if run.first_delta_ms is None:
                        run.first_delta_ms = milliseconds(run.created_at)
                    run.emit(event)
        except (asyncio.CancelledError, EdwinError):
            if answer.parts:
                spent = text_tokens("".join(answer.parts))
                run.usage += Usage(total_tokens(context), spent, estimated=True)
            raise
        if answer.turn is None:
            raise ProviderStreamError("the provider ended without an answer")

    async def _keep(
        self, run: Run, answer: Answer, error: EdwinError | None
    ) -> EdwinError | None:
        """Store the run's end; return *error*, or what kept it from being stored."""
        tried = answer.begin is not None
        if not run.request.stateful or (tried and not answer.begun):
            # Where its question could not be kept, an answer would be an orphan.
            self._store.note(run.record())
        elif run.pended and not tried:
            await self.settle(run)
        else:
            stored = answer.stored(whole=error is None) if answer.begun else []
            try:
                await self._registry.finish(run.record(), stored)
            except EdwinError as raised:
                _log.warning("%s", raised.message, extra={"fields": self._ids(run)})
                error = error or raised
                self._close(run, error)
                self._store.note(run.record())
        return error

    def _defect(self, run: Run) -> InternalError:
        """Log the exception at hand, and return what the client is told of it."""
        _log.exception("run failed", extra={"fields": self._ids(run)})
        return InternalError("the run failed; the log says why")

    def _close(self, run: Run, error: EdwinError | None) -> None:
        run.finished_at = time.time()
        run.error = error
        if error is None:
            run.state = "finished"
        else:
            run.state = "cancelled" if isinstance(error, RunCancelled) else "failed"

    def _ids(self, run: Run) -> dict[str, Any]:
        request = run.request
        return {
            "request_id": request.request_id,
            "run_id": run.id,
            "agent": request.agent.id,
            "principal": request.principal.id,
        }

    def _count(self, run: Run) -> None:
        assert run.finished_at is not None
        first_ms = run.first_delta_ms
        self._metrics.run_ended(
            run.request.agent.id,
            run.state,
            waited_s=(run.started_at or run.finished_at) - run.created_at,
            first_delta_s=None if first_ms is None else first_ms / 1000,
            total_s=run.finished_at - run.created_at,
            prompt_tokens=run.usage.prompt_tokens,
            completion_tokens=run.usage.completion_tokens,
        )

    def _write_line(self, run: Run) -> None:
        request, error, usage = run.request, run.error, run.usage
        fields = {
            **request.log_fields,
            "request_id": request.request_id,
            "run_id": run.id,
            "agent": request.agent.id,
            "principal": request.principal.id,
            "state": run.state,
            "status": error.status if error else 200,
            "code": error.code if error else None,
            "session": request.stateful,
            "queued_ms": milliseconds(run.created_at, run.started_at),
            "first_delta_ms": run.first_delta_ms,
            "total_ms": milliseconds(run.created_at, run.finished_at),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        _log.info("run", extra={"fields": fields})


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Wait until *task* is done, though the waiting one is cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _finished(run: Run, answer: Answer) -> RunFinished:
    turn = answer.turn
    assert turn is not None and turn.message is not None
    return RunFinished(turn.message, turn.finish_reason, run.usage, turn.logprobs)
