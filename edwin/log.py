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
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def setup(level: int = logging.INFO) -> None:
    """Send every record of *level* and above to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Tornado writes one line per request here; Edwin's own lines say more.
    logging.getLogger("tornado.access").setLevel(logging.ERROR)


def milliseconds(start_at: float, end_at: float | None = None) -> int:
    """Return the whole milliseconds from *start_at* to *end_at* (default: now)."""
    return round(((time.time() if end_at is None else end_at) - start_at) * 1000)
