"""The bench's gate says no when it must, and what is measured beside Edwin is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from tools.bench import gate, lock
from tools.bench.answers import MARK
from tools.bench.figures import EDWIN, FLOOR_A, FLOOR_B, LOAD_BUSY
from tools.bench.footprint import STREAM, Footprint
from tools.bench.measures import GATE, MEASURES
from tools.bench.processes import ROOT, BenchError, Cores, Helper
from tools.bench.question import conversation, request
from tools.bench.results import Spread, compare_peer
from tools.bench.traffic import CPU_REQUEST
from tools.bench.uncounted import Uncounted
from tools.bench.upstream import AS_ASKED

WHOLE = next(measure for measure in MEASURES if measure.name == "whole-32")


def bench(folder, *words):
    """Run the bench with the smallest budget; return what came of it, and its file.

    Its lock is in *folder*: the machine may have a bench under way.
    """
    path = folder / "bench.json"
    small = ["--rounds=1", "--seconds=0.05", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *small, *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done, json.loads(path.read_text("utf-8")) if path.exists() else None


def test_bench_gate_has_a_limit_for_each_of_its_figures():
    """Every limit is of a figure that is measured, and every gated figure has one."""
    limits = gate.load()
    assert {m: list(figures) for m, figures in limits.items()} == {
        m: list(figures) for m, figures in GATE.items()
    }
    decisive = {m.name: {f.name for f in m.figures if f.decides} for m in MEASURES}
    assert all(set(figures) <= decisive[m] for m, figures in GATE.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whole-32": {}}, "no limit for whole-32: CPU per request"),
        ({"whole-99": {"CPU per request": 2}}, "no figure whole-99: CPU per request"),
        ({"process": {"silent stream": 1, "cost": 2}}, "no figure process: cost"),
        ({"process": {"silent stream": 0}}, "process: silent stream is not above 0"),
        ({"process": {"silent stream": "9"}}, "process: silent stream is not above 0"),
    ],
)
def test_bench_gate_refuses_limits_of_nothing(tmp_path, change, message):
    """A limit that is missing, or that is for nothing, stops the gate."""
    path = tmp_path / "limits.json"
    path.write_text(json.dumps(gate.load() | change), "utf-8")
    with pytest.raises(BenchError, match=message):
        gate.load(path)


def rounds(floor, edwin, other, busy=0.2, figure=CPU_REQUEST):
    """Return two rounds in which floor, Edwin and floor have these figures."""
    values = zip((FLOOR_A, EDWIN, FLOOR_B), (floor, edwin, other), strict=True)
    return [{kind: {figure.name: cpu, LOAD_BUSY: busy} for kind, cpu in values}] * 2


FINE = rounds(100, 200, 100)
OVER = rounds(100, 201, 100)
VOID = rounds(100, 150, 110)
SLOW_LOAD = rounds(100, 150, 100, busy=0.9)


@pytest.mark.parametrize(
    ("taken", "verdict"),
    [
        ([FINE], "within"),
        ([OVER, FINE], "within"),
        ([OVER, OVER], "over"),
        ([VOID, FINE], "within"),
        ([VOID, SLOW_LOAD, VOID, FINE], "within"),
        ([VOID, VOID, VOID, SLOW_LOAD], "void"),
        ([OVER, VOID, OVER], "over"),
        ([OVER, VOID, VOID, VOID, VOID], "void"),
    ],
)
def test_bench_gate_takes_again_what_may_be_chance(taken, verdict):
    """Void rounds are taken again three times, and what is over its limit once."""
    left = iter(taken)
    outcome = gate.hold(WHOLE, {CPU_REQUEST.name: 2.0}, lambda: next(left))
    assert (outcome.verdict, outcome.takes) == (verdict, len(taken))
    assert outcome.rounds is taken[-1] and next(left, None) is None
    assert bool(outcome.faults) is (verdict == "void")


@pytest.mark.parametrize(("edwin", "verdict"), [(47, "within"), (48, "over")])
def test_bench_gate_limits_what_a_silent_stream_adds(edwin, verdict):
    """The limit on a silent stream is on KiB over the floor's, not on a ratio."""
    taken = rounds(30, edwin, 30, figure=STREAM)
    outcome = gate.hold(Footprint(), {STREAM.name: 17.5}, lambda: taken)
    assert outcome.verdict == verdict


@pytest.mark.parametrize(
    ("takes", "code"),
    [((FINE, FINE), 0), ((FINE, VOID), 3), ((VOID, OVER), 1), ((OVER, FINE), 1)],
)
def test_bench_gate_fails_for_one_measure(takes, code):
    """One measure over its limit fails the gate, and one that is void voids it."""
    outcomes = [
        gate.hold(WHOLE, {CPU_REQUEST.name: 2.0}, lambda taken=taken: taken)
        for taken in takes
    ]
    assert gate.exit_code(outcomes) == code


def test_bench_gate_prints_limits_and_verdicts(tmp_path):
    """``--gate`` shows each figure with its limit; the exit code is the verdict's."""
    done, document = bench(tmp_path, "--gate", "--only=refused-400")
    (found,) = document["gate"]
    codes = {"within": 0, "over": 1, "void": 3}
    assert (done.returncode, done.stderr) == (codes[found["verdict"]], "")
    assert found["limit"] == gate.load()["refused-400"]["CPU per request"]
    (line,) = [li for li in done.stdout.splitlines() if li.startswith("| refused-400")]
    assert f"× {found['limit']:g}" in line and found["verdict"] in line.lower()


def test_bench_measures_refusals_and_a_variant(tmp_path):
    """Refusals are what they should be, of Edwin and of a variant beside it."""
    words = ["--quick", "--only=refused", "--with=uncounted"]
    done, document = bench(tmp_path, *words)
    assert (done.returncode, done.stderr) == (3 if document["void"] else 0, "")
    names = [m.name for m in MEASURES if m.name.startswith("refused")]
    assert names == ["refused-401", "refused-400", "refused-429"]
    assert list(document["samples"]) == names
    kinds = {FLOOR_A, EDWIN, "uncounted", FLOOR_B}
    for (turn,) in document["samples"].values():
        assert turn.keys() == kinds
        assert all(sample["requests"] >= 8 for sample in turn.values())
    rows = document["peers"]["uncounted"]
    assert {row["measure"] for row in rows} == set(names)
    assert "| edwin / uncounted " in done.stdout


def test_bench_runs_alone(tmp_path):
    """A second bench on a machine does not start, and says why."""
    with lock.alone(tmp_path):
        done, _ = bench(tmp_path, "--only=whole-1")
        assert done.returncode == 1
        assert "another bench runs on this machine" in done.stderr
    with lock.alone(tmp_path):
        pass


@pytest.mark.parametrize(("variant", "beside"), [(False, 8), (True, 0.125)])
def test_bench_compares_a_peer_with_edwin(variant, beside):
    """A peer is held against Edwin, and Edwin against a variant of itself."""
    taken = [turn | {"peer": {CPU_REQUEST.name: 1600.0}} for turn in FINE]
    row = compare_peer("whole-32", CPU_REQUEST, taken, "peer", variant=variant)
    assert (row.peer.median, row.edwin.median, row.floor.median) == (1600, 200, 100)
    assert row.ratio.median == 16
    assert row.beside == Spread(beside, beside, beside)


@pytest.mark.parametrize(
    ("path", "stream", "whole"),
    [("", False, False), (AS_ASKED, False, True), (AS_ASKED, True, False)],
)
def test_bench_upstream_answers_as_it_was_asked(tmp_path, path, stream, whole):
    """Only by a path of its own does the upstream answer in one body."""
    asked = request(1, stream=stream).replace("POST /v1", f"POST {path}/v1")
    with Helper("upstream", cores=Cores().rest, folder=tmp_path) as upstream:
        address = ("127.0.0.1", upstream.line(30))
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(asked.encode())
            received = b""
            while not received.endswith((b"\r\n0\r\n\r\n", b"}}")):
                received += client.recv(65536)
    assert (b"Content-Length: " in received) is whole
    assert received.count(MARK) == 1
    if whole:
        document = json.loads(received.partition(b"\r\n\r\n")[2])
        assert document["choices"][0]["message"]["content"] == MARK.decode()


def test_bench_conversation_is_long_and_ends_with_the_user():
    """The long request has 200 messages and some 70 kB, and the user speaks last."""
    messages = conversation(200)
    assert [m["role"] for m in messages[-3:]] == ["user", "assistant", "user"]
    assert len(messages) == 200
    assert 65_000 < len(request(1, stream=False, messages=messages)) < 80_000


def test_bench_uncounted_counts_nothing():
    """The variant without metrics takes everything and keeps nothing."""
    metrics = Uncounted()
    before = metrics.scrape()
    metrics.requests.add("/v1/chat/completions", "POST", 200)
    metrics.loop_lag.observe(0.1)
    metrics.run_ended("main", "finished", waited_s=1.0, total_s=2.0)
    assert not metrics.requests.values and not metrics.runs.values
    assert b"edwin_loop_lag_seconds_count 0.0" in before
    assert b"edwin_loop_lag_seconds_count 0.0" in metrics.scrape()


def test_bench_parts_times_each_instrument(tmp_path):
    """The instruments are timed one by one, each with a figure above zero."""
    words = ["--rounds=2", "--times=10", "--idle-seconds=0.05"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench.parts", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("metrics: a run", "log line of a run", "scrape", "the same, watched"):
        (line,) = [li for li in done.stdout.splitlines() if li.startswith(part + "  ")]
        assert float(line.removeprefix(part).split()[0]) > 0
