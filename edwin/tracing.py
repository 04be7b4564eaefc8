"""Traces of runs, by OpenTelemetry's API and its conventions for generative AI.

The carrier of a run begins its span, the executor one for each call of a provider.
Where a trace context comes from and where it goes to, it is two headers in a mapping.
Nothing here holds what was said, or who said it.

Without a tracer provider a run costs a look at ``sys.modules``: the API is imported
by whoever provides one, never by the gateway.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from edwin import __version__
from edwin.errors import EdwinError, RunCancelled
from edwin.types import RunRequest, TurnFinished, Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

_API: Final = "opentelemetry.trace"
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_STATE = re.compile(r"[ -~]{1,512}")

_log = logging.getLogger("edwin.tracing")


def incoming(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the trace context that a request came with, as headers; empty: none.

    The span at hand, where an embedder's instrumentation has begun one, else what
    the client sent; what is not W3C's shape counts as not sent.
    """
    if _API in sys.modules:
        from opentelemetry import trace

        current = trace.get_current_span()
        if current.get_span_context().is_valid:
            return _headers(current)
    parent = headers.get("traceparent", "")
    if not _PARENT.fullmatch(parent):
        return {}
    state = headers.get("tracestate", "")
    if not _STATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


class CallTrace:
    """One call, of a provider or of a tool, that nobody traces.

    Attributes:
        headers: The trace context that goes to the provider.

    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def finished(self, turn: TurnFinished) -> None:
        """Note how the provider ended its answer."""

    def end(self, error: BaseException | None = None) -> None:
        """End the call, with the *error* that it failed with."""

    def __enter__(self) -> CallTrace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(error)


class RunTrace:
    """A run that nobody traces; the client's context goes up as it came."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._call = CallTrace(headers)

    def call(self, provider: str, model: str) -> CallTrace:
        """Begin a call of *provider*'s *model*; the caller ends it."""
        return self._call

    def tool(self, name: str, call_id: str) -> CallTrace:
        """Begin a call of the agent's own tool *name*; the caller ends it."""
        return self._call

    def end(
        self, error: EdwinError | None, usage: Usage, ended_at: float | None
    ) -> None:
        """End the run; *ended_at* in unix seconds, None: now."""


UNTRACED: Final = RunTrace({})


class Tracing:
    """Where the spans of one gateway are made.

    Args:
        provider: Whose tracer is used; None: the process's own, once there is one.
        secret: What the sessions' keys are hashed with.
        addresses: Base URL of each provider that has one.

    """

    def __init__(
        self,
        provider: TracerProvider | None = None,
        *,
        secret: bytes = b"",
        addresses: Mapping[str, str | None] | None = None,
    ) -> None:
        self._provider = provider
        self._secret = secret
        self._servers = {
            name: _server(url) for name, url in (addresses or {}).items() if url
        }
        self._tracer: Tracer | None = None

    def run(self, request: RunRequest, *, created_at: float) -> RunTrace:
        """Begin the span of the run that carries out *request*.

        Args:
            request: Whose trace context the span continues.
            created_at: Unix seconds: where the span begins.

        """
        tracer = self._tracer or self._find()
        if tracer is None:
            return RunTrace(request.trace) if request.trace else UNTRACED
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.id": request.agent.id,
            "gen_ai.agent.name": request.agent.id,
            "edwin.run.id": request.run_id,
        }
        if request.stateful:
            attributes["gen_ai.conversation.id"] = self._conversation(request)
        return _TracedRun(tracer, request, attributes, created_at, self._servers)

    def _find(self) -> Tracer | None:
        """Return the tracer to use, or None while there is no use in one."""
        provider = self._provider
        if provider is None and _API not in sys.modules:
            return None
        from opentelemetry import trace

        if provider is None:
            provider = trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider):
                return None
        tracer = provider.get_tracer("edwin", __version__)
        if isinstance(tracer, trace.NoOpTracer):
            return None
        self._tracer = tracer
        return tracer

    def _conversation(self, request: RunRequest) -> str:
        """Return a name for the session; a key may hold what a client calls a user."""
        name = "\0".join(("edwin/trace/v1", *request.session))
        return hmac.digest(self._secret, name.encode(), "sha256").hex()[:32]


class _TracedRun(RunTrace):
    def __init__(
        self,
        tracer: Tracer,
        request: RunRequest,
        attributes: Mapping[str, str],
        created_at: float,
        servers: Mapping[str, Mapping[str, Any]],
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import (
            TraceContextTextMapPropagator,
        )

        # An empty context: whatever span the task was made in is not the parent.
        parent = TraceContextTextMapPropagator().extract(request.trace, Context())
        self._tracer = tracer
        self._servers = servers
        self._span = tracer.start_span(
            f"invoke_agent {request.agent.id}",
            parent,
            SpanKind.SERVER,
            attributes,
            start_time=int(created_at * 1e9),
        )
        self._context = set_span_in_context(self._span, Context())

    def call(self, provider: str, model: str) -> CallTrace:
        from opentelemetry.trace import SpanKind

        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            **self._servers.get(provider, {}),
        }
        return _TracedCall(
            self._tracer.start_span(
                f"chat {model}", self._context, SpanKind.CLIENT, attributes
            )
        )

    def tool(self, name: str, call_id: str) -> CallTrace:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
        }
        return _TracedCall(
            self._tracer.start_span(
                f"execute_tool {name}", self._context, attributes=attributes
            )
        )

    def end(
        self, error: EdwinError | None, usage: Usage, ended_at: float | None
    ) -> None:
        _set_usage(self._span, usage)
        _set_error(self._span, error)
        self._span.end(None if ended_at is None else int(ended_at * 1e9))


class _TracedCall(CallTrace):
    def __init__(self, span: Span) -> None:
        super().__init__(_headers(span))
        self._span = span

    def finished(self, turn: TurnFinished) -> None:
        self._span.set_attribute(
            "gen_ai.response.finish_reasons", (turn.finish_reason,)
        )
        _set_usage(self._span, turn.usage or Usage())

    def end(self, error: BaseException | None = None) -> None:
        _set_error(self._span, error)
        self._span.end()


def _headers(span: Span) -> dict[str, str]:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )

    headers: dict[str, str] = {}
    context = set_span_in_context(span, Context())
    TraceContextTextMapPropagator().inject(headers, context)
    return headers


def _set_usage(span: Span, usage: Usage) -> None:
    """Note what was counted; an estimate is no measurement."""
    if not usage.estimated and usage.total_tokens:
        span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)


def _set_error(span: Span, error: BaseException | None) -> None:
    """Note what went wrong, by its code: a message may quote what was sent."""
    if error is None:
        return
    # Who leaves closes the generator of the answer, or cancels who waits in it.
    left = isinstance(error, RunCancelled | asyncio.CancelledError | GeneratorExit)
    code = error.code if isinstance(error, EdwinError) else None
    span.set_attribute(
        "error.type", code or ("cancelled" if left else type(error).__name__)
    )
    if not left:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR)


def _server(url: str) -> Mapping[str, Any]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def setup(environ: Mapping[str, str]) -> Callable[[], None] | None:
    """Export the process's spans as OpenTelemetry's variables say; for commands.

    Returns:
        What sends the last spans and ends the exporter's thread; None where no
        export was asked for, or extra ``otel`` is not installed.

    """
    wanted = _exporter(environ)
    if wanted is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider, export
    except ImportError:
        _log.warning("traces need edwin-gateway[otel]; none are exported")
        return None
    from opentelemetry.trace import set_tracer_provider

    exporter: export.SpanExporter = (
        trace_exporter.OTLPSpanExporter()
        if wanted == "otlp"
        else export.ConsoleSpanExporter()
    )
    resource = Resource.create()
    name = resource.attributes.get("service.name")
    if str(name).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "edwin-gateway"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    set_tracer_provider(provider)
    return provider.shutdown


def _exporter(environ: Mapping[str, str]) -> str | None:
    """Return which exporter *environ* asks for: ``otlp``, ``console``, or None."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    name = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    if name == "none":
        return None
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", ""
    )
    if name not in ("otlp", "console") or protocol == "grpc":
        _log.warning(
            "no traces are exported: the gateway has the exporters otlp (over HTTP) "
            "and console; see OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        return None
    return name
