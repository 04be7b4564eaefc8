"""The event splitter: the same bytes give the same events, however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edwin.providers.sse import EventSplitter, TooLong, WholeBody

STREAM = (
    "\ufeffdata: first\n\n"
    ": a comment\n\n"
    'data: {"text":\ndata:  "ünïcödé 🎉"}\n\n\n'
    "event: ping\r\nid: 7\r\nretry: 5\r\ndata: crlf\r\n\r\n"
    "data:no blank\rdata: cr\r\r"
    "data\n\ndata:\n\nnot data: x\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    "first",
    '{"text":\n "ünïcödé 🎉"}',
    "crlf",
    "no blank\ncr",
    "[DONE]",
]


def split(*pieces: bytes) -> list[bytes]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.finish()


def test_sse_reads_every_dialect():
    """LF, CRLF, CR, comments, other fields and data of several lines are read."""
    assert [event.decode() for event in split(STREAM)] == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_sse_does_not_depend_on_the_cuts_of_the_network(cuts):
    """Cut anywhere, in the middle of a character too, the events are the same."""
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    assert [event.decode() for event in split(*pieces)] == EVENTS


@given(st.lists(st.sampled_from([b"\n", b"\r", b"a", b":", b"data: x"])))
def test_sse_does_not_depend_on_the_cuts_of_any_bytes(parts):
    """The same holds for streams nobody would send."""
    stream = b"".join(parts)
    assert split(*parts) == split(stream)
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == split(stream)


def test_sse_gives_an_event_at_once():
    """An event is given as soon as its blank line is there, whatever ends it."""
    for end in (b"\n\n", b"\r\n\r\n", b"\r\r"):
        assert EventSplitter().feed(b"data: x" + end) == [b"x"]


def test_sse_gives_the_last_event_at_the_end():
    """A last event without its blank line is an event, once the stream has ended."""
    splitter = EventSplitter()
    assert splitter.feed(b"data: [DONE]") == []
    assert splitter.finish() == [b"[DONE]"]
    assert splitter.finish() == []


def test_sse_refuses_an_endless_event():
    """An event that grows beyond measure is refused; those before it are not lost."""
    splitter = EventSplitter(max_bytes=100)
    assert splitter.feed(b"data: good\n\ndata: " + b"x" * 200) == [b"good"]
    with pytest.raises(TooLong, match="100 bytes"):
        splitter.feed(b"x")


def test_sse_takes_a_whole_body():
    """A body that is one JSON document is complete at its end, not before."""
    body = WholeBody(max_bytes=4)
    assert body.feed(b"{") == body.feed(b"}") == []
    assert body.finish() == [b"{}", b"[DONE]"]
    with pytest.raises(TooLong):
        body.feed(b"123")
