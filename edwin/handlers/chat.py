"""``POST /v1/chat/completions``."""

from __future__ import annotations

from edwin.handlers.asking import AskingHandler


class ChatCompletionsHandler(AskingHandler):
    """Answer ``POST /v1/chat/completions``."""

    route = "/v1/chat/completions"
    schema = "openai/chat_completion_request"
    action = "runs:create"
    endpoint = "chat_completions"

    async def post(self) -> None:
        """Run the agent and give its answer, whole or streamed."""
        assert self.principal is not None
        document = self.document
        request = self.chat_request(document)
        self.run = await self.submit(request)
        model = request.model or f"edwin:{self.run.request.agent.id}"
        if document.get("stream"):
            options = document.get("stream_options") or {}
            wanted = bool(options.get("include_usage"))
            await self.stream(self.run, model=model, include_usage=wanted)
        else:
            await self.whole(self.run, model=model)
