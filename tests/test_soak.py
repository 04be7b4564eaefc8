"""The soak tool sees what it is there to see."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.process import ROOT, environment
from tools.soak import growth, proof
from tools.soak.growth import IDLE_MORE, MAX_MESSAGES, RUN_BYTES, Sample, Stored
from tools.soak.house import Call
from tools.soak.mix import Closes
from tools.soak.proof import Turn
from tools.soak.script import Prompt, asked

IDLE = Sample(0.0, 70_000_000, 12, 1, 5, 0, 0)
BUSY = Sample(0.0, 80_000_000, 150, 136, 60, 10, 10)
STORED = [
    Stored(0, 0, 0, 0, 100_000),
    Stored(10, 10_000, 20, 100, 1_000_000),
    Stored(10, 20_000, MAX_MESSAGES, 300, 1_100_000),
]


def judged(*, grows=0, seconds=600, rest=IDLE, stored=STORED, settled=True, **last):
    """Return the faults of a load that grew by *grows* bytes a second."""
    samples = [
        BUSY._replace(at_s=at_s, rss_bytes=BUSY.rss_bytes + int(grows * at_s))
        for at_s in range(0, seconds, seconds // 60)
    ]
    samples[45:] = [sample._replace(**last) for sample in samples[45:]]
    report = growth.judge(IDLE, samples, rest, stored, settled=settled)
    return " ".join(report.faults)


def test_soak_is_content_with_a_gateway_that_stays_as_it_is():
    """A gateway that holds what it held has no faults."""
    assert judged() == ""


@pytest.mark.parametrize(
    ("seconds", "grows", "faulty"),
    [
        (600, 15_000, False),
        (600, 25_000, True),
        (6000, 10_000, False),
        (6000, 25_000, True),
        (120, 90_000, False),
        (120, 150_000, True),
    ],
)
def test_soak_finds_memory_that_grows(seconds, grows, faulty):
    """8 MB in the last two thirds of ten minutes are too much, and so on for longer."""
    assert ("resident memory grew" in judged(seconds=seconds, grows=grows)) is faulty


def test_soak_does_not_count_the_warm_up():
    """What is taken in the first third is no growth."""
    samples = [
        BUSY._replace(at_s=at_s, rss_bytes=30_000_000 + min(at_s, 200) * 250_000)
        for at_s in range(0, 600, 10)
    ]
    assert not growth.judge(IDLE, samples, IDLE, STORED, settled=True).faults


@pytest.mark.parametrize("name", ["descriptors", "tasks"])
def test_soak_finds_more_and_more_under_load(name):
    """Descriptors and tasks that rise under the same load are a fault."""
    assert f"{name} under load" in judged(**{name: 400})


@pytest.mark.parametrize("name", ["descriptors", "tasks", "runs", "answers"])
def test_soak_finds_what_is_left(name):
    """What is still there when nobody wants anything is a fault."""
    rest = IDLE._replace(**{name: IDLE.descriptors + IDLE_MORE + 1})
    assert f"{name} at rest" in judged(rest=rest)


def test_soak_lets_a_short_load_keep_its_pool():
    """Right after a load, idle connections to the provider may be there."""
    rest = IDLE._replace(descriptors=80, connections=66)
    assert judged(rest=rest, settled=False) == ""
    assert "descriptors at rest" in judged(rest=rest)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"most_messages": MAX_MESSAGES + 10}, "a session has"),
        ({"message_bytes": 10_000_000}, "a session takes"),
        ({"file_bytes": 1_000_000 + 201 * RUN_BYTES}, "files grew"),
    ],
)
def test_soak_finds_a_store_that_grows(change, fault):
    """Sessions above their bound are a fault, and files that grow without runs."""
    stored = [*STORED[:2], STORED[2]._replace(**change)]
    assert fault in judged(stored=stored)
    assert judged(stored=stored, settled=False) == ""


def test_soak_finds_answers_that_go_on_for_nobody():
    """An answer that was given up is to be closed, and its time is counted."""
    closes = Closes({"a": 10.0, "b": 10.0})
    closes.note([Call("a", 9.0, 10.5), Call("b", 9.0, None), Call("c", 9.0, None)])
    assert closes.seconds == [0.5]
    assert closes.faults == ["b went on when its client had left"]


def test_soak_prompt_is_read_as_it_was_sent():
    """The provider knows from the messages alone how to answer, and after what."""
    first, second = Prompt("p1"), Prompt("p2", deltas=3, gap_ms=20)
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": first.text},
        {"role": "assistant", "content": first.answer("-")},
        {"role": "user", "content": second.text},
    ]
    assert asked(messages) == (second, "p1")
    assert second.answer("p1") == "p2 after p1: piece-0001 piece-0002"


FIRST, SECOND, LOST = Prompt("u-t0"), Prompt("u-t1"), Prompt("u-t2")


def conversation():
    """Return two turns that were answered, one that was lost, and their transcript."""
    turns = [
        Turn(FIRST, 1, "whole", accepted=True, text=FIRST.answer("-")),
        Turn(SECOND, 2, "streamed", accepted=True, text=SECOND.answer("u-t0")),
        Turn(LOST, 3, "detached", accepted=True, interrupted=2),
    ]
    lines = []
    for turn in turns:
        for own, content in ((False, turn.prompt.text), (True, turn.text)):
            if content is not None:
                lines.append(
                    {
                        "seq": len(lines) + 1,
                        "run_id": f"run-{turn.name}",
                        "own": own,
                        "current": turn.text is not None,
                        "message": {"content": content},
                    }
                )
    return turns, lines, Counter(turn.name for turn in turns)


def swap(lines, one, other):
    """Exchange the places of two lines."""
    lines[one]["seq"], lines[other]["seq"] = lines[other]["seq"], lines[one]["seq"]
    lines.sort(key=lambda line: line["seq"])


def test_crash_proof_is_content_with_what_is_right():
    """What was answered is there, once, in order; what was lost is there too."""
    assert not list(proof.faults(*conversation()))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t, lines, c: lines.pop(4), "u-t2 was accepted, and is not"),
        (lambda t, lines, c: lines.pop(3), "the answer to u-t1 is in the transcript 0"),
        (
            lambda t, lines, c: lines.append({**lines[0], "seq": 9}),
            "transcript 2 times",
        ),
        (
            lambda t, lines, c: lines.append({**lines[1], "seq": 9}),
            "transcript 2 times",
        ),
        (lambda t, lines, c: lines[3].update(current=False), "no part of the"),
        (lambda t, lines, c: lines[2].update(current=False), "no part of the"),
        (lambda t, lines, c: lines[3].update(run_id="x"), "does not stand behind"),
        (lambda t, lines, c: swap(lines, 2, 3), "does not stand behind"),
        (lambda t, lines, c: (swap(lines, 0, 2), swap(lines, 1, 3)), "asked later"),
        (lambda t, lines, c: lines[3].update(seq=3), "do not rise"),
        (lambda t, lines, c: c.update(["u-t2"]), "u-t2 was generated 2 times"),
        (lambda t, lines, c: c.pop("u-t1"), "the provider never saw it"),
        (lambda t, lines, c: setattr(t[1], "interrupted", 1), "and said to be lost"),
        (
            lambda t, lines, c: lines[4]["message"].update(content="v-t0 8 0"),
            "nobody sent it here",
        ),
        (
            lambda t, lines, c: (
                setattr(t[1], "text", SECOND.answer("-")),
                lines[3]["message"].update(content=SECOND.answer("-")),
            ),
            "out of its turn",
        ),
    ],
)
def test_crash_proof_finds_what_is_wrong(change, fault):
    """Each way to lose, repeat or reorder is found and named."""
    turns, lines, calls = conversation()
    change(turns, lines, calls)
    assert any(fault in found for found in proof.faults(turns, lines, calls))


@pytest.mark.parametrize(
    ("options", "row"),
    [
        (["--minutes", "0.1"], "answers given up"),
        (["--cancel", "--rounds", "1"], "streamed, cancel"),
    ],
)
def test_soak_runs(tmp_path, options, row):
    """The mixed load, for some seconds, and the cancels: no fault, and figures."""
    run = subprocess.run(
        [sys.executable, "-m", "tools.soak", *options],
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert row in run.stdout and "seed" in run.stdout


def test_soak_refuses_a_wrong_command_line():
    """Exit code 2 and the reason."""
    run = subprocess.run(
        [sys.executable, "-m", "tools.soak", "--crashes", "0"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2 and "--crashes" in run.stderr
