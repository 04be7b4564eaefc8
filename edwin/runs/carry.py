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

from edwin.errors import (
    EdwinError,
    InternalError,
    InvalidRequest,
    ProviderError,
    ProviderStreamError,
    RunCancelled,
    StorageUnavailable,
)
from edwin.executor import AgentExecutor, Scope
from edwin.log import milliseconds
from edwin.metrics import Metrics
from edwin.runs import outcome, report
from edwin.runs.answer import Answer
from edwin.runs.run import Run
from edwin.sessions import SessionRegistry, reconcile, window
from edwin.store import Store
from edwin.tokens import text_tokens, total_tokens
from edwin.tracing import Tracing
from edwin.types import (
    Message,
    RunFailed,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)

_log = logging.getLogger("edwin.runs")


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

    @property
    def writable(self) -> bool:
        """Whether runs can be kept at the moment."""
        return self._store.writable

    async def accept(self, run: Run) -> None:
        """Make what was sent durable, wherever *run* is; see :meth:`Run.accepted`.

        Raises:
            StorageUnavailable: If it cannot be made so.

        """
        if run.begun is None or run.ended:
            return
        if run.state != "queued":
            await asyncio.shield(run.begun)
            return
        if run.pending is None:
            run.pending = asyncio.create_task(self._pend(run), name=f"{run.id} pend")
        await asyncio.shield(run.pending)

    async def _pend(self, run: Run) -> None:
        request = run.request
        if request.stateful:
            await self._store.pend(
                run.record(), request.messages, key=request.idempotency
            )
        else:
            await self._store.open(run.record(), key=request.idempotency)

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
            if run.begun is not None and not self._store.writable:
                raise StorageUnavailable(
                    "the store cannot be written at the moment", retry_after_s=5
                )
            if run.request.stateful:
                await self._in_session(run, answer)
            else:
                await self._alone(run, answer)
        except asyncio.CancelledError:
            error = run.stopped or RunCancelled("the run was cancelled")
        except EdwinError as raised:
            # Its traceback would keep the run until a full collection.
            error = raised.with_traceback(None)
        except BaseException:
            # Without an end its readers would wait for ever.
            error = self._defect(run)
        run.sealed = True
        self._close(run, error)
        if error is None and answer.turn is not None:
            run.finish_reason = answer.finished(run.usage).finish_reason
        run.released = not run.effects and _is_refusal(run, error)
        try:
            error = await self._keep(run, answer, error)
        except Exception:
            error = self._defect(run)
            self._close(run, error)
        answer.trace.end(error, run.usage, run.finished_at)
        run.emit(_end(run, answer, error))
        report.ended(run, self._metrics)

    async def settle(self, run: Run) -> None:
        """Store the messages of a *run* that was accepted and ended before it began."""
        request, record = run.request, run.record()
        messages = request.messages
        if not request.stateful:
            self._store.note(record, release=True)
            return
        try:
            transcript = await self._registry.open(request.session)
            try:
                plan = reconcile.plan(transcript, messages)
            except InvalidRequest:
                # Kept, but of a failed run: no part of the conversation.
                plan = reconcile.verbatim(messages)
                record = record._replace(state="failed")
            await self._registry.begin(record, plan, since=transcript)
            if run.released:
                self._store.note(record, release=True)
        except EdwinError as error:
            _log.warning("%s", error.message, extra={"fields": report.ids(run)})

    def drop(self, run: Run, error: EdwinError) -> None:
        """End a *run* that never began, with *error*."""
        run.sealed = run.released = True
        self._close(run, error)
        if not run.pended:
            self._store.note(run.record())
        trace = self._tracing.run(run.request, created_at=run.created_at)
        trace.end(error, run.usage, run.finished_at)
        run.emit(RunFailed(error))
        report.ended(run, self._metrics)

    async def _alone(self, run: Run, answer: Answer) -> None:
        request = run.request
        reconcile.alone(request.messages)
        if request.kept:
            await self._store.open(run.record(), key=request.idempotency)
            answer.opened = True
            run.has_begun()
        await self._converse(run, answer, request.messages)

    async def _in_session(self, run: Run, answer: Answer) -> None:
        request = run.request
        transcript = await self._registry.open(request.session)
        plan = reconcile.plan(
            transcript, request.messages, retry=request.retry_count > 0
        )
        executor = request.executor or self._executor
        limit = executor.context_tokens(request.agent)
        rest = limit - total_tokens(plan.messages) - total_tokens(plan.lead)
        history = window.cut(
            plan.history,
            plan.messages,
            max_messages=request.agent.max_history_messages,
            max_tokens=rest - text_tokens(request.agent.instructions),
        )
        begin = asyncio.create_task(
            self._registry.begin(
                run.record(), plan, since=transcript, key=request.idempotency
            ),
            name=f"{run.id} begin",
        )
        begin.add_done_callback(lambda task: self._began(run, task))
        answer.begin = begin
        if request.kept:
            # Whoever asks again must find the key before anything is generated.
            await _to_its_end(begin)
            begin.result()
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
        events = (request.executor or self._executor).run(
            request.agent,
            window.sendable(context),
            request.params,
            deadline=run.deadline,
            trace=answer.trace,
            scope=self._scope(run, answer) if request.agent.acts else None,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, TextDelta):
                        self._metrics.deltas += 1
                        answer.parts.append(event.text)
                    elif isinstance(event, TurnFinished):
                        answer.finished_turn(event)
                        run.usage += event.usage or Usage()
                    elif isinstance(event, ToolFinished):
                        answer.finished_tool(event)
                        run.tool_calls += 1
                    elif not isinstance(event, ToolStarted):
                        self._metrics.deltas += 1
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

    def _scope(self, run: Run, answer: Answer) -> Scope:
        """Return what the executor may know of *run*, and ask of it."""

        async def begun() -> None:
            if answer.begin is not None:
                await asyncio.shield(answer.begin)

        async def effects() -> None:
            await begun()
            if answer.marked is None:
                answer.marked = asyncio.create_task(
                    self._mark(run, answer), name=f"{run.id} mark"
                )
            await asyncio.shield(answer.marked)

        return Scope(
            run_id=run.id,
            attempt=run.request.attempt,
            session_key=run.request.session.key,
            principal_id=run.request.principal.id,
            begun=begun,
            effects=effects,
        )

    async def _mark(self, run: Run, answer: Answer) -> None:
        """Make it durable that *run* has effects: nobody carries it out again."""
        run.effects = True
        try:
            await self._store.open(run.record())
        except StorageUnavailable:
            # Nothing is begun that could not be marked.
            run.effects = False
            raise
        answer.opened = True

    async def _keep(
        self, run: Run, answer: Answer, error: EdwinError | None
    ) -> EdwinError | None:
        """Store the run's end; return *error*, or what kept it from being stored."""
        tried = answer.begin is not None
        if not run.request.stateful:
            if answer.opened or run.pended:
                return await self._finish(run, answer, error)
            self._store.note(run.record())
        elif tried and not answer.begun:
            # Where its question could not be kept, an answer would be an orphan.
            run.released = True
            self._store.note(run.record(), release=run.request.kept)
        elif run.pended and not tried:
            await self.settle(run)
        else:
            return await self._finish(run, answer, error)
        return error

    async def _finish(
        self, run: Run, answer: Answer, error: EdwinError | None
    ) -> EdwinError | None:
        kept = run.request.kept and not run.released
        ended = outcome.write(_end(run, answer, error)) if kept else None
        record, release = run.record(), run.released and run.request.kept
        try:
            if run.request.stateful:
                stored = answer.stored(whole=error is None) if answer.begun else []
                await self._registry.finish(
                    record, stored, outcome=ended, release=release
                )
            else:
                await self._store.finish(record, outcome=ended, release=release)
        except EdwinError as raised:
            _log.warning("%s", raised.message, extra={"fields": report.ids(run)})
            error = error or raised
            self._close(run, error)
            if kept:
                ended = outcome.write(RunFailed(error))
            self._store.note(run.record(), outcome=ended, release=release)
        return error

    def _defect(self, run: Run) -> InternalError:
        """Log the exception at hand, and return what the client is told of it."""
        _log.exception("run failed", extra={"fields": report.ids(run)})
        return InternalError("the run failed; the log says why")

    def _close(self, run: Run, error: EdwinError | None) -> None:
        run.finished_at = time.time()
        run.error = error
        if error is None:
            run.state = "finished"
        else:
            run.state = "cancelled" if isinstance(error, RunCancelled) else "failed"


def _end(run: Run, answer: Answer, error: EdwinError | None) -> RunFinished | RunFailed:
    return RunFailed(error) if error else answer.finished(run.usage)


def _is_refusal(run: Run, error: EdwinError | None) -> bool:
    """Return whether *run* came to nothing, so that the same call may be sent again.

    So it is when the request itself was at fault, and when the provider turned it away
    in a way that the executor itself would have repeated.
    """
    if error is None or run.first_delta_ms is not None:
        return False
    if isinstance(error, ProviderError):
        return error.retryable
    return isinstance(error, InvalidRequest | StorageUnavailable)


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
