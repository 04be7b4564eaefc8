"""Reconciliation over random conversations: nothing lost, nothing doubled."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.errors import InvalidRequest
from edwin.sessions.canonical import call_ids, digest, seen
from edwin.sessions.reconcile import plan
from edwin.sessions.window import cut, sendable
from edwin.types import Entry, Message, Transcript
from tests.sessions.test_reconcile import a, s, t, u

WORDS = st.sampled_from(["go", "ok", "hi", "1", "2", ""])
STATES = st.sampled_from(["finished", "finished", "finished", "cancelled"])


class Session:
    """A session as the store keeps it, driven by the plans made for it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.seq = 0
        self.runs = 0
        self.state: str | None = None
        self.delivered = True

    @property
    def transcript(self) -> Transcript:
        return Transcript(tuple(self.entries), self.seq, self.state, self.delivered)

    def append(self, message: Message, *, own: bool) -> None:
        self.seq += 1
        mark = digest(message)
        self.entries.append(Entry(self.seq, f"r{self.runs}", message, own, mark))

    def run(self, messages, answer, state, delivered, *, retry=False):
        """Carry out one run, and return its plan."""
        decided = plan(self.transcript, messages, retry=retry)
        gone = set(decided.supersede)
        self.entries = [e for e in self.entries if e.seq not in gone]
        self.runs += 1
        before = len(self.entries)
        for message in decided.append:
            self.append(message, own=False)
        for message in answer:
            self.append(message, own=True)
        if len(self.entries) > before:
            self.state, self.delivered = state, delivered
        return decided


@st.composite
def answers(draw) -> list[Message]:
    """What a run makes: text, calls of the client's tools, own tools' activity."""
    kind = draw(st.sampled_from(["text", "text", "calls", "own", "both", "nothing"]))
    number = draw(st.integers(0, 3))
    if kind == "text":
        return [a(draw(WORDS) or "x")]
    if kind == "calls":
        return [a(draw(WORDS), f"c{number}", f"d{number}")]
    if kind == "own":
        return [a(draw(WORDS), f"o{number}"), t(f"o{number}"), a("so")]
    if kind == "both":
        return [a("", f"o{number}", f"c{number}"), t(f"o{number}")]
    return []


@st.composite
def requests(draw, session: Session) -> list[Message]:
    """What clients send: all of it, the newest, a window, an edit, tool results."""
    visible = [
        {"role": "assistant", "content": text, **calls} if own else message
        for own, message, text, calls in as_seen(session)
    ]
    new = draw(st.lists(WORDS.map(u) | st.just(s("sys")), min_size=0, max_size=2)) or [
        u("next")
    ]
    kind = draw(st.sampled_from(["all", "new", "window", "edit", "tools", "wild"]))
    if kind == "all":
        return visible + new
    if kind == "window":
        return visible[draw(st.integers(0, len(visible))) :] + new
    if kind == "edit" and visible:
        place = draw(st.integers(0, len(visible) - 1))
        return [*visible[:place], u("edited"), *new]
    if kind == "tools":
        ids = draw(
            st.lists(st.sampled_from(["c0", "d0", "c1", "d1", "c2"]), max_size=2)
        )
        return [t(id) for id in ids] + (new if draw(st.booleans()) or not ids else [])
    if kind == "wild":
        return draw(st.lists(WORDS.map(u) | WORDS.map(a), min_size=1, max_size=5))
    return new


def as_seen(session: Session):
    """Yield (made by the run, message, text, calls) for what the client saw."""
    for item in seen(session.entries):
        first = item.entries[0]
        if not first.own:
            yield False, first.message, "", {}
            continue
        mine = [e.message for e in item.entries]
        answered = {m["tool_call_id"] for m in mine if m["role"] == "tool"}
        calls = [
            call
            for m in mine
            for call in m.get("tool_calls", ())
            if call["id"] not in answered
        ]
        text = "".join(m["content"] or "" for m in mine if m["role"] == "assistant")
        yield True, first.message, text, {"tool_calls": calls} if calls else {}


def counted(messages) -> list[bytes]:
    return [digest(m) for m in messages if m["role"] not in ("system", "developer")]


def is_subsequence(part, whole) -> bool:
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in part)


def check_provider_takes(messages) -> None:
    """Hold what every provider demands: calls answered at once, answers to calls."""
    due: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in due
            due.discard(message["tool_call_id"])
        else:
            assert not due
            due = call_ids([message])
    assert not due


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reconcile_invariants(data):
    """Nothing sent is lost, nothing is doubled, no call goes up unanswered."""
    session = Session()
    for _ in range(data.draw(st.integers(1, 6))):
        messages = data.draw(requests(session))
        retry = data.draw(st.booleans())
        before = session.transcript
        try:
            decided = session.run(
                messages,
                data.draw(answers()),
                data.draw(STATES),
                data.draw(st.booleans()),
                retry=retry,
            )
        except InvalidRequest as error:
            place = int(error.param.split("[")[1].split("]")[0])
            assert messages[place]["role"] == "tool"
            continue
        history = [entry.message for entry in decided.history]
        context = [*decided.lead, *history, *decided.messages]
        sent = counted(messages)

        # Nothing that the client sent is lost, on the way up or in the store. Where
        # Edwin's own tools ran, their activity stands for the text the client saw.
        folded = any(len(item.entries) > 1 for item in seen(before.entries))
        if not folded:
            assert is_subsequence(sent, counted(context))
            assert is_subsequence(sent, [e.digest for e in session.entries])
        # System messages go up as often as they were sent.
        systems = [m for m in context if m["role"] == "system"]
        assert len(systems) == sum(m["role"] == "system" for m in messages)
        # Nothing is doubled: what the context adds to M comes from T, once.
        taken = [entry.seq for entry in decided.history]
        assert len(context) <= len(messages) + len(before.entries)
        assert taken == sorted(set(taken))
        assert set(taken) <= {entry.seq for entry in before.entries}
        # Whatever is cut, a provider takes the rest.
        check_provider_takes(sendable(context))
        for size in (0, 2, 5):
            short = cut(
                decided.history, decided.messages, max_messages=size, max_tokens=10**6
            )
            check_provider_takes(sendable([*decided.lead, *short, *decided.messages]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_reconcile_clients_agree(data):
    """Who resends everything and who sends the newest only have one conversation."""
    full, newest = Session(), Session()
    carried: list[Message] = []
    for number in range(data.draw(st.integers(1, 6))):
        message = u(f"{data.draw(WORDS)} {number}")
        answer = a(data.draw(WORDS) or "x")
        one = full.run([*carried, message], [answer], "finished", True)
        two = newest.run([message], [answer], "finished", True)
        contexts = [
            counted([*(e.message for e in decided.history), *decided.messages])
            for decided in (one, two)
        ]
        assert contexts[0] == contexts[1]
        assert [e.digest for e in full.entries] == [e.digest for e in newest.entries]
        carried += [message, answer]
