"""How many runs a process can carry at once: each needs two connections."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace

from edwin.config import RunsConfig

# The store, the log, the listener, clients that only look, and a host's own.
RESERVED = 128

_log = logging.getLogger("edwin")


def within_descriptors(limits: RunsConfig) -> RunsConfig:
    """Return *limits* with as many runs at once as there are file descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    possible = max(1, (soft - RESERVED) // 2)
    if limits.max_concurrent <= possible:
        return limits
    _log.warning(
        "gateway.runs.maxConcurrent is lowered from %d to %d: the process may open %d "
        "files; raise that limit (ulimit -n, LimitNOFILE)",
        limits.max_concurrent,
        possible,
        soft,
    )
    return replace(limits, max_concurrent=possible)
