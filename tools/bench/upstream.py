"""The provider behind both servers: prepared bytes over raw sockets, nothing else.

It reads a request only to know where it ends, and always streams; only by the path
:data:`AS_ASKED` a request for a whole answer gets one.  A line of JSON on its standard
input, the fields of an :class:`~tools.bench.answers.Answer`, says how it answers from
then on; it prints its port first, then ``true`` for each one read.  It ends with its
input.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections import deque

from tools.bench.answers import Answer

AS_ASKED = "/as-asked"
_READ_BYTES = 262_144
_CHOOSY = f"POST {AS_ASKED}/".encode()
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_LENGTH = b"content-length:"
# Who looks around, as LiteLLM does for a list of models, finds nothing.
_GET = b"GET "
_NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Upstream:
    """A server of one thread and one epoll.

    Sockets block: an answer is small enough for the kernel to take it whole.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, socket.socket] = {}
        self._requests: dict[int, bytes] = {}
        # One gap for all streams: who is put in last is due last.
        self._due: deque[tuple[float, socket.socket, list[bytes], int]] = deque()
        self.answer(Answer(deltas=1))

    def answer(self, answer: Answer) -> None:
        """Answer with *answer* from now on; streams under way are given up."""
        self._due.clear()
        self._pieces = answer.pieces()
        self._whole = [answer.whole()]
        self._gap_s = answer.gap_s or 0.0

    def serve(self) -> None:
        """Serve until standard input ends."""
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            for descriptor, _ in self._epoll.poll(self._patience()):
                if descriptor in self._clients:
                    self._read(descriptor)
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif not self._obey():
                    return
            self._send_due()

    def _patience(self) -> float:
        if not self._due:
            return -1
        return max(0.0, self._due[0][0] - time.monotonic())

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[client.fileno()] = client
        self._epoll.register(client, select.EPOLLIN)

    def _obey(self) -> bool:
        line = sys.stdin.readline()
        if line:
            self.answer(Answer(**json.loads(line)))
            print("true", flush=True)
        return bool(line)

    def _read(self, descriptor: int) -> None:
        client = self._clients[descriptor]
        try:
            data = client.recv(_READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._epoll.unregister(client)
            del self._clients[descriptor]
            self._requests.pop(descriptor, None)
            client.close()
            return
        data = self._requests.pop(descriptor, b"") + data
        if _is_whole(data):
            self._send(client, self._answer_to(data), 0)
        else:
            self._requests[descriptor] = data

    def _answer_to(self, data: bytes) -> list[bytes]:
        if data.startswith(_CHOOSY) and not _STREAM.search(data):
            return self._whole
        return [_NOTHING] if data.startswith(_GET) else self._pieces

    def _send_due(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._due)):
            if self._due[0][0] > now:
                return
            _, client, pieces, place = self._due.popleft()
            self._send(client, pieces, place)

    def _send(self, client: socket.socket, pieces: list[bytes], place: int) -> None:
        if client.fileno() < 0:
            return
        try:
            client.sendall(pieces[place])
        except ConnectionError:
            return
        if place + 1 < len(pieces):
            due_at = time.monotonic() + self._gap_s
            self._due.append((due_at, client, pieces, place + 1))


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    place = head.lower().find(_LENGTH)
    if not end:
        return False
    if place < 0 and head.startswith(_GET):
        return True
    if place < 0:
        raise ValueError(f"a request without Content-Length: {head[:500]!r}")
    return len(body) >= int(head[place + len(_LENGTH) :].split(b"\r\n", 1)[0])


def main() -> None:
    """Serve on a free port, which is printed."""
    upstream = Upstream()
    print(upstream.port, flush=True)
    upstream.serve()


if __name__ == "__main__":
    main()
