"""The instrument is right: its clock, its floor, its load, and when it says no."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict

import pytest

from tools.bench import processes, results
from tools.bench.answers import MARK, Answer
from tools.bench.figures import EDWIN, FLOOR_A, FLOOR_B, LOAD_BUSY, WAITED
from tools.bench.load import Job
from tools.bench.measures import MEASURES
from tools.bench.processes import ROOT, Cores, Helper, Process
from tools.bench.question import request
from tools.bench.results import compare, faults
from tools.bench.rounds import CALM, KINDS, take
from tools.bench.traffic import CPU_REQUEST, P50

BURN = """
import sys, threading, time
def burn():
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
thread = threading.Thread(target=burn)
thread.start(), thread.join(), burn()
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Return an upstream, a load and a floor: (upstream, load, floor, its port)."""
    folder, cores = tmp_path_factory.mktemp("bench"), Cores().rest
    with ExitStack() as stack:
        enter = stack.enter_context
        upstream = enter(Helper("upstream", cores=cores, folder=folder / "upstream"))
        port = upstream.line(30)
        load = enter(Helper("load", cores=cores, folder=folder / "load"))
        url = f"http://127.0.0.1:{port}/v1"
        floor = enter(processes.floor(url, cores=cores, folder=folder / "floor"))
        yield upstream, load, floor, port


def fetched(port: int) -> bytes:
    """Return the body of a streamed answer, its chunks put together."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request(port, stream=True).encode())
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += client.recv(65536)
    body, rest = b"", received.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("gap_s", [None, 0.0, 0.002])
def test_bench_floor_relays_bytes(stage, gap_s):
    """The floor passes on what the upstream sends, to the byte."""
    upstream, _, floor, port = stage
    upstream.ask(asdict(Answer(deltas=20, gap_s=gap_s)), patience_s=30)
    body = fetched(port)
    assert body.count(MARK) == 20 and body.endswith(b"data: [DONE]\n\n")
    assert fetched(floor.port) == body


def test_bench_load_counts_what_the_server_answered(stage):
    """Each connection asks again when it has its answer, and the last are awaited."""
    upstream, load, floor, _ = stage
    upstream.ask(asdict(Answer(deltas=3, gap_s=0.02)), patience_s=30)
    job = Job(
        port=floor.port,
        request=request(floor.port, stream=True),
        connections=4,
        deltas=3,
    )
    pool = {"name": "pool"}
    load.ask({"do": "open"} | pool | asdict(job), patience_s=30)
    said = load.ask({"do": "run", "seconds": 0.1} | pool, patience_s=30)
    times = load.ask({"do": "close"} | pool, patience_s=30)
    # Two gaps of 20 ms fit twice into a tenth of a second, and a third is under way.
    assert 4 <= said["requests"] <= 12
    assert times["p99_ms"] >= times["p50_ms"] >= 40
    assert times["p50_ms"] > times["first_p50_ms"] > 0


def test_bench_load_refuses_a_wrong_answer(tmp_path):
    """An answer that is not the upstream's ends the run: its cost means nothing."""
    cores = Cores().rest
    with (
        Helper("upstream", cores=cores, folder=tmp_path / "upstream") as upstream,
        Helper("load", cores=cores, folder=tmp_path / "load") as load,
    ):
        port = upstream.line(30)
        job = Job(
            port=port, request=request(port, stream=True), connections=1, deltas=2
        )
        with pytest.raises(processes.BenchError, match="wrong answer"):
            load.ask({"do": "open", "name": "x"} | asdict(job), patience_s=30)


def test_bench_clock_counts_every_thread(tmp_path):
    """A process's CPU time, read from outside, is what the process itself says."""
    words = ["-c", BURN]
    with Process(words, cores=Cores().rest, folder=tmp_path, pipes=True) as burning:
        said = burning.line(30)
        assert said > 0.1
        assert burning.cpu_s() == pytest.approx(said, rel=0.03)


def rounds(*triples):
    """Return rounds of whole-1 from (floor, Edwin, floor) in microseconds."""
    return [
        {
            kind: {CPU_REQUEST.name: cpu, P50.name: cpu, LOAD_BUSY: 0.2}
            for kind, cpu in zip((FLOOR_A, EDWIN, FLOOR_B), triple, strict=True)
        }
        for triple in triples
    ]


@pytest.mark.parametrize(
    ("second", "sound"), [(93, False), (94, True), (107, True), (108, False)]
)
def test_bench_void_when_the_floor_differs_from_itself(second, sound):
    """A floor that is not itself within 0.93 to 1.07 makes the run void."""
    taken = rounds((100, 200, second), (100, 200, second), (100, 200, 500))
    row = compare("whole-1", CPU_REQUEST, taken)
    assert row.sound is sound
    assert bool(faults([row], {"whole-1": taken})) is not sound
    assert compare("whole-1", P50, taken).sound


def test_bench_void_when_the_load_sets_the_pace():
    """A load that is as busy as the server makes the run void."""
    taken = rounds((100, 200, 100))
    for sample in taken[0].values():
        sample[LOAD_BUSY] = 0.9
    (fault,) = faults([], {"whole-1": taken})
    assert "90%" in fault


class Disturbed:
    """A measure in whose first rounds somebody else has the core."""

    name, figures, foreign = "disturbed", (), False

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.taken = 0

    def kinds(self, measure):
        """Stand in for the stage, too."""
        return KINDS

    def take(self, stage, kinds):
        self.taken += 1
        waited = 0.5 if self.taken <= self.rounds else 0.01
        return {kind: {WAITED: waited} for kind in kinds}


@pytest.mark.parametrize(("disturbed", "taken"), [(0, 2), (1, 3), (99, 6)])
def test_bench_takes_disturbed_rounds_again(disturbed, taken):
    """A round in which somebody else had the core is repeated, but not for ever."""
    measure = Disturbed(rounds=disturbed)
    kept = take(measure, measure, 2, lambda what: None, tries=3)
    assert (len(kept), measure.taken) == (2, taken)
    calm = all(results.disturbed(one) < CALM for one in kept)
    assert calm is (disturbed < 99)


def test_bench_compares_with_both_neighbours():
    """A ratio's base is the mean of the floors beside it; the middle one counts."""
    taken = rounds((100, 300, 200), (100, 100, 100), (50, 400, 150))
    row = compare("whole-1", CPU_REQUEST, taken)
    assert row.ratio == results.Spread(2.0, 1.0, 4.0)
    assert row.added.median == 150
    assert row.itself == results.Spread(0.5, 1 / 3, 1.0)


def test_bench_prints_a_table_and_writes_json(tmp_path):
    """One command: a table, a file, and an exit code that says if the run counts."""
    path = tmp_path / "bench.json"
    words = ["--quick", "--rounds=1", "--seconds=0.05", "--only=session-8"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *words, "--json", str(path)],
        cwd=ROOT,
        # Its lock is its own: the machine may have a bench under way.
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    document = json.loads(path.read_text("utf-8"))
    assert (done.returncode, done.stderr) == (3 if document["void"] else 0, "")
    named = [(row["measure"], row["figure"]) for row in document["rows"]]
    assert named == [
        (measure.name, figure.name)
        for measure in MEASURES
        for figure in measure.figures
        if measure.name == "session-8"
    ]
    for row in document["rows"]:
        assert row["floor"]["median"] > 0 and row["ratio"]["median"] > 0
        cells = rf"\| {row['measure']} +\| {row['figure']}, {row['unit']} "
        assert re.search(cells, done.stdout)
    assert {"edwin", "tornado", "Python"} <= document["versions"].keys()
    assert "Fewer than 6 rounds" in done.stdout
