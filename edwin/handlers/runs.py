"""``/v1/runs``: which runs there are, one of them, its end, and runs of one's own."""

from __future__ import annotations

from edwin import ledger
from edwin.errors import InvalidRequest, StorageUnavailable
from edwin.handlers import query
from edwin.handlers.api import ApiHandler
from edwin.handlers.asking import AskingHandler
from edwin.handlers.give import give
from edwin.runs.run import Run
from edwin.types import RunFailed


class RunsHandler(AskingHandler):
    """Answer ``GET /v1/runs`` and ``POST /v1/runs``."""

    route = "/v1/runs"
    action = "runs:read"

    def admit(self) -> None:
        """Return if the request may come in; beginning a run takes more than a look."""
        if self.request.method == "POST":
            self.action = "runs:create"
            self.endpoint = "chat_completions"
            self.schema = "openai/chat_completion_request"
        super().admit()

    async def get(self) -> None:
        """List runs, newest first."""
        assert self.principal is not None
        wanted = ledger.Wanted(
            agent=query.text(self, "agent"),
            session=query.text(self, "session"),
            state=query.choice(self, "state", ledger.STATES),
        )
        page = await ledger.page(
            self.gateway,
            self.principal,
            wanted,
            limit=query.limit(self),
            after=query.text(self, "after"),
        )
        await give(self, page)

    head = get

    async def post(self) -> None:
        """Begin a run that goes on by itself, and answer when it is sure to."""
        assert self.principal is not None
        document = self.document
        if document.get("stream"):
            raise InvalidRequest(
                "Unsupported value: 'stream': the events of a run are at "
                "/v1/runs/{id}/events.",
                param="stream",
                code="unsupported_value",
            )
        request = self.chat_request(document, detached=True)
        self.run = run = await self.submit(request)
        await self._accepted(run)
        self.set_run_headers(run)
        self.set_header("Location", f"{self.request.path}/{run.id}")
        self.set_status(202)
        await give(self, await ledger.run(self.gateway, self.principal, run.id))

    async def _accepted(self, run: Run) -> None:
        """Return when what the client sent is durable.

        Raises:
            EdwinError: If it cannot be made so, or the run has failed by then.

        """
        try:
            await run.accepted()
        except StorageUnavailable as error:
            if run.request.request_id == self.request_id:
                # The client is told that it failed: it must not happen all the same.
                run.cancel(error)
            raise
        if isinstance(run.end, RunFailed):
            raise run.end.error


class OneRunHandler(ApiHandler):
    """Answer ``GET /v1/runs/{id}``."""

    route = "/v1/runs/{id}"
    action = "runs:read"

    async def get(self, run_id: str) -> None:
        """Show one run."""
        assert self.principal is not None
        await give(self, await ledger.run(self.gateway, self.principal, run_id))

    head = get


class RunCancelHandler(ApiHandler):
    """Answer ``POST /v1/runs/{id}/cancel``."""

    route = "/v1/runs/{id}/cancel"
    action = "runs:cancel"

    async def post(self, run_id: str) -> None:
        """End the run, and show it when it has ended."""
        assert self.principal is not None
        run = await ledger.cancel(self.gateway, self.principal, run_id, self.source)
        await give(self, run)
