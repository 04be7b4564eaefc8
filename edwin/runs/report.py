"""What is told of a run that came to its end: in the log, and in numbers."""

from __future__ import annotations

import logging
from typing import Any

from edwin.log import milliseconds
from edwin.metrics import Metrics
from edwin.runs.run import Run

_log = logging.getLogger("edwin.runs")


def ids(run: Run) -> dict[str, Any]:
    """Return what *run* is known by in the log."""
    request = run.request
    return {
        "request_id": request.request_id,
        "run_id": run.id,
        "agent": request.agent.id,
        "principal": request.principal.id,
    }


def ended(run: Run, metrics: Metrics) -> None:
    """Count *run*, and write its line."""
    count(run, metrics)
    write_line(run)


def count(run: Run, metrics: Metrics) -> None:
    """Count *run*."""
    assert run.finished_at is not None
    first_ms = run.first_delta_ms
    metrics.run_ended(
        run.request.agent.id,
        run.state,
        waited_s=(run.started_at or run.finished_at) - run.created_at,
        first_delta_s=None if first_ms is None else first_ms / 1000,
        total_s=run.finished_at - run.created_at,
        prompt_tokens=run.usage.prompt_tokens,
        completion_tokens=run.usage.completion_tokens,
    )


def write_line(run: Run) -> None:
    """Write the log line of *run*."""
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
        "tool_calls": run.tool_calls,
    }
    _log.info("run", extra={"fields": fields})
