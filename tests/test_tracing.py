"""Traces: from the client through run and calls to the provider, and to a collector."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import use_span

from edwin import tracing
from edwin.testing import LocalGateway
from tests.conftest import Client
from tests.process import ROOT, GatewayProcess, environment
from tests.test_lifecycle import in_thread

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "shop=1"}
SERVER, CLIENT = 2, 3
UNSET, ERROR = 0, 2


class Span(NamedTuple):
    """A span as the collector got it."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    status: int
    message: str
    seconds: float
    attributes: dict[str, Any]


class Collector:
    """An OTLP collector over real HTTP; keeps what is sent to it."""

    def __init__(self) -> None:
        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        self.bodies = bodies
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Span]:
        """What came, runs before calls, each in the order of their ends."""
        found = [
            Span(
                span.name,
                span.kind,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.status.code,
                span.status.message,
                (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                {item.key: plain(item.value) for item in span.attributes},
            )
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.kind)


def plain(value: Any) -> Any:
    """Return an attribute's *value* as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Return a collector that listens."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def provider(collector: Collector) -> Iterator[TracerProvider]:
    """Return an embedder's tracer provider, which exports to the collector."""
    made = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
    made.add_span_processor(BatchSpanProcessor(exporter))
    yield made
    made.shutdown()


class Traced(NamedTuple):
    """A gateway whose spans a collector gets."""

    client: Client
    served: LocalGateway
    collector: Collector
    provider: TracerProvider

    def spans(self) -> list[Span]:
        """Return the spans that have ended."""
        self.provider.force_flush()
        return self.collector.spans


@pytest.fixture
def traced(io_loop, tmp_path, collector, provider) -> Iterator[Any]:
    """Start traced gateways: ``await traced({"gateway": {…}})``."""
    started: list[LocalGateway] = []

    async def make(config: dict[str, Any] | None = None) -> Traced:
        served = LocalGateway(tmp_path / "state", config, tracer_provider=provider)
        await served.start()
        started.append(served)
        return Traced(Client(served), served, collector, provider)

    yield make
    for served in started:
        io_loop.run_sync(served.stop)


def upstream(**keys: Any) -> dict[str, Any]:
    """Return a configuration with more *keys* for the provider."""
    return {"models": {"providers": {"upstream": keys}}}


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_tracing_goes_from_client_to_provider(traced, stream):
    """A trace goes on from the client through run and call to the provider."""
    it = await traced()
    answer = await it.client.chat("Hello", headers=PARENT, stream=stream)
    run, call = it.spans()
    assert (run.name, run.kind, run.trace) == ("invoke_agent main", SERVER, TRACE)
    assert run.parent == "b7ad6b7169203331"
    assert run.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": "main",
        "gen_ai.agent.name": "main",
        "edwin.run.id": answer.headers["x-edwin-run-id"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
    }
    assert (call.name, call.kind, call.trace) == ("chat scripted", CLIENT, TRACE)
    assert call.parent == run.id
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "upstream",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "server.address": "127.0.0.1",
        "server.port": int(it.served.upstream.url.split(":")[2].split("/")[0]),
    }
    assert (run.status, call.status) == (UNSET, UNSET)
    assert 0 < call.seconds < run.seconds < 10
    sent = it.served.upstream.requests[0].headers
    assert sent["traceparent"] == f"00-{TRACE}-{call.id}-01"
    assert sent["tracestate"] == "shop=1"


@pytest.mark.gen_test
async def test_tracing_begins_a_trace_of_its_own(traced):
    """Without a context of the client's, every run begins a trace."""
    it = await traced()
    await it.client.chat("Hello")
    await it.client.chat("Hello")
    runs, calls = it.spans()[:2], it.spans()[2:]
    assert [run.parent for run in runs] == ["", ""]
    assert runs[0].trace != runs[1].trace
    assert {call.trace for call in calls} == {run.trace for run in runs}


@pytest.mark.gen_test
async def test_tracing_shows_each_tool(traced):
    """Each call of the agent's own tools is a span of the run, without its content."""
    tools = [{"python": "tests.acting:weather"}, {"python": "tests.acting:refuse"}]
    it = await traced({"agents": {"list": [{"id": "main", "tools": tools}]}})
    calls = [
        {"id": "c1", "type": "function", "function": function}
        for function in (
            {"name": "weather", "arguments": '{"city": "Graz"}'},
            {"name": "refuse", "arguments": '{"what": "rain"}'},
        )
    ]
    calls[1]["id"] = "c2"
    it.served.upstream.reply(tool_calls=calls)
    it.served.upstream.reply("Done.")
    await it.client.chat("Go")
    spans = {span.name: span for span in it.spans()}
    run, good = spans["invoke_agent main"], spans["execute_tool weather"]
    assert good.parent == run.id
    assert good.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.id": "c1",
    }
    assert good.status == UNSET
    assert spans["execute_tool refuse"].attributes["error.type"] == "ToolFailed"
    assert "Graz" not in str(spans) and "rain" not in str(spans)


@pytest.mark.gen_test
async def test_tracing_shows_each_attempt(traced):
    """A repeated call has a span of its own, and the provider is told which."""
    it = await traced(upstream(retries=1, retrySeconds=0.01))
    it.served.upstream.fail(503)
    answer = await it.client.chat("Hello")
    assert answer.status == 200
    run, first, second = it.spans()
    assert (run.status, run.attributes.get("error.type")) == (UNSET, None)
    assert first.attributes["error.type"] == "provider_unavailable"
    assert (first.status, second.status) == (ERROR, UNSET)
    assert "gen_ai.response.finish_reasons" not in first.attributes
    assert first.parent == second.parent == run.id
    assert [
        request.headers["traceparent"].split("-")[2]
        for request in it.served.upstream.requests
    ] == [first.id, second.id]


@pytest.mark.gen_test
async def test_tracing_shows_each_model(traced):
    """So has a fallback's call, with the name of its model."""
    it = await traced({"agents": {"defaults": {"fallbacks": ["upstream/spare"]}}})
    it.served.upstream.fail(500)
    assert (await it.client.chat("Hello")).status == 200
    run, first, second = it.spans()
    assert (first.name, second.name) == ("chat scripted", "chat spare")
    assert (run.status, first.status, second.status) == (UNSET, ERROR, UNSET)


@pytest.mark.gen_test
async def test_tracing_of_an_answer_that_breaks_off(traced):
    """An answer that breaks off ends both spans with the error's code, not its text."""
    it = await traced()
    it.served.upstream.reply("One two three", cut=True)
    answer = await it.client.chat("Hello", stream=True)
    assert answer.cut
    for span in it.spans():
        assert span.attributes["error.type"] == "provider_stream_error"
        assert (span.status, span.message) == (ERROR, "")
        assert "gen_ai.usage.input_tokens" not in span.attributes


async def ended(it: Traced, count: int) -> list[Span]:
    """Return the spans once *count* of them have ended."""
    async with asyncio.timeout(10):
        while len(spans := it.spans()) < count:
            await asyncio.sleep(0.01)
    return spans


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [None, ["One"]], ids=["before", "amid"])
async def test_tracing_of_a_client_that_leaves(traced, stream, after):
    """A client that leaves ends both spans; it is noted, and counts as no fault."""
    it = await traced()
    it.served.upstream.hang(after)
    asked = asyncio.create_task(it.client.chat("Hello", stream=stream))
    await it.served.upstream.arrival()
    await asyncio.sleep(0.05)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    run, call = await ended(it, 2)
    assert (run.attributes["error.type"], run.status) == ("run_cancelled", UNSET)
    assert (call.attributes["error.type"], call.status) == ("cancelled", UNSET)


@pytest.mark.gen_test
async def test_tracing_of_a_run_past_its_deadline(traced):
    """A run past its deadline is a fault of the run's; its call was cancelled."""
    it = await traced({"gateway": {"runs": {"timeoutSeconds": 0.1}}})
    it.served.upstream.hang()
    assert (await it.client.chat("Hello")).status == 504
    run, call = it.spans()
    assert (run.attributes["error.type"], run.status) == ("run_timeout", ERROR)
    assert (call.attributes["error.type"], call.status) == ("cancelled", UNSET)
    assert run.seconds >= 0.1


@pytest.mark.gen_test
async def test_tracing_of_a_silent_provider(traced):
    """So is a provider's: it took too long, and the run with it."""
    it = await traced(upstream(firstDeltaSeconds=0.1))
    it.served.upstream.hang()
    assert (await it.client.chat("Hello", stream=True)).status == 504
    for span in it.spans():
        assert span.attributes["error.type"] == "provider_timeout"
        assert span.status == ERROR


@pytest.mark.gen_test
async def test_tracing_of_a_run_that_never_began(traced):
    """A run whose client leaves while it waits has a span, and no call."""
    it = await traced({"gateway": {"runs": {"maxConcurrent": 1}}})
    it.served.upstream.hang()
    first = asyncio.create_task(it.client.chat("Hello"))
    await it.served.upstream.arrival()
    second = asyncio.create_task(it.client.chat("Hello"))
    while not it.served.gateway.engine.waiting:
        await asyncio.sleep(0.01)
    second.cancel()
    (run,) = await ended(it, 1)
    assert run.attributes["error.type"] == "run_cancelled"
    it.served.upstream.release()
    await first


@pytest.mark.gen_test
async def test_tracing_tells_no_content(traced):
    """No text, no user and no session key is in what is exported."""
    it = await traced({"agents": {"defaults": {"instructions": "Be a secret pirate."}}})
    keyed = {"x-edwin-session-key": "case-of-ada"}
    for _ in range(2):
        it.served.upstream.reply("The treasure is buried.")
        await it.client.chat("Where is the gold?", user="ada@example.com")
    await it.client.chat("Where is the gold?", headers=keyed)
    await it.client.chat("Where is the gold?")
    it.served.upstream.fail(400, {"error": {"message": "gold refused to ada"}})
    await it.client.chat("Where is the gold?", user="ada@example.com")
    runs = [span for span in it.spans() if span.kind == SERVER]
    names = [run.attributes.get("gen_ai.conversation.id") for run in runs]
    assert names[0] == names[1] == names[4]
    assert len(set(names)) == 3 and names[3] is None
    exported = b"".join(it.collector.bodies).lower()
    for word in (b"gold", b"treasure", b"pirate", b"ada", b"openai-user", b"a-token"):
        assert word not in exported


@pytest.mark.gen_test
async def test_tracing_off_passes_the_context_on(served, client):
    """Without a tracer provider the client's context goes up as it came."""
    await client.chat("Hello", headers=PARENT)
    await client.chat("Hello")
    first, second = served.upstream.requests
    assert first.headers["traceparent"] == PARENT["traceparent"]
    assert first.headers["tracestate"] == "shop=1"
    assert "traceparent" not in second.headers


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (PARENT, PARENT),
        ({"traceparent": PARENT["traceparent"]},) * 2,
        ({"tracestate": "shop=1"}, {}),
        (PARENT | {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, {}),
        (PARENT | {"traceparent": f"ff-{TRACE}-b7ad6b7169203331-01"}, {}),
        (PARENT | {"traceparent": f"00-{TRACE.upper()}-b7ad6b7169203331-01"}, {}),
        (PARENT | {"traceparent": f"{PARENT['traceparent']},x"}, {}),
        (PARENT | {"tracestate": "s" * 513}, {"traceparent": PARENT["traceparent"]}),
        (PARENT | {"tracestate": "a=é"}, {"traceparent": PARENT["traceparent"]}),
    ],
)
def test_tracing_takes_what_is_a_context(headers, kept):
    """What is not W3C's shape counts as not sent, and goes nowhere."""
    assert tracing.incoming(headers) == kept


def test_tracing_continues_the_span_of_the_host(provider):
    """Where an embedder's instrumentation has begun a span, the run is its child."""
    span = provider.get_tracer("host").start_span("POST")
    with use_span(span):
        sent = tracing.incoming(PARENT)["traceparent"]
    span.end()
    context = span.get_span_context()
    assert sent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


@pytest.mark.parametrize(
    ("environ", "exporter", "warned"),
    [
        ({}, None, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp", False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/t"}, "otlp", False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp", False),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console", False),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, None, True),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            None,
            True,
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, None, False),
        (
            {
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            },
            None,
            False,
        ),
    ],
)
def test_tracing_exporter_is_the_environments(environ, exporter, warned, caplog):
    """The standard variables say whether and where spans go; unset, nowhere."""
    assert tracing._exporter(environ) == exporter
    assert bool(caplog.records) == warned


SCRIPTED = {
    "agents": {"defaults": {"model": "demo/any"}},
    "models": {"providers": {"demo": {"api": "scripted"}}},
}


async def ask(gateway: GatewayProcess) -> None:
    """Have the gateway answer once."""
    answer = await Client(gateway).chat("Hello", headers=PARENT)
    assert (answer.status, answer.text) == (200, "Hello")


@pytest.mark.gen_test
async def test_tracing_command_exports(collector, tmp_path):
    """``edwin gateway`` exports where the variables say, the last span at its stop."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    gateway = await in_thread(GatewayProcess, tmp_path, SCRIPTED, **variables)
    with gateway:
        await ask(gateway)
        gateway.terminate()
        assert await in_thread(gateway.wait) == 0
    run, call = collector.spans
    assert (run.trace, call.parent) == (TRACE, run.id)
    assert "gen_ai.usage.input_tokens" not in call.attributes
    (resource,) = collector.requests[0].resource_spans
    names = {item.key: plain(item.value) for item in resource.resource.attributes}
    assert names["service.name"] == "edwin-gateway"


@pytest.mark.gen_test
async def test_tracing_command_without_the_extra(collector, tmp_path):
    """Without extra ``otel`` the gateway serves, and says why there are no traces."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
    )
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }
    gateway = await in_thread(GatewayProcess, tmp_path, SCRIPTED, **variables)
    with gateway:
        await ask(gateway)
        gateway.terminate()
        assert await in_thread(gateway.wait) == 0
    said = [line["message"] for line in gateway.lines if line["level"] == "warning"]
    assert said == ["traces need edwin-gateway[otel]; none are exported"]
    assert collector.bodies == []


def test_tracing_off_loads_nothing(tmp_path: Path):
    """A gateway that nobody traces does not even load OpenTelemetry's API."""
    code = (
        "import asyncio, json, sys\n"
        "from edwin import dispatch\n"
        "from edwin.gateway import Gateway\n"
        "from edwin.types import OWNER, ChatRequest\n"
        "async def main():\n"
        "    gateway = Gateway(json.loads(sys.argv[1]))\n"
        "    await gateway.start()\n"
        "    request = ChatRequest([{'role': 'user', 'content': 'Hello'}], 'edwin')\n"
        "    run = await dispatch.submit(gateway, request, OWNER)\n"
        "    with run.events() as reader:\n"
        "        print((await reader.result()).message['content'])\n"
        "    await gateway.stop()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    config = SCRIPTED | {"gateway": {"stateDir": str(tmp_path / "state")}}
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config)],
        capture_output=True,
        text=True,
        env=environment(HOME=str(tmp_path)),
    )
    assert (result.stdout, result.returncode) == ("Hello\n[]\n", 0), result.stderr
