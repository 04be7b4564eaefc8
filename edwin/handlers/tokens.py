"""``/v1/tokens``: who has a token of its own; for those with the scope admin."""

from __future__ import annotations

from edwin import people
from edwin.handlers.api import ApiHandler


class TokensHandler(ApiHandler):
    """Answer ``GET`` and ``POST /v1/tokens``."""

    route = "/v1/tokens"
    action = "admin"

    def admit(self) -> None:
        """Return if the request may come in; making a token takes a body."""
        if self.request.method == "POST":
            self.schema = "tokens/create"
        super().admit()

    def get(self) -> None:
        """List them, without the tokens themselves."""
        self.send_json(people.page(self.gateway))

    head = get

    async def post(self) -> None:
        """Make one; its token is in this answer alone."""
        made = await people.create(self.gateway, self.document, self.source)
        self.set_status(201)
        self.send_json(made)


class TokenHandler(ApiHandler):
    """Answer ``DELETE /v1/tokens/{id}``."""

    route = "/v1/tokens/{id}"
    action = "admin"

    async def delete(self, id: str) -> None:
        """Let its holder in no more."""
        self.send_json(await people.revoke(self.gateway, id, self.source))


class TokenRotateHandler(ApiHandler):
    """Answer ``POST /v1/tokens/{id}/rotate``."""

    route = "/v1/tokens/{id}/rotate"
    action = "admin"

    async def post(self, id: str) -> None:
        """Put a new token in place of the old one."""
        self.send_json(await people.rotate(self.gateway, id, self.source))
