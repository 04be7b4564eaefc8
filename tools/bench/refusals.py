"""Refusals that are asked for: what is wrong with the request, and what must come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tools.bench.answers import Answer
from tools.bench.figures import PATIENCE_S, Stage
from tools.bench.load import Job
from tools.bench.processes import TOKEN
from tools.bench.question import request

_SILENT = Answer(deltas=1, gap_s=0.0, silent=True)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a gateway refuses what a floor passes on.

    Attributes:
        status: What the gateway must answer with.
        code: The error's code, which must stand in the answer.
        token: What the client says it may come in with.
        fields: Fields of the document that are added or replaced.
        busy: Whether a silent stream of the same user is open all the while, so that
            the session takes no more.

    """

    status: int
    code: str
    token: str = TOKEN
    fields: Mapping[str, Any] = field(default_factory=dict)
    busy: bool = False

    def job(self, port: int, connections: int, user: str) -> Job:
        """Return what the load is to do with the gateway on *port*."""
        asked = self._fields(user)
        return Job(
            port=port,
            request=request(port, stream=False, token=self.token, **asked),
            connections=connections,
            status=self.status,
            mark=f'"{self.code}"',
            deltas=1,
        )

    @contextmanager
    def kept_up(self, stage: Stage, kinds: Sequence[str], user: str) -> Iterator[None]:
        """Hold the session of *user* busy on the servers of these *kinds*, if need be.

        The upstream has to be told afterwards how it answers.
        """
        held = [f"{kind}, busy" for kind in kinds if self.busy]
        if held:
            stage.upstream.ask(asdict(_SILENT), patience_s=PATIENCE_S)
        for kind, name in zip(kinds, held, strict=False):
            port = stage.server(kind).port
            job = Job(
                port=port,
                request=request(port, stream=True, **self._fields(user)),
                connections=1,
                deltas=1,
                silent=True,
            )
            command = {"do": "open", "name": name} | asdict(job)
            stage.load.ask(command, patience_s=PATIENCE_S)
        yield
        for name in held:
            command = {"do": "close", "name": name}
            stage.load.ask(command, patience_s=PATIENCE_S)

    def _fields(self, user: str) -> dict[str, Any]:
        return {**self.fields, **({"user": user} if self.busy else {})}
