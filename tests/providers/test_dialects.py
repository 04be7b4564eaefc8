"""What each server sends, byte for byte as it comes over the socket, and what it means.

The samples in ``fixtures/`` are written after the servers' own documentation and
behaviour: ``.sse`` and ``.ndjson`` are streams, ``.json`` whole bodies, and a number
before that is the HTTP status of a refusal.  docs/providers.md tells the same in words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.config import load
from edwin.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)
from edwin.providers.base import provider_class
from edwin.providers.chunks import AnswerDecoder, ErrorAnswer, MalformedAnswer
from edwin.providers.sse import EventSplitter, WholeBody
from edwin.testing import Reply
from edwin.types import (
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

ROOT = Path(__file__).parent.parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
REQUEST = ModelRequest("m", [{"role": "user", "content": "Hello"}], {})

T, R, End, U = TextDelta, ReasoningDelta, TurnFinished, Usage
ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'
GREETING = [T("Grüß dich 👋"), End("stop")]
HELLO = [T("Hello"), T(" there")]
THOUGHT = [R("Two"), R(" words."), T("Hi there")]
WHOLE_THOUGHT = [R("Two words."), T("Hi there")]


def call(id: str, name: str, *pieces: str, index: int = 0) -> list[ToolCallDelta]:
    """Return the deltas of a call whose arguments come in *pieces*."""
    first, *others = pieces
    rest = [ToolCallDelta(index, None, None, piece) for piece in others]
    return [ToolCallDelta(index, id, name, first), *rest]


second, third = partial(call, index=1), partial(call, index=2)

ANSWERS: dict[str, list[Any]] = {
    # Ollama: reasoning, role in each chunk, whole calls; once without ids.
    "ollama/text.sse": [T("Grüß"), T(" dich 👋"), End("stop", U(26, 9))],
    "ollama/text.json": [T("Grüß dich 👋"), End("stop", U(26, 9))],
    "ollama/reasoning.sse": [*THOUGHT, End("stop", U(11, 8))],
    "ollama/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(11, 8))],
    "ollama/tools.sse": [
        *call("call_k1xq8zt0", "weather", ROME),
        *second("call_8f3m2a9c", "weather", OSLO),
        End("tool_calls", U(180, 44)),
    ],
    "ollama/tools.json": [
        *call("call_k1xq8zt0", "weather", ROME),
        End("tool_calls", U(180, 22)),
    ],
    "ollama/tools_old.sse": [
        *call("made-1", "weather", ROME),
        *second("made-2", "weather", OSLO),
        *third("made-3", "now", "{}"),
        End("tool_calls"),
    ],
    # vLLM: reasoning_content, then reasoning, then both; usage in each chunk.
    "vllm/text.sse": [*HELLO, End("stop", U(31, 3))],
    "vllm/text.json": [T("Hello there"), End("stop", U(31, 3))],
    "vllm/usage_in_each.sse": [*HELLO, End("stop", U(31, 3))],
    "vllm/reasoning_content.sse": [*THOUGHT, End("stop", U(31, 9))],
    "vllm/reasoning.sse": [*THOUGHT, End("stop", U(31, 9))],
    "vllm/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(31, 9))],
    "vllm/think_in_text.sse": [
        T("<think>"),
        T("Two words.</think>"),
        T("Hi there"),
        End("stop", U(31, 9)),
    ],
    "vllm/tools.sse": [
        *call("chatcmpl-tool-1a", "weather", "", '{"city": ', '"Rome"}'),
        *second("chatcmpl-tool-2b", "now", "", "{}"),
        End("tool_calls", U(210, 38)),
    ],
    "vllm/tools_interleaved.sse": [
        *call("chatcmpl-tool-1a", "weather", ""),
        *second("chatcmpl-tool-2b", "weather", ""),
        ToolCallDelta(0, None, None, '{"city":'),
        ToolCallDelta(1, None, None, '{"city":'),
        ToolCallDelta(1, None, None, '"Oslo"}'),
        ToolCallDelta(0, None, None, '"Rome"}'),
        End("tool_calls", U(210, 40)),
    ],
    "vllm/tools.json": [
        *call("chatcmpl-tool-1a", "weather", '{"city": "Rome"}'),
        *second("chatcmpl-tool-2b", "now", "{}"),
        End("tool_calls", U(210, 38)),
    ],
    "vllm/reason_without_calls.sse": [T("Sunny."), End("stop", U(210, 3))],
    # llama.cpp: timings beside the usage, whole answers without ids of calls.
    "llama_cpp/text.sse": [*HELLO, End("stop", U(17, 4))],
    "llama_cpp/text.json": [T("Hello there"), End("stop", U(17, 4))],
    "llama_cpp/usage_with_reason.sse": [T("Hello there"), End("stop", U(17, 4))],
    "llama_cpp/progress.sse": [T("Hello there"), End("length", U(17, 4))],
    "llama_cpp/reasoning.sse": [*THOUGHT, End("stop", U(17, 4))],
    "llama_cpp/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(17, 4))],
    "llama_cpp/tools.sse": [
        *call("s2VcTAlpwLLaWmqZvNaGpPyDUTDmNUBt", "weather", "", '{"city":', '"Rome"}'),
        End("tool_calls", U(17, 4)),
    ],
    "llama_cpp/tools.json": [
        *call("made-1", "weather", ROME),
        *second("made-2", "now", "{}"),
        End("tool_calls", U(17, 4)),
    ],
    "llama_cpp/python_tools.sse": [
        *call("call__0_weather_cmpl-9", "weather", '{"city"', ': "Rome"}'),
        End("tool_calls"),
    ],
    "lm_studio/text.sse": [*HELLO, End("stop", U(21, 3))],
    "lm_studio/text.json": [T("Hello there"), End("stop", U(21, 3))],
    "lm_studio/tools.sse": [
        *call("365174485", "weather", "", '{"city"', ':"Rome"}'),
        End("tool_calls"),
    ],
    # OpenRouter: comments, reasoning twice, details that may be encrypted, cost.
    "openrouter/text.sse": [*HELLO, End("stop", U(19, 12))],
    "openrouter/text.json": [T("Hello there"), End("stop", U(19, 12, 8, 6))],
    "openrouter/reasoning.sse": [*THOUGHT, End("stop", U(19, 12, 8, 6))],
    "openrouter/reasoning_details.sse": [
        *WHOLE_THOUGHT,
        End("stop", U(19, 12, 8, 6)),
    ],
    "openrouter/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(19, 12, 8, 6))],
    "openrouter/tools.sse": [
        *call("toolu_01A", "weather", "", '{"city": "Ro', 'me"}'),
        End("tool_calls", U(19, 12, 8, 6)),
    ],
    # Azure: chunks without choices, and choices without a delta, for its filter.
    "azure/text.sse": [*HELLO, End("stop", U(1210, 3, 1024))],
    "azure/text.json": [T("Hello there"), End("stop", U(1210, 3, 1024))],
    "azure/filter_async.sse": [T("Hello there"), End("stop")],
    "azure/filtered_midway.sse": [T("Once"), End("content_filter")],
    "azure/tools.sse": [
        *call("call_Rk1", "weather", "", '{"city":', '"Rome"}'),
        End("tool_calls"),
    ],
    "sglang/reasoning.sse": [*WHOLE_THOUGHT, End("stop", U(16, 4))],
    "sglang/tools.sse": [
        *call("call_7f", "weather", "", '{"city": "Rome"}'),
        End("tool_calls"),
    ],
    "sglang/lmdeploy_tools.sse": [
        *call("0", "weather", "", ROME),
        *second("1", "now", "", "{}"),
        End("tool_calls"),
    ],
    "mistral/reasoning.sse": [
        R("Two"),
        R(" words."),
        T("Hi"),
        T(" there"),
        End("stop", U(10, 15)),
    ],
    "mistral/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(10, 15))],
    "mistral/tools.sse": [
        *call("D681PevKs", "weather", '{"city": "Rome"}'),
        *second("k2xQ9aPz1", "now", "{}"),
        End("tool_calls", U(10, 15)),
    ],
    "mistral/length.sse": [T("Hello"), End("length", U(10, 15))],
    "groq/text.sse": [*HELLO, End("stop", U(37, 4))],
    "groq/tools.sse": [
        *call("call_d5wg", "weather", ROME),
        End("tool_calls", U(37, 4)),
    ],
    # Gemini: no indexes, or each 0; thinking in the total alone; words of its own.
    "gemini/text.sse": [*HELLO, End("stop", U(4, 29))],
    "gemini/tools.sse": [
        *call("function-call-1", "weather", ROME),
        *second("made-1", "now", "{}"),
        End("tool_calls"),
    ],
    "gemini/tools_zero.sse": [
        *call("made-1", "weather", ROME),
        *second("made-2", "weather", OSLO),
        End("tool_calls"),
    ],
    "gemini/tools_split.sse": [
        *call("function-call-1", "weather", '{"city"', ':"Rome"}'),
        End("tool_calls"),
    ],
    "gemini/length.sse": [T("Hello"), End("length")],
    "gemini/blocked.sse": [End("content_filter")],
    "gemini/safety.sse": [T("Once"), End("content_filter")],
    "deepseek/reasoning.sse": [*WHOLE_THOUGHT, End("stop", U(12, 9, 4, 5))],
    "deepseek/reasoning.json": [*WHOLE_THOUGHT, End("stop", U(12, 9, 4, 5))],
    # What any server, or a proxy before it, may do to the frame of an answer.
    "plain/crlf.sse": GREETING,
    "plain/cr.sse": GREETING,
    "plain/bom.sse": GREETING,
    "plain/bom.json": GREETING,
    "plain/no_blank.sse": GREETING,
    "plain/fields.sse": GREETING,
    "plain/several_lines.sse": GREETING,
    "plain/no_last_blank.sse": GREETING,
    "plain/no_done.sse": GREETING,
    "plain/no_reason.sse": GREETING,
    "plain/done_blank.sse": GREETING,
    "plain/after_done.sse": GREETING,
    "plain/choices_null.sse": GREETING,
    "plain/zero_usage.sse": GREETING,
    "plain/other_words.sse": GREETING,
    "plain/stream_as_json.json": GREETING,
    "plain/whole_as_text.txt": GREETING,
    "plain/late_name.sse": [*call("c1", "weather", ROME), End("tool_calls")],
    "plain/all_again.sse": [
        *call("c1", "weather", '{"city"', ':"Rome"}'),
        End("tool_calls"),
    ],
    "plain/name_again.sse": [
        *call("made-1", "weather", '{"city"', ':"Rome"}'),
        End("tool_calls"),
    ],
    "plain/arguments_object.sse": [
        *call("c1", "weather", ROME),
        *second("c2", "now", ""),
        *third("c3", "noon", ""),
        ToolCallDelta(1, None, None, "{}"),
        ToolCallDelta(2, None, None, "{}"),
        End("tool_calls"),
    ],
    "plain/function_call.sse": [
        *call("made-1", "weather", "", ROME),
        End("tool_calls"),
    ],
    "plain/function_call.json": [*call("made-1", "weather", ROME), End("tool_calls")],
}

# What came before the fault, its kind, and what the log says of it.
FAULTS: dict[str, tuple[list[Any], type[EdwinError], str]] = {
    "ollama/native.ndjson": ([], ProviderError, "baseUrl is to end in /v1"),
    "ollama/native.json": ([], ProviderError, "baseUrl is to end in /v1"),
    "vllm/error_first.sse": ([], ProviderUnavailable, "EngineCore encountered"),
    "vllm/error_flat.sse": ([], ProviderUnavailable, "EngineCore encountered"),
    "vllm/error_midway.sse": ([T("Hel")], ProviderStreamError, "EngineCore"),
    "vllm/abort.sse": ([T("Hel")], ProviderStreamError, "finish reason is abort"),
    "llama_cpp/error_midway.sse": ([T("Hel")], ContextLengthExceeded, "has been ex"),
    "llama_cpp/error_old.sse": ([T("Hel")], ProviderStreamError, "slot unavailable"),
    "lm_studio/too_long.sse": ([], ContextLengthExceeded, "31430 tokens"),
    "lm_studio/error_flat.sse": ([], ProviderError, "Exit code: 6"),
    "lm_studio/error_words.sse": ([], ProviderError, "Model unloaded."),
    "lm_studio/error_midway.sse": ([T("Hel")], ProviderStreamError, "Compute error."),
    "lm_studio/wrong_path.json": ([], ProviderError, "baseUrl is to end in /v1"),
    "openrouter/error_first.sse": ([], ProviderRateLimited, "rate-limited upstream"),
    "openrouter/error_midway.sse": ([T("Hel")], ProviderStreamError, "disconnected"),
    "openrouter/error.json": ([], ProviderUnavailable, "upstream overloaded"),
    "openrouter/error_in_choice.json": ([], ProviderUnavailable, "Upstream error"),
    "sglang/abort.sse": ([], ProviderUnavailable, "finish reason is abort"),
    "sglang/busy.sse": ([], ProviderUnavailable, "queue is full"),
    "groq/error_midway.sse": ([T("Hel")], ProviderStreamError, "Internal server error"),
    "deepseek/no_resource.sse": ([T("Hel")], ProviderStreamError, "insufficient_sys"),
    "plain/error_string.sse": ([], ProviderError, "upstream gave up"),
    "plain/error_string.json": ([], ProviderError, "upstream gave up"),
    "plain/error_bare.sse": ([], ProviderUnavailable, "worker died"),
    "plain/error_types.sse": ([], ProviderUnavailable, "worker died"),
    "plain/error_nested.sse": ([], ProviderRateLimited, "slow down"),
    "plain/error_after_reason.sse": (GREETING[:1], ProviderStreamError, "worker died"),
    "plain/words.sse": ([], ProviderStreamError, "upstream connect error"),
    "plain/words_in_data.sse": ([], ProviderStreamError, "Internal Server Error"),
    "plain/page.sse": ([], ProviderStreamError, "502 Bad Gateway"),
    "plain/empty.sse": ([], ProviderStreamError, "ended before it was complete"),
}

# The kind of a refusal, and what its message says.
REFUSALS: dict[str, tuple[type[EdwinError], str]] = {
    "ollama/unknown_model.404.json": (ProviderError, "no such model: pull it first"),
    "ollama/no_tools.400.json": (ProviderError, "cannot use tools with this model"),
    "ollama/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "ollama/wrong_path.404.txt": (ProviderError, "acme.baseUrl is to end in /v1"),
    "ollama/busy.503.json": (ProviderUnavailable, "cannot answer now"),
    "vllm/unknown_model.404.json": (ProviderError, "it has no such model"),
    "vllm/unknown_model_old.404.json": (ProviderError, "it has no such model"),
    "vllm/wrong_path.404.json": (ProviderError, "baseUrl or the name of the model"),
    "vllm/no_key.401.json": (ProviderError, "apiKey is missing or wrong"),
    "vllm/no_tools.400.json": (ProviderError, "cannot use tools with this model"),
    "vllm/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "vllm/too_long_old.400.json": (ContextLengthExceeded, "shorten the messages"),
    "llama_cpp/loading.503.json": (ProviderUnavailable, "cannot answer now"),
    "llama_cpp/no_key.401.json": (ProviderError, "apiKey is missing or wrong"),
    "llama_cpp/no_tools.500.json": (ProviderError, "cannot use tools with this model"),
    "llama_cpp/unknown_model.400.json": (ProviderError, "it has no such model"),
    "llama_cpp/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "lm_studio/none_loaded.404.json": (ProviderError, "it has loaded no model"),
    "lm_studio/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "openrouter/no_key.401.json": (ProviderError, "apiKey is missing or wrong"),
    "openrouter/no_credit.402.json": (ProviderError, "no credit left"),
    "openrouter/unknown_model.400.json": (ProviderError, "it has no such model"),
    "openrouter/no_tools.404.json": (ProviderError, "cannot use tools with this"),
    "openrouter/flagged.403.json": (ContentFiltered, "content filter of provider"),
    "openrouter/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "openrouter/limited.429.json": (ProviderRateLimited, "called less often"),
    "azure/filtered.400.json": (ContentFiltered, "content filter of provider"),
    "azure/no_deployment.404.json": (ProviderError, "no deployment of the model's"),
    "azure/wrong_path.404.json": (ProviderError, "baseUrl or the name of the model"),
    "azure/no_key.401.json": (ProviderError, "apiKey is missing or wrong"),
    "azure/limited.429.json": (ProviderRateLimited, "called less often"),
    "azure/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "sglang/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "mistral/unknown_model.400.json": (ProviderError, "it has no such model"),
    "mistral/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "mistral/limited.429.json": (ProviderRateLimited, "called less often"),
    "groq/unknown_model.404.json": (ProviderError, "it has no such model"),
    "groq/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "groq/limited.429.json": (ProviderRateLimited, "called less often"),
    "gemini/no_key.400.json": (ProviderError, "apiKey is missing or wrong"),
    "gemini/signature_wanted.400.json": (ProviderError, "wants the model's thinking"),
    "gemini/unknown_model.404.json": (ProviderError, "it has no such model"),
    "gemini/too_long.400.json": (ContextLengthExceeded, "shorten the messages"),
    "gemini/limited.429.json": (ProviderRateLimited, "called less often"),
    "deepseek/thinking_wanted.400.json": (ProviderError, "wants the model's thinking"),
    "deepseek/filtered.400.json": (ContentFiltered, "content filter of provider"),
    "deepseek/no_credit.402.json": (ProviderError, "no credit left"),
}
NAMES = {"llama_cpp": "llama.cpp", "lm_studio": "lm studio"}
KINDS = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".txt": "text/plain",
}


def sample(name: str) -> bytes:
    """Return the bytes of a fixture."""
    return (FIXTURES / name).read_bytes()


def read(name: str, *pieces: bytes) -> list[Any]:
    """Return what *pieces* mean, as the provider reads them; a fault as its last."""
    body = WholeBody() if name.endswith(".json") else EventSplitter()
    ids = itertools.count(1)
    answer = AnswerDecoder(lambda: f"made-{next(ids)}")
    found: list[Any] = []

    def events() -> Iterator[bytes]:
        for piece in pieces:
            yield from body.feed(piece)
        yield from body.finish()

    try:
        for event in events():
            found += answer.feed(event)
            if answer.done:
                break
        return [*found, answer.finish() if answer.complete else "incomplete"]
    except (ErrorAnswer, MalformedAnswer) as error:
        return [*found, repr(getattr(error, "error", error))]


def reply(name: str) -> Reply:
    """Return the fixture as an upstream sends it, with its content type."""
    _, *suffixes = Path(name).name.split(".")
    status = int(suffixes[0]) if len(suffixes) > 1 else 200
    kind = {"Content-Type": KINDS[f".{suffixes[-1]}"]}
    return Reply(body=sample(name), status=status, headers=kind)


async def ask(provider: Any) -> tuple[list[Any], EdwinError | None]:
    """Return the events of one call, and the error it ended with."""
    events: list[Any] = []
    try:
        async with aclosing(provider.stream(REQUEST)) as stream:
            async for event in stream:
                events.append(event)
    except EdwinError as error:
        return events, error
    return events, None


def told(events: list[Any]) -> list[Any]:
    """Return *events* with the ids that Edwin made up replaced as in the tables."""
    made = (delta.id for delta in events if isinstance(delta, ToolCallDelta))
    names: dict[str | None, str] = {}
    for id in made:
        if id is not None and len(id) == 29 and id.startswith("call_"):
            names.setdefault(id, f"made-{len(names) + 1}")
    return [
        ToolCallDelta(e.index, names[e.id], e.name, e.arguments)
        if isinstance(e, ToolCallDelta) and e.id in names
        else e
        for e in events
    ]


def test_dialects_know_every_sample():
    """Each sample has its meaning here, and no other is told."""
    samples = {
        str(path.relative_to(FIXTURES))
        for path in FIXTURES.rglob("*")
        if path.is_file()
    }
    assert samples == ANSWERS.keys() | FAULTS.keys() | REFUSALS.keys()


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ANSWERS)
async def test_dialects_are_understood(acme, upstream, name):
    """An answer of each server means the same, whatever its way to say it."""
    upstream.queue(reply(name))
    events, error = await ask(await acme())
    assert error is None
    assert told(events) == ANSWERS[name]


@pytest.mark.gen_test
@pytest.mark.parametrize("name", FAULTS)
async def test_dialects_of_faults_are_understood(acme, upstream, caplog, name):
    """An error in place of an answer, or in one, is never taken for its end."""
    before, kind, words = FAULTS[name]
    upstream.queue(reply(name))
    events, error = await ask(await acme(retries=0))
    assert events == before
    assert type(error) is kind
    (record,) = caplog.records
    assert words in record.getMessage()


@pytest.mark.gen_test
@pytest.mark.parametrize("name", REFUSALS)
async def test_dialects_of_refusals_are_understood(acme, upstream, name):
    """A refusal says what is to be mended, in Edwin's words."""
    kind, words = REFUSALS[name]
    upstream.queue(reply(name))
    events, error = await ask(await acme())
    assert events == []
    assert type(error) is kind
    assert words in error.message
    if kind is ContentFiltered:
        assert (error.status, error.code) == (400, "content_filter")
        assert error.param == "messages"


@pytest.mark.parametrize("page", ["docs/providers.md", "examples/ollama.yaml"])
def test_dialects_documented_configuration_is_valid(page, tmp_path):
    """Every configuration that is shown makes its providers, options and all."""
    text = (ROOT / page).read_text("utf-8")
    shown = re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S) or [text]
    for number, snippet in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(snippet, "utf-8")
        config = load(file, environ={"HOME": str(tmp_path)})
        configs = [p for p in config.providers.values() if p.api != "local"]
        made = [provider_class(p.api)(p) for p in configs]
        assert made
        names = {provider.name for provider in made}
        for agent in config.agents.values():
            models = (agent.model, *agent.fallbacks)
            assert {model.split("/")[0] for model in models} <= names | {"local"}


def test_dialects_are_documented():
    """Each server that has samples has a place on the page about servers."""
    page = (ROOT / "docs" / "providers.md").read_text("utf-8").lower()
    for folder in FIXTURES.iterdir():
        assert folder.name == "plain" or NAMES.get(folder.name, folder.name) in page


@given(st.data())
@settings(deadline=None, max_examples=400)
def test_dialects_do_not_depend_on_the_cuts_of_the_network(data):
    """However a sample is cut into reads, the same deltas come out."""
    name = data.draw(st.sampled_from([*ANSWERS, *FAULTS]))
    body = sample(name)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    edges = [0, *sorted(cuts), len(body)]
    found = read(name, *(body[a:b] for a, b in itertools.pairwise(edges)))
    assert found == read(name, body)
    if name in ANSWERS:
        assert found == ANSWERS[name]


@pytest.mark.parametrize("name", [*ANSWERS, *FAULTS])
def test_dialects_may_come_byte_by_byte(name):
    """The slowest network is understood as well."""
    body = sample(name)
    pieces = (body[i : i + 1] for i in range(len(body)))
    assert read(name, *pieces) == read(name, body)
