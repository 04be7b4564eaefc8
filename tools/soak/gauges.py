"""Read from outside what a gateway holds, and what its store does."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from tools.soak.callers import Callers
from tools.soak.growth import Sample, Stored
from tools.soak.house import House

# ESTABLISHED, in include/net/tcp_states.h of Linux.
_OPEN = "01"
_GAUGE = re.compile(r"^(edwin_[a-z_]+) ([0-9.e+]+)$", re.MULTILINE)


class Gauges:
    """Looks at one gateway.

    Args:
        house: Where it lives.
        callers: Read its page ``/metrics``.

    """

    def __init__(self, house: House, callers: Callers) -> None:
        self._house = house
        self._callers = callers
        self._began_at = time.monotonic()

    def begin(self) -> None:
        """Count the time from now on."""
        self._began_at = time.monotonic()

    async def sample(self) -> Sample:
        """Return what the gateway holds now."""
        gauges = dict(_GAUGE.findall(await self._callers.text("/metrics")))
        tasks = gauges.get("edwin_tasks")
        running = float(gauges["edwin_runs_running"])
        waiting = float(gauges["edwin_runs_waiting"])
        return Sample(
            at_s=time.monotonic() - self._began_at,
            rss_bytes=self._house.gateway.memory()["Rss"],
            descriptors=len(os.listdir(f"/proc/{self._house.gateway.pid}/fd")),
            connections=self._connections(),
            tasks=None if tasks is None else int(float(tasks)),
            runs=int(running + waiting),
            answers=int(float(gauges["edwin_answers_open"])),
        )

    def _connections(self) -> int:
        """Return how many connections are open at their other end too."""
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        sockets = (line.split() for line in lines)
        here = f"0100007F:{self._house.gateway.port:04X}"
        there = f"0100007F:{self._house.upstream_port:04X}"
        return sum(
            (words[1] == here or words[2] == there) and words[3] == _OPEN
            for words in sockets
        )

    def stored(self) -> Stored:
        """Return what the store holds now."""
        ((runs,),) = self._house.read("SELECT count(*) FROM runs")
        ((sessions, total, most),) = self._house.read(
            "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(messages), 0) "
            "FROM (SELECT count(*) AS messages, sum(length(body)) AS bytes "
            "FROM messages GROUP BY session_id)"
        )
        return Stored(sessions, total, most, runs, self._house.store_bytes())
