"""The event splitter: the same bytes give the same events, however they are cut."""

from __future__ import annotations

import itertools
import time

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


ODD = [b"\n", b"\r", b"a", b":", b"data: x", b"{", b"}", b'{"b": 1}\n', b"\xef\xbb\xbf"]
ODD += [b"event: error\n", b"error: x"]


@given(st.lists(st.sampled_from(ODD)))
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


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b'event: error\ndata: {"error": {"code": 1}}\n\n', b'{"error": {"code": 1}}'),
        (b'event: error\ndata: {"code": 1}\n\n', b'{"error":{"code": 1}}'),
        (b'data: {"code": 1}\nevent: error\n\n', b'{"error":{"code": 1}}'),
        (b'event:error\ndata: all "lost"\n\n', b'{"error":"all \\"lost\\""}'),
        (b'error: {"code": 1}\n\n', b'{"error":{"code": 1}}'),
    ],
)
def test_sse_makes_error_events_error_objects(stream, event):
    """An event that is called an error is one, whatever its data looks like."""
    assert split(stream) == [event]
    assert split(b"event: error\n\nevent: error\ndata:\n\n") == []


def test_sse_gives_json_lines_at_once():
    """JSON documents line by line, in place of events, are given as they come."""
    splitter = EventSplitter()
    assert splitter.feed(b'{"a": 1}') == []
    assert splitter.feed(b'\n{"b": 2}\n{"c"') == [b'{"a": 1}', b'{"b": 2}']
    assert splitter.feed(b": 3}\n\ndata: x\n\n") == [b'{"c": 3}', b"x"]
    assert splitter.finish() == []


def test_sse_gives_a_json_document_in_several_lines():
    """One document in place of events is given whole, at the end."""
    document = b'{\n  "a": [\n    1\n  ]\n}\n'
    assert split(document) == [document]
    assert split(document + b"\ndata: x\n\n") == [document[:-1], b"x"]


def test_sse_reads_a_document_in_many_pieces_once():
    """A document of many lines in many pieces takes no longer for each of them."""
    splitter = EventSplitter()
    lines = [b"{\n", *[b'"k": "v",\n'] * 100_000, b'"k": 1}\n']
    began = time.process_time()
    assert [event for line in lines for event in splitter.feed(line)] == []
    assert splitter.finish() == [b"".join(lines)]
    assert time.process_time() - began < 5


def test_sse_gives_stray_text_where_nothing_else_comes():
    """Text in place of a stream is given, a little of it; beside events it is not."""
    assert split(b"no healthy upstream\n") == [b"no healthy upstream\n"]
    assert split(b"x" * 1000) == [b"x" * 200]
    assert split(b"no healthy upstream\n\ndata: x\n\n") == [b"x"]
    assert split(b"data: x\n\nno healthy upstream\n\n") == [b"x"]
    assert split(b": a comment\n\nretry: 5\n\n") == []


def test_sse_reads_a_stream_with_the_type_of_a_body():
    """A stream that calls itself JSON is read as the stream that it is."""
    body = WholeBody()
    assert body.feed(b"\n: hello\n\ndata: a\n\ndata: b") == []
    assert body.finish() == [b"a", b"b"]
    body = WholeBody()
    body.feed(b"\xef\xbb\xbf{}")
    assert body.finish() == [b"{}", b"[DONE]"]


def test_sse_takes_a_whole_body():
    """A body that is one JSON document is complete at its end, not before."""
    body = WholeBody(max_bytes=4)
    assert body.feed(b"{") == body.feed(b"}") == []
    assert body.finish() == [b"{}", b"[DONE]"]
    with pytest.raises(TooLong):
        body.feed(b"123")
