"""Another configuration while the gateway serves: all of it, or none.

Connections and runs go on.  A request, and its run, keep the configuration they began
with; what was allowed and is not any more is ended.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edwin import agents
from edwin.config import Config
from edwin.tls import configured

if TYPE_CHECKING:
    from edwin.gateway import Gateway

_log = logging.getLogger("edwin")


async def reload(gateway: Gateway, config: Config) -> list[str]:
    """Go by *config* from the next request on.

    Returns:
        The keys whose change takes a restart, and is left out until then.

    Raises:
        ConfigError: If a provider's class, a tool, an agent in Python, or a
            certificate cannot be used; all is as it was.
        EdwinError: If a provider does not start; likewise.

    """
    tls = configured(config.gateway.tls)
    code = agents.load(config.agents)
    unused = gateway.executor.unused
    async with gateway.tools.changing(config.agents) as commit:
        await gateway.providers.change(config.providers, idle=unused)
        commit(unused)
    gateway.use(config, tls, code)
    gateway.enforce()
    left_out = _left_out(gateway.began_with, config)
    gateway.audit.write("config.reloaded")
    _log.info("the configuration was reloaded")
    for key in left_out:
        _log.warning("%s has changed: that takes a restart", key)
    return left_out


def _left_out(old: Config, new: Config) -> list[str]:
    was, now = old.gateway, new.gateway
    keys = {
        "gateway.bind": was.bind != now.bind,
        "gateway.port": was.port != now.port,
        "gateway.stateDir": was.state_dir != now.state_dir,
        "gateway.sessionSecrets": was.session_secrets != now.session_secrets,
        "gateway.tls": (was.tls is None) != (now.tls is None),
        "gateway.monitor": was.monitor != now.monitor,
        "gateway.http.idleSeconds": was.http.idle_seconds != now.http.idle_seconds,
        "gateway.http.bodySeconds": was.http.body_seconds != now.http.body_seconds,
    }
    return [key for key, changed in keys.items() if changed]
