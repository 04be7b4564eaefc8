"""Make a configuration of a file, or of a dictionary in the shape of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edwin.config import principals, rules, tools
from edwin.config.file import MAX_BYTES, parse
from edwin.config.layers import FILE, layered
from edwin.config.snapshot import (
    AuthConfig,
    BreakerConfig,
    ChatCompletionsConfig,
    Config,
    CorsConfig,
    EndpointsConfig,
    GatewayConfig,
    HttpConfig,
    LimiterConfig,
    MetricsConfig,
    MonitorConfig,
    NamedPrincipal,
    ProviderConfig,
    RunsConfig,
    SessionsConfig,
    TlsConfig,
)
from edwin.config.tools import PYTHON
from edwin.config.tree import Node, find, from_python, merge, plain
from edwin.errors import ConfigError
from edwin.origins import normal
from edwin.types import Agent, Caps


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
) -> Config:
    """Return the configuration of this process.

    Args:
        path: The file; None: EDWIN_CONFIG, else ``./edwin.yaml``, else
            ``~/.edwin/edwin.yaml``, else the defaults alone.
        environ: The environment; its HOME is what ``~`` stands for.
        overrides: Values by dotted key (``gateway.port``), laid over the file; those
            that are None are left out.
        cwd: Where relative paths start; None: the working directory.

    Raises:
        ConfigError: If a named file cannot be read, or anything is wrong in it; one
            line each, at most 20.

    """
    cwd = cwd or Path.cwd()
    named = str(path) if path is not None else environ.get("EDWIN_CONFIG")
    candidates = [named] if named else ["edwin.yaml", "~/.edwin/edwin.yaml"]
    for candidate in candidates:
        file = _absolute(candidate, cwd, environ)
        content = _read(file, candidate, required=bool(named))
        if content is not None:
            tree = parse(content, candidate, FILE)
            return _config(tree, environ, overrides, cwd, file)
    return from_document({}, environ=environ, overrides=overrides, cwd=cwd)


def from_document(
    document: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
) -> Config:
    """Return the configuration that *document* is, for embedders and tests.

    Args:
        document: What the file would hold, with its keys: the defaults lie under it.
        environ: What ``${NAME}`` and the fallbacks for secrets are looked up in;
            None: nothing, not even the process's own.
        overrides: As for :func:`load`.
        cwd: As for :func:`load`.

    Raises:
        ConfigError: If anything is wrong, as for :func:`load`.

    """
    tree = from_python(document, "configuration", FILE)
    if not isinstance(tree.value, dict):
        raise ConfigError("configuration: is not a map; use the shape of the file")
    return _config(tree, environ or {}, overrides, cwd or Path.cwd(), None)


def _read(file: Path, name: str, *, required: bool) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if not required:
            return None
        raise ConfigError(f"{name}: does not exist; name a file that does") from None
    except OSError as error:
        reason = (error.strerror or "error").lower()
        text = f"{name}: cannot be read ({reason}); make it a readable file"
        raise ConfigError(text) from None
    except ValueError:
        raise ConfigError(f"{name!r}: is not a path; name a file") from None


def _absolute(name: str, cwd: Path, environ: Mapping[str, str]) -> Path:
    """Return the path *name*, with ``~`` expanded, from *cwd*."""
    if name == "~" or name.startswith("~/"):
        name = environ.get("HOME", os.path.expanduser("~")) + name[1:]
    return Path(os.path.abspath(cwd / os.path.expanduser(name)))


def _config(
    tree: Node,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None,
    cwd: Path,
    source: Path | None,
) -> Config:
    tree = layered(tree, environ, overrides or {})
    document = plain(tree)
    gateway = document["gateway"]
    state_dir = _absolute(gateway["stateDir"], cwd, environ)
    secret = rules.secret(tree, environ)
    mode = gateway["auth"]["mode"]
    origin = secret.origin if secret else None
    if mode == "token" and secret is None:
        origin = str(state_dir / "token")
    providers = document["models"]["providers"]
    return Config(
        gateway=GatewayConfig(
            bind=gateway["bind"].strip("[]"),
            port=int(gateway["port"]),
            state_dir=state_dir,
            session_secrets=tuple(gateway["sessionSecrets"]),
            shutdown_seconds=float(gateway["shutdownSeconds"]),
            trusted_proxies=tuple(map(ip_network, gateway["trustedProxies"])),
            tls=_tls(gateway["tls"], cwd, environ),
            auth=_auth(gateway["auth"], secret),
            http=_http(gateway["http"]),
            runs=_runs(gateway["runs"]),
            sessions=_sessions(gateway["sessions"]),
            metrics=MetricsConfig(public=gateway["metrics"]["public"]),
            monitor=MonitorConfig(blocked_ms=int(gateway["monitor"]["blockedMs"])),
        ),
        agents=_agents(tree),
        providers=MappingProxyType(
            {name: _provider(name, item) for name, item in providers.items()}
        ),
        source=source,
        secret_origin=origin,
    )


def _auth(auth: Mapping[str, Any], secret: rules.Secret | None) -> AuthConfig:
    mode = auth["mode"]
    return AuthConfig(
        mode=mode,
        token=secret.value if secret and mode == "token" else None,
        password=secret.value if secret and mode == "password" else None,
        allow_insecure=auth["allowInsecure"],
        limiter=LimiterConfig(exempt_loopback=auth["limiter"]["exemptLoopback"]),
        principals=tuple(
            NamedPrincipal(
                principals.principal(item["id"], item),
                principals.token_digest(item["tokenHash"]),
            )
            for item in auth["principals"]
        ),
        user_header=auth["userHeader"],
        proxy_principal=principals.principal("proxy:", auth["proxyPrincipal"]),
    )


def _http(http: Mapping[str, Any]) -> HttpConfig:
    chat = http["endpoints"]["chatCompletions"]
    headers = dict.fromkeys(name.lower() for name in chat["sessionHeaders"])
    return HttpConfig(
        endpoints=EndpointsConfig(
            ChatCompletionsConfig(
                enabled=chat["enabled"],
                session_from_user=chat["sessionFromUser"],
                session_headers=tuple(headers),
            )
        ),
        max_body_bytes=int(http["maxBodyBytes"]),
        head_delay_ms=int(http["headDelayMs"]),
        keep_alive_seconds=float(http["keepAliveSeconds"]),
        idle_seconds=float(http["idleSeconds"]),
        body_seconds=float(http["bodySeconds"]),
        stall_seconds=float(http["stallSeconds"]),
        server_timing=http["serverTiming"],
        cors=CorsConfig(frozenset(map(normal, http["cors"]["allowedOrigins"]))),
    )


def _tls(
    tls: Mapping[str, Any], cwd: Path, environ: Mapping[str, str]
) -> TlsConfig | None:
    if not tls:
        return None
    return TlsConfig(
        cert_file=_absolute(tls["certFile"], cwd, environ),
        key_file=_absolute(tls["keyFile"], cwd, environ),
    )


def _runs(runs: Mapping[str, Any]) -> RunsConfig:
    return RunsConfig(
        max_concurrent=int(runs["maxConcurrent"]),
        max_queued=int(runs["maxQueued"]),
        max_queued_per_session=int(runs["maxQueuedPerSession"]),
        timeout_seconds=float(runs["timeoutSeconds"]),
        grace_seconds=float(runs["graceSeconds"]),
    )


def _sessions(sessions: Mapping[str, Any]) -> SessionsConfig:
    return SessionsConfig(
        max_age_days=float(sessions["maxAgeDays"]),
        idle_reset_minutes=float(sessions["idleResetMinutes"]),
        max_messages=int(sessions["maxMessages"]),
    )


def _agents(tree: Node) -> Mapping[str, Agent]:
    defaults, listed = (
        find(tree, ("agents", "defaults")),
        find(tree, ("agents", "list")),
    )
    assert defaults and listed and isinstance(listed.value, list)
    agents = [_agent(plain(_merged(defaults, item))) for item in listed.value]
    if not any(agent.id == "main" for agent in agents):
        agents.insert(0, _agent(plain(defaults) | {"id": "main"}))
    return MappingProxyType({agent.id: agent for agent in agents})


def _merged(defaults: Node, item: Node) -> Node:
    """Return an agent's entry over the defaults; code has its instructions in it."""
    merged = merge(defaults, item)
    if find(item, ("python",)) and not find(item, ("instructions",)):
        return merge(merged, from_python({"instructions": ""}, "python", FILE))
    return merged


def _agent(item: Mapping[str, Any]) -> Agent:
    python = item.get("python")
    return Agent(
        id=item["id"].lower(),
        model=f"{PYTHON}/{python}" if python else item["model"],
        python=python,
        instructions=item["instructions"],
        params=MappingProxyType(item["params"]),
        caps=Caps(_int(item["caps"].get("maxOutputTokens"))),
        fallbacks=tuple(item["fallbacks"]),
        aliases=tuple(item.get("aliases", ())),
        passthrough=frozenset(item["passthrough"]),
        session_from_user=item.get("sessionFromUser"),
        context_tokens=_int(item.get("contextTokens")),
        max_history_messages=int(item["maxHistoryMessages"]),
        tools=() if python else tuple(map(tools.source, item["tools"])),
        tool_access=tools.access(item["permissions"].get("tools") or {}),
        max_turns=int(item["maxTurns"]),
        max_tool_calls=int(item["maxToolCalls"]),
        structured_retries=int(item["structured"]["retries"]),
    )


def _provider(name: str, item: Mapping[str, Any]) -> ProviderConfig:
    return ProviderConfig(
        name=name,
        api=item["api"],
        base_url=item["baseUrl"].rstrip("/") if "baseUrl" in item else None,
        api_key=item.get("apiKey") or None,
        headers=MappingProxyType(item["headers"]),
        context_tokens=_int(item.get("contextTokens")),
        connect_seconds=float(item["connectSeconds"]),
        first_delta_seconds=float(item["firstDeltaSeconds"]),
        idle_seconds=float(item["idleSeconds"]),
        retries=int(item["retries"]),
        retry_seconds=float(item["retrySeconds"]),
        stream=item["stream"],
        remote_images=item["remoteImages"],
        eager=item["eager"],
        options=MappingProxyType(item["options"]),
        max_concurrent=int(item["maxConcurrent"]),
        breaker=BreakerConfig(
            failures=int(item["breaker"]["failures"]),
            seconds=float(item["breaker"]["seconds"]),
        ),
    )


def _int(value: float | None) -> int | None:
    """Return a whole number as an int: ``100.0`` is one by the schemas' word."""
    return None if value is None else int(value)
