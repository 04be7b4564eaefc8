"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from edwin.handlers.api import ApiHandler
from edwin.routing import model_names, resolve
from edwin.wire.openai import model_list, model_object


class ModelsHandler(ApiHandler):
    """Answer ``GET /v1/models``: every name a request may call a model by."""

    route = "/v1/models"
    action = "models:read"
    endpoint = "chat_completions"

    def get(self) -> None:
        """List the models."""
        names = model_names(self.config.agents)
        self.send_json(model_list(names, created=self.gateway.created))

    head = get


class ModelHandler(ApiHandler):
    """Answer ``GET /v1/models/{id}``."""

    route = "/v1/models/{id}"
    action = "models:read"
    endpoint = "chat_completions"

    def get(self, name: str) -> None:
        """Describe one model, by any name that a request may use."""
        resolve(self.config.agents, model=name, header=None)
        self.send_json(model_object(name, created=self.gateway.created))

    head = get
