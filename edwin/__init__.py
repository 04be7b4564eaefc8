"""Edwin Gateway: agents behind one port that speaks the OpenAI API.

A request walks one corridor, and the rooms stand in this order::

    socket     handlers/    one request or one WebSocket; thin
    auth       auth.py      who is it, and may they
    validate   validate.py  is the document right, and where is it not
    route      routing.py   model and headers -> agent
    session    sessions/    user -> key; transcript; what the model is to read
    run        runs/        one run after another in a session, cancelled at once
    executor   executor/    turns, retries, fallbacks, limits
    provider   providers/   the model's own API
    wire       wire/        what the client reads: bodies, chunks, frames

``dispatch.submit`` is the one way in; ``gateway.Gateway`` makes and owns everything
that lives longer than a request.

    from edwin import Gateway, make_app, mount, routes
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Gateway", "make_app", "mount", "routes"]

_HOMES = {
    "Gateway": "edwin.gateway",
    "make_app": "edwin.app",
    "mount": "edwin.app",
    "routes": "edwin.app",
}


def __getattr__(name: str) -> Any:
    # Lazily (PEP 562): ``import edwin`` loads no third-party module, and
    # ``python -m edwin.gateway`` does not execute the module twice.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edwin' has no attribute {name!r}")
