"""What the gateway counts, as Prometheus' own client reads it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edwin.app import routes
from edwin.metrics import CONTENT_TYPE, Metrics
from edwin.testing.gateway import TOKEN
from tests.conftest import Client, chat, raw_chat
from tests.test_docs import DOCS, ROOT, quoted, section, table

DASHBOARD = ROOT / "conf" / "grafana-dashboard.json"
RETRYING = {
    "models": {"providers": {"upstream": {"retries": 1, "retrySeconds": 0.01}}},
    "agents": {"list": [{"id": "beta"}]},
}


async def scrape(client: Client) -> list[Metric]:
    """Return the families that a scrape over HTTP gives."""
    response = await client.request("/metrics")
    assert response.code == 200
    assert response.headers["Content-Type"] == CONTENT_TYPE
    return list(text_string_to_metric_families(response.body.decode()))


ORDER = (
    "route",
    "method",
    "status",
    "agent",
    "state",
    "kind",
    "provider",
    "code",
    "le",
)


def samples(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return the samples called *name*, by their labels in the order of ORDER."""
    return {
        tuple(v for _, v in sorted(sample.labels.items(), key=_place)): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def _place(label: tuple[str, str]) -> int:
    return ORDER.index(label[0])


@pytest.fixture
def busy(io_loop, make_gateway) -> Client:
    """Return the client of a gateway that had an answer, a retry and an error."""

    async def make() -> Client:
        client = Client(await make_gateway(RETRYING))
        upstream = client.served.upstream
        upstream.reply("a b c")
        assert (await client.chat("one")).status == 200
        upstream.fail(500)
        upstream.reply("d")
        assert (await client.chat("two", model="edwin:beta", stream=True)).text == "d"
        upstream.fail(400)
        assert (await client.chat("three", user="ann")).status == 502
        assert (await client.chat("four", model="nobody")).status == 404
        client.served.gateway.metrics.tool_ended("clock", "ok", 0.1)
        return client

    return io_loop.run_sync(make)


@pytest.mark.gen_test
async def test_metrics_count_what_happened(busy):
    """A scrape tells how many requests, runs, errors and repeats there were."""
    families = await scrape(busy)
    route = "/v1/chat/completions"
    assert samples(families, "edwin_requests_total") == {
        (route, "POST", "200"): 2,
        (route, "POST", "502"): 1,
        (route, "POST", "404"): 1,
    }
    assert samples(families, "edwin_runs_total") == {
        ("main", "finished"): 1,
        ("beta", "finished"): 1,
        ("main", "failed"): 1,
    }
    assert samples(families, "edwin_provider_errors_total") == {
        ("upstream", "provider_unavailable"): 1,
        ("upstream", "provider_error"): 1,
    }
    assert samples(families, "edwin_provider_retries_total") == {("upstream",): 1}
    for name in ("edwin_queue_wait_seconds", "edwin_run_duration_seconds"):
        assert samples(families, f"{name}_count") == {(): 3}
    assert samples(families, "edwin_first_delta_seconds_count") == {(): 2}
    assert samples(families, "edwin_store_commit_seconds_count")[()] >= 1
    assert samples(families, "edwin_deltas_total")[()] == sum(
        len(text.split()) for text in ("a b c", "d")
    )
    assert samples(families, "edwin_store_writable") == {(): 1}


@pytest.mark.gen_test
async def test_metrics_tokens_are_the_usage(client):
    """The tokens counted are those the answers said."""
    usage = [(await client.chat("hello")).json["usage"] for _ in range(2)]
    counted = samples(await scrape(client), "edwin_tokens_total")
    for kind in ("prompt", "completion"):
        assert counted["main", kind] == sum(u[f"{kind}_tokens"] for u in usage) > 0


@pytest.mark.gen_test
async def test_metrics_error_after_the_first_delta(client):
    """An answer that breaks off is an error of its provider, and a failed run."""
    client.served.upstream.reply("a b c", cut=True)
    answer = await client.chat("one", stream=True)
    assert answer.cut
    families = await scrape(client)
    assert samples(families, "edwin_provider_errors_total") == {
        ("upstream", "provider_stream_error"): 1
    }
    assert samples(families, "edwin_runs_total") == {("main", "failed"): 1}
    assert samples(families, "edwin_requests_total") == {
        ("/v1/chat/completions", "POST", "200"): 1
    }


@pytest.mark.gen_test
async def test_metrics_show_what_is_open(client, connect):
    """Runs, answers and sockets that are open are read when somebody scrapes."""
    served = client.served
    served.upstream.hang()
    names = ("runs_running", "runs_waiting", "answers_open", "sockets_open")

    async def now() -> list[float]:
        families = await scrape(client)
        return [samples(families, f"edwin_{name}")[()] for name in names]

    assert await now() == [0, 0, 0, 0]
    first = await connect(served, raw_chat(user="ann"))
    await served.upstream.arrival()
    second = await connect(served, raw_chat(user="ann"))
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with session.ws_connect(f"{served.url}/ws", headers=headers):
            async with asyncio.timeout(5):
                while await now() != [1, 1, 2, 1]:
                    await asyncio.sleep(0.01)
    await second.close()
    await first.close()
    async with asyncio.timeout(5):
        while await now() != [0, 0, 0, 0]:
            await asyncio.sleep(0.01)
    families = await scrape(client)
    counted = samples(families, "edwin_requests_total")
    assert counted["/v1/chat/completions", "POST", "499"] == 2
    assert counted["/ws", "GET", "101"] == 1
    assert samples(families, "edwin_runs_total") == {("main", "cancelled"): 2}


@pytest.mark.gen_test
async def test_metrics_need_the_secret(client):
    """``/metrics`` is for who has the secret, whether the endpoint is on or off."""
    assert (await client.request("/metrics", token=None)).code == 401
    assert (await client.request("/metrics", token="wrong")).code == 401
    assert (await client.request("/metrics", method="POST")).code == 405
    assert (await client.request("/metrics", method="HEAD")).code == 200


@pytest.mark.gen_test
async def test_metrics_public(make_gateway):
    """``gateway.metrics.public`` opens it, and nothing else."""
    off = {"chatCompletions": {"enabled": False}}
    config = {"gateway": {"metrics": {"public": True}, "http": {"endpoints": off}}}
    client = Client(await make_gateway(config))
    assert (await client.request("/metrics", token=None)).code == 200
    assert (await client.request("/v1/models", token=None)).code == 401


@pytest.mark.gen_test
async def test_metrics_of_two_gateways(make_gateway):
    """Two gateways in one process count each for itself."""
    one, two = Client(await make_gateway()), Client(await make_gateway())
    await one.chat("hello")
    assert samples(await scrape(one), "edwin_runs_total") == {("main", "finished"): 1}
    assert samples(await scrape(two), "edwin_runs_total") == {}


@pytest.mark.gen_test
async def test_metrics_labels_are_bounded(served):
    """Nothing that clients make up becomes a label."""
    client = Client(served)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(served.url, headers=headers) as session:
        for n in range(500):
            async with session.get(f"/{n}/{n * n}"):
                pass
            async with session.get(f"/v1/models/m{n}"):
                pass
            model = chat("hi", model=f"model-{n}", user=f"user-{n}")
            async with session.post("/v1/chat/completions", json=model):
                pass
        for method in ("PUT", "DELETE", "PURGE", "X1", "X2"):
            async with session.request(method, "/healthz"):
                pass
    assert samples(await scrape(client), "edwin_requests_total") == {
        ("other", "GET", "404"): 500,
        ("/v1/models/{id}", "GET", "404"): 500,
        ("/v1/chat/completions", "POST", "404"): 500,
        ("/healthz", "PUT", "405"): 1,
        ("/healthz", "DELETE", "405"): 1,
        ("/healthz", "other", "405"): 3,
    }


def test_metrics_routes_are_named(served):
    """The label of a route is its path in the URL table."""
    for path, handler, _ in routes(served.gateway):
        assert handler.route == path.replace("(.+)", "{id}").replace("\\", "")


@pytest.mark.gen_test
async def test_metrics_are_documented(busy):
    """The table in the docs is what a scrape gives, with its types and labels."""
    rows = table(section(DOCS["operations"], "## Metrics"))
    shown = {
        quoted(row[0]): (row[1], set(re.findall(r"`(\w+)`", row[2]))) for row in rows
    }
    given = {}
    for family in await scrape(busy):
        if family.name.startswith("edwin_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {key for sample in family.samples for key in sample.labels}
            given[name] = (family.type, labels - {"le"})
    assert shown == given


@pytest.mark.gen_test
async def test_metrics_dashboard(busy):
    """Every metric in the dashboard's queries occurs in a scrape, and every one of
    Edwin's in the dashboard."""
    families = await scrape(busy)
    given = {sample.name for family in families for sample in family.samples}
    document = json.loads(DASHBOARD.read_text("utf-8"))
    queries = [t["expr"] for p in document["panels"] for t in p["targets"]]
    queries += [v.get("definition", "") for v in document["templating"]["list"]]
    asked = set(re.findall(r"\b(?:edwin|process)_\w+", " ".join(queries)))
    assert asked and asked <= given
    stems = {re.sub("_(sum|count|bucket)$", "", name) for name in given}
    for name in sorted(stem for stem in stems if stem.startswith("edwin_")):
        assert name in asked or f"{name}_bucket" in asked, name


def test_metrics_histogram_buckets():
    """A bucket counts what is not above its bound, and those before it."""
    metrics = Metrics()
    for seconds in (0.0005, 0.0006, 0.02, 100):
        metrics.loop_lag.observe(seconds)
    text = metrics.scrape().decode()
    buckets = samples(
        text_string_to_metric_families(text), "edwin_loop_lag_seconds_bucket"
    )
    assert (buckets[("0.0005",)], buckets[("0.001",)]) == (1, 2)
    assert (buckets[("0.025",)], buckets[("5.0",)], buckets[("+Inf",)]) == (3, 3, 4)
    assert "edwin_loop_lag_seconds_count 4.0" in text
