"""One JSON object a line on standard error: what the gateway did, never what was said.

``setup`` is called by the commands; an embedder's own logging is left alone.
Loggers: ``edwin.runs`` (a line per run), ``edwin.access`` (a line per request that
made no run), ``edwin`` (everything else).
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import orjson


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON line; ``extra={"fields": {...}}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= record.__dict__.get("fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def setup(level: int = logging.INFO) -> None:
    """Send every record of *level* and above to standard error, as JSON.

    For a process of Edwin's own: who calls the logger, and in which thread, is no
    longer looked up for any record.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What no line of ours shows is half of what a line costs; the switches are those
    # of "Optimization" in the documentation of logging.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # Tornado writes one line per request here; Edwin's own lines say more.
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    # The MCP SDK's write what was said, and stacks; its owner says what matters.
    for name in ("mcp", "client", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def milliseconds(start_at: float, end_at: float | None = None) -> int:
    """Return the whole milliseconds from *start_at* to *end_at* (default: now)."""
    return round(((time.time() if end_at is None else end_at) - start_at) * 1000)
