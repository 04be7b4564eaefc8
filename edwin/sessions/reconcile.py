"""What the model is to read: the stored transcript T and the request's messages M.

Pure; called by the run when it reaches the head of its lane.  Clients differ: some
resend the whole conversation, some send only what is new, some cut or edit it, some
repeat a call whose answer they never got.  The rules, in this order:

(r) M is what T's last run appended, and that run was cancelled or its answer was
    lost: its messages leave T, and the rules go on.
(b) M begins with the end of T, or answers its open tool calls: the rest is new.
(a) M holds an assistant message: the client carries its history and is believed.
(c) Otherwise M is new.

System and developer messages belong to their request: they are never stored and
never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edwin.errors import InvalidRequest, shorten
from edwin.sessions.canonical import Seen, call_ids, digest, seen
from edwin.types import Entry, Message, Transcript

_APART = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads, and what it changes in the store.

    Attributes:
        lead: System and developer messages that go before *history*.
        history: What the context takes from the transcript alone; may be cut.
        messages: What follows it, the request's own messages; never cut.
        append: The request's messages that are new to the transcript.
        append_digests: The digest of each of them.
        supersede: Numbers of the entries that leave the transcript.

    """

    lead: tuple[Message, ...]
    history: tuple[Entry, ...]
    messages: tuple[Message, ...]
    append: tuple[Message, ...]
    append_digests: tuple[bytes, ...]
    supersede: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Request:
    """M: the messages as sent, and those that count in a comparison."""

    sent: Sequence[Message]
    places: tuple[int, ...]
    counted: tuple[Message, ...]
    digests: tuple[bytes, ...]


def plan(
    transcript: Transcript, messages: Sequence[Message], *, retry: bool = False
) -> Plan:
    """Return what to read and what to store for *messages* after *transcript*.

    Args:
        transcript: The session as stored, without failed runs.
        messages: The request's messages, as sent.
        retry: Whether the client's SDK says that it repeats a call.

    Raises:
        InvalidRequest: If a tool message answers no call before it; ``param`` names
            its ``tool_call_id``.

    """
    request = _read(messages)
    kept = len(transcript.entries) - _lost(transcript, request, retry=retry)
    lost = tuple(entry.seq for entry in transcript.entries[kept:])
    past = seen(transcript.entries[:kept])
    if not any(message["role"] == "assistant" for message in request.counted[1:]):
        known = _overlap(past, request.digests)
        if known or not _starts_with(request, "assistant"):
            return _continued(past, request, known, lost)
    return _believed(past, request, lost)


def verbatim(messages: Sequence[Message]) -> Plan:
    """Return the plan that keeps *messages* as they are, of a run that failed."""
    request = _read(messages)
    return Plan((), (), (), request.counted, request.digests, ())


def alone(messages: Sequence[Message]) -> None:
    """Check the messages of a request that has no session.

    Raises:
        InvalidRequest: As :func:`plan`.

    """
    if any(message["role"] == "tool" for message in messages):
        _check_tools(_read(messages), set(), known=0)


def _read(messages: Sequence[Message]) -> _Request:
    places = tuple(i for i, m in enumerate(messages) if m["role"] not in _APART)
    counted = tuple(messages[i] for i in places)
    return _Request(messages, places, counted, tuple(map(digest, counted)))


def _starts_with(request: _Request, role: str) -> bool:
    return bool(request.counted) and request.counted[0]["role"] == role


def _lost(transcript: Transcript, request: _Request, *, retry: bool) -> int:
    """Rule (r): how many entries at the end of T are those of a run to be redone."""
    entries = transcript.entries
    redo = transcript.last_state == "cancelled" or (
        retry and not transcript.last_delivered
    )
    if not entries or not redo:
        return 0
    last = [entry for entry in entries if entry.run_id == entries[-1].run_id]
    asked = tuple(entry.digest for entry in last if not entry.own)
    if asked != request.digests or any(
        m["role"] == "assistant" for m in request.counted
    ):
        return 0
    return len(last)


def _overlap(past: Sequence[Seen], digests: Sequence[bytes]) -> int:
    """Return the length of the longest end of T with which M begins."""
    # The longest border of M + mark + T, by the prefix function: linear in both.
    size = min(len(past), len(digests))
    end = [item.digest for item in past[len(past) - size :]]
    text = [*digests[:size], None, *end]
    border = [0] * len(text)
    for place in range(1, len(text)):
        length = border[place - 1]
        while length and text[place] != text[length]:
            length = border[length - 1]
        border[place] = length + (text[place] == text[length])
    return border[-1]


def _prefix(past: Sequence[Seen], digests: Sequence[bytes]) -> int:
    """Return how many messages T and M have in common from their start."""
    size = 0
    for item, mark in zip(past, digests, strict=False):
        if item.digest != mark:
            break
        size += 1
    return size


def _continued(
    past: list[Seen], request: _Request, known: int, lost: tuple[int, ...]
) -> Plan:
    """Rules (b) and (c): M's first *known* messages are T's end, the rest is new."""
    before = past[: len(past) - known]
    if not known and _starts_with(request, "tool"):
        open_calls = _open_calls(past)
    else:
        open_calls = call_ids(entry.message for item in past for entry in item.entries)
    _check_tools(request, open_calls, known=known)
    first = request.places[0] if request.places else len(request.sent)
    return Plan(
        lead=tuple(request.sent[:first]),
        history=tuple(entry for item in before for entry in item.entries),
        messages=_with_own_activity(request, past[len(past) - known :], start=first),
        append=request.counted[known:],
        append_digests=request.digests[known:],
        supersede=lost,
    )


def _believed(past: list[Seen], request: _Request, lost: tuple[int, ...]) -> Plan:
    """Rule (a): the context is M as sent."""
    _check_tools(request, set(), known=0)
    prefix = _prefix(past, request.digests)
    overlap = _overlap(past, request.digests)
    if overlap >= 2 and overlap > prefix:
        known, aligned, replaced = overlap, past[-overlap:], []
    else:
        known, aligned, replaced = prefix, past[:prefix], past[prefix:]
    return Plan(
        lead=(),
        history=(),
        messages=_with_own_activity(request, aligned, start=0),
        append=request.counted[known:],
        append_digests=request.digests[known:],
        supersede=(*(e.seq for item in replaced for e in item.entries), *lost),
    )


def _with_own_activity(
    request: _Request, aligned: Sequence[Seen], *, start: int
) -> tuple[Message, ...]:
    """Return M from *start* on, with what Edwin's tools did in the known part of it."""
    behind = {
        place: item.entries
        for place, item in zip(request.places, aligned, strict=False)
        if len(item.entries) > 1
    }
    result: list[Message] = []
    for place in range(start, len(request.sent)):
        if place in behind:
            result.extend(entry.message for entry in behind[place])
        else:
            result.append(request.sent[place])
    return tuple(result)


def _open_calls(past: Sequence[Seen]) -> set[str]:
    """Return the calls of T's last assistant message that nobody has answered."""
    answered: set[str] = set()
    for item in reversed(past):
        for entry in reversed(item.entries):
            if entry.message["role"] == "tool":
                answered.add(entry.message["tool_call_id"])
            elif entry.message["role"] == "assistant":
                return call_ids([entry.message]) - answered
    return set()


def _check_tools(request: _Request, calls: set[str], *, known: int) -> None:
    """Refuse a tool message that answers none of *calls*, nor one of M's before it.

    M's first *known* messages are T's own and were checked when they came.
    """
    asked = set(calls)
    for count, message in enumerate(request.counted):
        asked |= call_ids([message])
        if count < known or message["role"] != "tool":
            continue
        if message["tool_call_id"] not in asked:
            place = request.places[count]
            raise InvalidRequest(
                f"messages[{place}] answers tool call "
                f"{shorten(message['tool_call_id'])!r}, which no message before it "
                "asks for",
                param=f"messages[{place}].tool_call_id",
                code="invalid_value",
            )
