"""The load: connections that each send a request when they have the answer to the last.

A process of its own, of one thread and one epoll over raw sockets, which costs a
tenth of what the servers it measures do.  Each line of JSON on its standard input is
a command for the pool it names, and is answered by one line: ``open`` connects and lets
every connection have one answer, ``run`` measures, ``close`` hangs up and tells the
latencies.  It ends with its input.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.bench.answers import MARK

# Stands in the request where every conversation has another user.
USER = "user-of-a-conversation----"
_READ_BYTES = 262_144


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is sent, to whom, by how many.

    Attributes:
        port: Of the server, on 127.0.0.1.
        request: The bytes of a request, as Latin-1 text.
        connections: How many there are, each with one request at a time.
        deltas: How often *mark* stands in an answer.
        mark: What is counted.
        status: Of every answer.
        silent: Whether nothing follows the first delta.
        turns: How many requests a conversation has, where :data:`USER` stands.
        spread_s: Seconds over which the connections begin.

    """

    port: int
    request: str
    connections: int
    deltas: int
    mark: str = MARK.decode()
    status: int = 200
    silent: bool = False
    turns: int = 1
    spread_s: float = 0.0


class Connection:
    """One client: at most one request under way."""

    def __init__(self, job: Job, users: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", job.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.first_at = 0.0
        self._mark = job.mark.encode("latin-1")
        self._marks = job.deltas
        self._head = b"HTTP/1.1 %d " % job.status
        self._parts = job.request.encode("latin-1").split(USER.encode())
        self._turns = job.turns
        self._turn = 0
        self._users = users
        self._user = b""
        self._received = bytearray()
        self._length = 0

    def send(self) -> None:
        """Send the next request."""
        if self._turn % self._turns == 0:
            self._user = next(self._users)
        self._turn += 1
        self._received = bytearray()
        self._length = 0
        self.first_at = 0.0
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._user.join(self._parts))

    def read(self) -> bool:
        """Take in what came; return whether the answer is whole.

        Raises:
            ConnectionError: If the server hung up.

        """
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError(f"closed after {bytes(self._received[:500])!r}")
        received = self._received
        received += data
        if not self.first_at and self._mark in received:
            self.first_at = time.perf_counter()
        if not self._length:
            self._length = _answer_length(received)
        if self._length < 0:
            return received.endswith(b"\r\n0\r\n\r\n")
        return 0 < self._length <= len(received)

    def check(self) -> None:
        """Return if the answer is what it should be.

        Raises:
            ValueError: If it is not.

        """
        received = self._received
        marks = received.count(self._mark)
        if not received.startswith(self._head) or marks != self._marks:
            raise ValueError(f"wrong answer: {bytes(received[:1000])!r}")


def _answer_length(received: bytearray) -> int:
    """Return the bytes of head and body, -1 for one in chunks, 0 if not known yet."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    for line in bytes(received[:end]).lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return end + 4 + int(line[15:])
    return -1


class Pool:
    """The connections to one server.

    Args:
        job: What they do.
        number: Which job it is; no two have users in common.

    """

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._whole_s: list[float] = []
        self._first_s: list[float] = []
        users = _users(number)
        for _ in range(job.connections):
            connection = Connection(job, users)
            self._connections[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, select.EPOLLIN)

    def warm_up(self) -> None:
        """Let every connection have an answer, or the first delta of a silent one."""
        waiting = set(self._connections)
        for connection in self._connections.values():
            connection.send()
        while waiting:
            for descriptor, _ in self._epoll.poll():
                connection = self._connections[descriptor]
                if connection.read():
                    connection.check()
                    waiting.discard(descriptor)
                elif self._job.silent and connection.first_at:
                    waiting.discard(descriptor)

    def run(self, seconds: float) -> dict[str, float]:
        """Send requests for *seconds*, and wait for the last answers.

        Returns:
            How many there were, and how long it took: ``wall_s``, and ``cpu_s`` of
            this process.

        """
        before = len(self._whole_s)
        began, cpu_s = time.perf_counter(), time.process_time()
        until = began + seconds
        step = self._job.spread_s / len(self._connections)
        starts = deque(
            (began + i * step, c) for i, c in enumerate(self._connections.values())
        )
        under_way = 0
        while under_way or starts:
            now = time.perf_counter()
            while starts and starts[0][0] <= now:
                starts.popleft()[1].send()
                under_way += 1
            wait_s = max(0.0, starts[0][0] - now) if starts else -1
            for descriptor, _ in self._epoll.poll(wait_s):
                connection = self._connections[descriptor]
                if not connection.read():
                    continue
                if self._note(connection) < until:
                    connection.send()
                else:
                    under_way -= 1
        return {
            "requests": len(self._whole_s) - before,
            "wall_s": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu_s,
        }

    def _note(self, connection: Connection) -> float:
        """Note how long an answer took; return the time."""
        now = time.perf_counter()
        connection.check()
        self._whole_s.append(now - connection.sent_at)
        self._first_s.append(connection.first_at - connection.sent_at)
        return now

    def close(self) -> dict[str, float]:
        """Hang up; return percentiles over all runs, of whole answers and first deltas.

        They are in milliseconds: ``p50_ms``, ``p99_ms``, ``first_p50_ms``.
        """
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()
        return {
            "p50_ms": _percentile(self._whole_s, 50),
            "p99_ms": _percentile(self._whole_s, 99),
            "first_p50_ms": _percentile(self._first_s, 50),
        }


def _users(job: int) -> Iterator[bytes]:
    """Yield users nobody had before, all of the same length."""
    number = 0
    while True:
        number += 1
        yield b"user-%04d-%016d" % (job, number)


def _percentile(seconds: Sequence[float], percent: int) -> float:
    """Return the *percent*-th percentile of *seconds*, in milliseconds; 0 of none."""
    ordered = sorted(seconds) or [0.0]
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def main() -> None:
    """Obey until standard input ends."""
    pools: dict[str, Pool] = {}
    opened = 0
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("name")
        reply: dict[str, float] = {}
        match command.pop("do"):
            case "open":
                opened += 1
                pools[name] = Pool(Job(**command), opened)
                pools[name].warm_up()
            case "run":
                reply = pools[name].run(**command)
            case "close":
                reply = pools.pop(name).close()
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
