"""The whole URL table on one page, and how it is mounted into a host's application::

mount(app, gateway, "/ai")   # POST /ai/v1/chat/completions, WS /ai/ws, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tornado.web import Application

from edwin.handlers.api import UnknownUrlHandler
from edwin.handlers.chat import ChatCompletionsHandler
from edwin.handlers.contract import OpenApiHandler, SchemaHandler
from edwin.handlers.events import RunEventsHandler
from edwin.handlers.health import HealthHandler, ReadyHandler
from edwin.handlers.metrics import MetricsHandler
from edwin.handlers.models import ModelHandler, ModelsHandler
from edwin.handlers.runs import OneRunHandler, RunCancelHandler, RunsHandler
from edwin.handlers.sessions import (
    SessionHandler,
    SessionResetHandler,
    SessionsHandler,
)
from edwin.handlers.socket import SocketHandler
from edwin.handlers.tokens import TokenHandler, TokenRotateHandler, TokensHandler

if TYPE_CHECKING:
    from edwin.gateway import Gateway

Rule = tuple[str, type, dict[str, Any]]


def routes(gateway: Gateway, prefix: str = "") -> list[Rule]:
    """Return Edwin's rules, for a host that wants them among its own.

    The host's settings apply to them.  There is no rule for unknown URLs: those are
    the host's.

    Args:
        gateway: Answers the requests; started and stopped by the host.
        prefix: Path that stands before every URL, without a slash at its end.

    """
    table: list[tuple[str, type]] = [
        (r"/v1/chat/completions", ChatCompletionsHandler),
        (r"/v1/models", ModelsHandler),
        (r"/v1/models/(.+)", ModelHandler),
        (r"/v1/runs", RunsHandler),
        (r"/v1/runs/(.+)/events", RunEventsHandler),
        (r"/v1/runs/(.+)/cancel", RunCancelHandler),
        (r"/v1/runs/(.+)", OneRunHandler),
        (r"/v1/sessions", SessionsHandler),
        (r"/v1/sessions/item", SessionHandler),
        (r"/v1/sessions/reset", SessionResetHandler),
        (r"/v1/tokens", TokensHandler),
        (r"/v1/tokens/(.+)/rotate", TokenRotateHandler),
        (r"/v1/tokens/(.+)", TokenHandler),
        (r"/healthz", HealthHandler),
        (r"/readyz", ReadyHandler),
        (r"/metrics", MetricsHandler),
        (r"/openapi\.json", OpenApiHandler),
        (r"/schemas/(.+)", SchemaHandler),
        (r"/ws", SocketHandler),
    ]
    return [(prefix + path, handler, {"gateway": gateway}) for path, handler in table]


def make_app(gateway: Gateway, prefix: str = "") -> Application:
    """Return an application of Edwin's own, which answers unknown URLs as JSON."""
    rules = [*routes(gateway, prefix), (r".*", UnknownUrlHandler, {"gateway": gateway})]
    # Edwin writes a line of its own for each request.
    return Application(rules, log_function=lambda handler: None)


def mount(app: Application, gateway: Gateway, prefix: str, host: str = r".*") -> None:
    """Put Edwin into the host application *app*, under *prefix*.

    Edwin keeps settings and error pages of its own, and everything below the prefix
    is its own, whatever catch-all rule the host has.

    Args:
        app: The host's application.
        gateway: Answers the requests; started and stopped by the host.
        prefix: Path such as ``/ai``, without a slash at its end.
        host: Pattern of the host names it is served under.

    """
    app.add_handlers(host, [(prefix + r"/.*", make_app(gateway, prefix))])
