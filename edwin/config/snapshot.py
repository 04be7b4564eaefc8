"""The configuration as everybody is handed it: immutable, typed, and complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edwin.addresses import Network
from edwin.types import Agent, Principal


@dataclass(frozen=True, slots=True)
class LimiterConfig:
    """Who may guess secrets: nobody, or this machine itself."""

    exempt_loopback: bool


@dataclass(frozen=True, slots=True)
class NamedPrincipal:
    """A principal with a token of its own, of which the SHA-256 is known."""

    principal: Principal
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may come in.

    Attributes:
        mode: ``token``, ``password``, ``trusted-proxy`` or ``none``.
        token: In mode token the configured one; None: ``<state_dir>/token``.
        password: In mode password always there, otherwise None.
        allow_insecure: A short secret is allowed on any address.
        principals: Who else may, each with a token.
        user_header: In mode trusted-proxy the header that names the user.
        proxy_principal: In mode trusted-proxy what every user may; its id is no one's.

    """

    mode: str
    token: str | None = field(repr=False)
    password: str | None = field(repr=False)
    allow_insecure: bool
    limiter: LimiterConfig
    principals: tuple[NamedPrincipal, ...]
    user_header: str
    proxy_principal: Principal


@dataclass(frozen=True, slots=True)
class ChatCompletionsConfig:
    """The endpoint ``/v1/chat/completions``; *session_headers* are lower case."""

    enabled: bool
    session_from_user: bool
    session_headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointsConfig:
    """The endpoints that can be switched on."""

    chat_completions: ChatCompletionsConfig


@dataclass(frozen=True, slots=True)
class CorsConfig:
    """Which web pages may use the gateway: their origins, as browsers write them."""

    allowed_origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What is served over HTTP.

    Attributes:
        head_delay_ms: When a stream's head goes out, answered or not.
        keep_alive_seconds: Silence after which a stream has a sign of life.
        idle_seconds: How long a connection may take to send the head of a request.
        body_seconds: How long a request's body may take.
        stall_seconds: How long a client may take nothing of what is written to it.
        server_timing: Answers say in a header where their time went.

    """

    endpoints: EndpointsConfig
    max_body_bytes: int
    head_delay_ms: int
    keep_alive_seconds: float
    idle_seconds: float
    body_seconds: float
    stall_seconds: float
    server_timing: bool
    cors: CorsConfig


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files, in PEM, that HTTPS is served with; absolute."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class RunsConfig:
    """How many runs at once, how many may wait, and for how long.

    Attributes:
        grace_seconds: How long a run with an idempotency key goes on without a reader.

    """

    max_concurrent: int
    max_queued: int
    max_queued_per_session: int
    timeout_seconds: float
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """What becomes of sessions with time; 0: nothing.

    Attributes:
        max_age_days: Days without use after which a session is deleted.
        idle_reset_minutes: Minutes without use after which a session begins anew.
        max_messages: Messages that are kept of a session; the oldest go first.

    """

    max_age_days: float
    idle_reset_minutes: float
    max_messages: int


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Whether ``/metrics`` is for everybody."""

    public: bool


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """How long the loop may stand still before the log says so; 0: not watched."""

    blocked_ms: int


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The process: where it listens and what it keeps.

    Attributes:
        bind: IP address without brackets, ``localhost``, or a host name.
        port: 0 takes any free one.
        state_dir: Absolute; need not exist.
        session_secrets: The first makes keys; empty: ``<state_dir>/session-secret``.
        shutdown_seconds: How long runs may go on after a stop was asked for.
        trusted_proxies: Networks whose ``X-Forwarded-For`` is believed.
        tls: None: plain HTTP.

    """

    bind: str
    port: int
    state_dir: Path
    session_secrets: tuple[str, ...] = field(repr=False)
    shutdown_seconds: float
    trusted_proxies: tuple[Network, ...]
    tls: TlsConfig | None
    auth: AuthConfig
    http: HttpConfig
    runs: RunsConfig
    sessions: SessionsConfig
    metrics: MetricsConfig
    monitor: MonitorConfig


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """After how many failures in a row a provider is not called, and how long."""

    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider of models.

    Attributes:
        name: What stands before the first slash of an agent's model.
        api: ``openai-completions``, ``anthropic-messages``, ``local``, ``scripted``,
            ``package.module:Class``.
        base_url: Without a slash at its end; always there for openai-completions.
        context_tokens: None: the provider's own.
        remote_images: Image links go up, and the provider fetches them.
        options: The provider's own settings, as they stand in the file.
        max_concurrent: Calls under way at once; 0: any number.

    """

    name: str
    api: str
    base_url: str | None
    api_key: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    context_tokens: int | None
    connect_seconds: float
    first_delta_seconds: float
    idle_seconds: float
    retries: int
    retry_seconds: float
    stream: bool
    remote_images: bool
    eager: bool
    options: Mapping[str, Any] = field(repr=False)
    max_concurrent: int = 0
    breaker: BreakerConfig = BreakerConfig(failures=20, seconds=15.0)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a gateway runs by.

    Attributes:
        agents: By lower-case id, as listed; ``main`` comes first if it is not listed.
        providers: By name; ``local`` is always there.
        source: The file it was read from, or None.
        secret_origin: Where the secret was given, in words, or None.

    """

    gateway: GatewayConfig
    agents: Mapping[str, Agent]
    providers: Mapping[str, ProviderConfig]
    source: Path | None
    secret_origin: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return what would run, in JSON's types, without any secret."""
        gateway = self.gateway
        host = f"[{gateway.bind}]" if ":" in gateway.bind else gateway.bind
        chat = gateway.http.endpoints.chat_completions
        return {
            "source": str(self.source) if self.source else None,
            "address": f"{'https' if gateway.tls else 'http'}://{host}:{gateway.port}",
            "stateDir": str(gateway.state_dir),
            "auth": {"mode": gateway.auth.mode, "secret": self.secret_origin},
            "sessionSecrets": len(gateway.session_secrets),
            "endpoints": {
                "chatCompletions": {
                    "enabled": chat.enabled,
                    "sessionFromUser": chat.session_from_user,
                    "sessionHeaders": list(chat.session_headers),
                }
            },
            "agents": {
                agent.id: {
                    "model": agent.model,
                    "fallbacks": list(agent.fallbacks),
                    "aliases": list(agent.aliases),
                }
                for agent in self.agents.values()
            },
            "providers": {
                provider.name: {
                    "api": provider.api,
                    "baseUrl": provider.base_url,
                    "apiKey": "hidden" if provider.api_key else None,
                    "headers": dict.fromkeys(provider.headers, "hidden"),
                    "options": dict.fromkeys(provider.options, "hidden"),
                }
                for provider in self.providers.values()
            },
        }
