"""The configuration: one immutable snapshot, read from a file or a dictionary.

Read once at start; every room is handed the part it needs::

    config = load(environ=os.environ)
    config.agents["main"].model

``sources`` is the front door; ``file`` reads YAML into the nodes of ``tree``,
``variables`` fills in the environment's, ``layers`` lays the file over the defaults,
``schema``, ``check`` and ``rules`` hold it against what is right, and ``snapshot`` is
what comes out.
"""

from edwin.config.principals import principal as as_principal
from edwin.config.snapshot import (
    AuthConfig,
    ChatCompletionsConfig,
    Config,
    EndpointsConfig,
    GatewayConfig,
    HttpConfig,
    NamedPrincipal,
    ProviderConfig,
    RunsConfig,
    SessionsConfig,
)
from edwin.config.sources import from_document, load

__all__ = [
    "AuthConfig",
    "ChatCompletionsConfig",
    "Config",
    "EndpointsConfig",
    "GatewayConfig",
    "HttpConfig",
    "NamedPrincipal",
    "ProviderConfig",
    "RunsConfig",
    "SessionsConfig",
    "as_principal",
    "from_document",
    "load",
]
