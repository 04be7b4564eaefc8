"""``GET /openapi.json`` and ``GET /schemas/{id}``: the contract, for everybody."""

from __future__ import annotations

from edwin import resources
from edwin.errors import UnknownUrl
from edwin.handlers.api import ApiHandler
from edwin.handlers.give import give
from edwin.openapi import encoded
from edwin.validate import names


class OpenApiHandler(ApiHandler):
    """Answer ``GET /openapi.json``."""

    route = "/openapi.json"
    public = True

    async def get(self) -> None:
        """Give the document, with the prefix that it is served under."""
        prefix = self.request.path.removesuffix(self.route)
        await give(self, encoded(prefix))

    head = get


class SchemaHandler(ApiHandler):
    """Answer ``GET /schemas/{id}``, as ``/schemas/runs/run.json``."""

    route = "/schemas/{id}"
    public = True

    async def get(self, path: str) -> None:
        """Give a schema as it is shipped."""
        if path.removesuffix(".json") + ".json" != path or path[:-5] not in names():
            raise UnknownUrl("no such schema; docs/clients.md lists them")
        self.set_header("Content-Type", "application/schema+json")
        await give(self, resources.read("schemas", path))

    head = get
