"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from collections.abc import Mapping

from edwin.auth import may_use
from edwin.handlers.api import ApiHandler
from edwin.routing import model_names, resolve
from edwin.types import Agent
from edwin.wire.openai import model_list, model_object


def agents_of(handler: ApiHandler) -> Mapping[str, Agent]:
    """Return the agents that the request's principal may use."""
    assert handler.principal is not None
    principal = handler.principal
    if principal.agents is None and principal.models is None:
        return handler.config.agents
    return {
        id: agent
        for id, agent in handler.config.agents.items()
        if may_use(principal, agent)
    }


class ModelsHandler(ApiHandler):
    """Answer ``GET /v1/models``: every name a request may call a model by."""

    route = "/v1/models"
    action = "models:read"
    endpoint = "chat_completions"

    def get(self) -> None:
        """List the models."""
        names = model_names(agents_of(self))
        self.send_json(model_list(names, created=self.gateway.created))

    head = get


class ModelHandler(ApiHandler):
    """Answer ``GET /v1/models/{id}``."""

    route = "/v1/models/{id}"
    action = "models:read"
    endpoint = "chat_completions"

    def get(self, name: str) -> None:
        """Describe one model, by any name that a request may use."""
        resolve(agents_of(self), model=name, header=None)
        self.send_json(model_object(name, created=self.gateway.created))

    head = get
