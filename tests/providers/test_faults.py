"""Whatever a provider complains of becomes one of Edwin's errors."""

from __future__ import annotations

import json

import pytest

from edwin.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)
from edwin.providers.faults import fault, parse, retry_after_s, said

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("status", "kind", "repeatable"),
    [
        (301, ProviderError, False),
        (400, ProviderError, False),
        (401, ProviderError, False),
        (402, ProviderError, False),
        (403, ProviderError, False),
        (404, ProviderError, False),
        (408, ProviderUnavailable, True),
        (413, ProviderError, False),
        (422, ProviderError, False),
        (429, ProviderRateLimited, True),
        (500, ProviderUnavailable, True),
        (502, ProviderUnavailable, True),
        (503, ProviderUnavailable, True),
        (504, ProviderUnavailable, True),
        (529, ProviderUnavailable, True),
    ],
)
def test_faults_follow_the_status(status, kind, repeatable):
    """A refusal is final, a rate limit and a 5xx may pass."""
    error = fault("acme", status, {"message": "sk-secret: text of somebody"})
    assert type(error) is kind
    assert error.retryable is repeatable
    assert error.should_retry is (None if repeatable else False)
    assert "acme" in error.message
    assert "secret" not in error.message and "somebody" not in error.message


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "Please reduce the length."},
        {"message": "This model's maximum context length is 8192 tokens."},
        {"message": "Your input exceeds the context window of this model."},
        {"type": "exceed_context_size_error", "message": "", "n_ctx": 8192},
        {"message": "the request exceeds the available context size. try increasing"},
        {"message": "The decoder prompt (length 9) is longer than the maximum model "
         "length of 8."},
        {"message": "The input (9 tokens) is longer than the model's context length"},
        {"message": "the input length exceeds the context length"},
        "prompt too long; exceeded max context length by 4 tokens",
        "The number of tokens to keep from the initial prompt is greater than the "
        "context length",
        "the model is loaded with context length of only 4096 tokens",
        {"message": "Provider returned error", "metadata": {"raw": json.dumps(
            {"message": "This endpoint's maximum context length is 8192 tokens"})}},
        {"message": "Prompt contains 9 tokens, too large for model with 8 maximum "
         "context length"},
        {"message": "The input token count (9) exceeds the maximum number of tokens"},
        {"message": "prompt is too long: 210000 tokens > 200000 maximum"},
        {"message": "input length and `max_tokens` exceed context limit: 9 + 9 > 8"},
        {"message": "This model's maximum prompt length is 8 but the request has 9."},
        {"message": "total number of tokens in the prompt cannot exceed 4081"},
        {"message": "Input does not fit in context length. The input has 9 tokens"},
        {"message": "Context size has been exceeded."},
        {"message": "However, the model's context length is only 8 tokens"},
        {"message": "The prompt (total length 9) is too long to fit into the model"},
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400, 413, 422, 500])
def test_faults_recognise_an_overlong_context(error, status):
    """A context that is too long is the client's to shorten, whoever words it."""
    found = fault("acme", status, error)
    assert type(found) is ContextLengthExceeded
    assert (found.status, found.code) == (400, "context_length_exceeded")
    assert found.param == "messages"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "max_tokens is too large: 9. It supports at most 8 tokens"}),
        (400, {"message": "Invalid schema for response_format in context of messages"}),
        (413, "<html>413 Request Entity Too Large</html>"),
        (401, {"message": "the key is longer than the context length"}),
    ],
)
def test_faults_do_not_see_an_overlong_context_everywhere(status, error):
    """Other complaints about lengths stay refusals."""
    assert type(fault("acme", status, error)) is ProviderError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, ProviderRateLimited),
        ({"code": "rate_limit_exceeded"}, ProviderRateLimited),
        ({"type": "rate_limit_error"}, ProviderRateLimited),
        ({"code": "502"}, ProviderUnavailable),
        ({"type": "server_error", "code": None}, ProviderUnavailable),
        ({"type": "overloaded_error"}, ProviderUnavailable),
        ({"type": "InternalServerError", "code": 500}, ProviderUnavailable),
        ({"status": "503"}, ProviderUnavailable),
        ({"code": 401}, ProviderError),
        ({"code": "odd"}, ProviderError),
        ({"code": 42}, ProviderError),
        ({}, ProviderError),
        (None, ProviderError),
        ("sorry", ProviderError),
        (["sorry"], ProviderError),
    ],
)
def test_faults_in_place_of_an_answer(error, kind):
    """An error in a 200 answer goes by its own code; after text it broke the answer."""
    assert type(fault("acme", 200, error)) is kind
    later = kind if kind is ProviderRateLimited else ProviderStreamError
    assert type(fault("acme", 200, error, started=True)) is later


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "content_filter", "message": "The response was filtered"}),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (400, {"code": "invalid_prompt", "type": "invalid_request_error"}),
        (400, {"code": "content_policy_violation"}),
        (400, {"message": "Content Exists Risk", "code": "invalid_request_error"}),
        (403, {"code": 403, "metadata": {"reasons": [], "flagged_input": "words"}}),
        (200, {"code": "content_filter"}),
    ],
)
def test_faults_of_a_content_filter_are_the_requests(status, error):
    """What a provider will not answer is the client's to change, not the provider's."""
    found = fault("acme", status, error)
    assert type(found) is ContentFiltered
    assert (found.status, found.code) == (400, "content_filter")
    assert (found.param, found.should_retry) == ("messages", None)
    assert "acme" in found.message and "words" not in found.message


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "Unknown parameter: 'content_filter'"}),
        (403, {"code": 403, "metadata": {"provider_name": "flagged_input"}}),
        (403, {"code": 403, "metadata": None, "innererror": "odd"}),
    ],
)
def test_faults_do_not_see_a_content_filter_everywhere(status, error):
    """Its name alone is no word of a filter."""
    assert type(fault("acme", status, error)) is ProviderError


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, None, "; models.providers.acme.apiKey is missing or wrong"),
        (402, None, "; its account has no credit left"),
        (403, None, "; its key may not use this model"),
        (404, None, "; baseUrl or the name of the model is wrong"),
        (422, None, "; the gateway's log has its reason"),
        (404, {"message": "The model 'x' does not exist"}, "; it has no such model"),
        (400, {"code": "model_not_found"}, "; it has no such model"),
        (
            500,
            {"message": "tools param requires --jinja flag"},
            "; it cannot use tools",
        ),
        (200, {"code": "not_found_error"}, "baseUrl or the name of the model is wrong"),
        (200, "Unexpected endpoint or method.", "acme.baseUrl is to end in /v1"),
        (200, {"code": "ollama_native_api"}, "acme.baseUrl is to end in /v1"),
    ],
)
def test_faults_say_what_to_mend(status, error, words):
    """A refusal's message names the key, or the model, that is wrong."""
    found = fault("acme", status, error)
    assert type(found) is ProviderError
    assert words in found.message
    assert found.should_retry is False


@pytest.mark.parametrize("key", ["code", "type"])
def test_faults_know_an_empty_account(key):
    """No patience helps an account that is used up: nobody is asked to call again."""
    error = fault(
        "acme", 429, {key: "insufficient_quota"}, headers={"Retry-After": "1"}
    )
    assert type(error) is ProviderRateLimited
    assert error.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "Sun, 15 Jun 2025 15:06:50 GMT"}, 10.0),
        ({"Retry-After": "Sun, 15 Jun 2025 15:00:00 GMT"}, 0.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"RETRY-AFTER": "2"}, 2.0),
    ],
)
def test_faults_read_retry_after(headers, seconds):
    """Seconds, milliseconds and dates are understood; nonsense is as nothing."""
    assert retry_after_s(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("7.66s", 7.66),
        ("120ms", 0.12),
        ("1h2m", 3720.0),
        ("1d", 86400.0),
        ("3", 3.0),
        (f"{NOW + 9}", 9.0),
        (f"{(NOW + 9) * 1000:.0f}", 9.0),
        (f"{NOW - 9}", 0.0),
        ("soon", None),
        ("1s and more", None),
        ("-1s", None),
        ("", None),
    ],
)
def test_faults_read_when_a_limit_is_reset(reset, seconds):
    """Without ``Retry-After`` the reset of what is used up counts, however written."""
    used = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    found = retry_after_s(used, now=NOW)
    assert found == (seconds if seconds is None else pytest.approx(seconds))
    assert retry_after_s(used | {"Retry-After": "2"}, now=NOW) == 2


def test_faults_read_the_reset_of_what_is_used_up():
    """Of two limits only those without a rest count, the later one of both."""
    limits = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "5s",
        "x-ratelimit-remaining-tokens": "70",
        "x-ratelimit-reset-tokens": "50s",
    }
    assert retry_after_s(limits, now=NOW) == 5
    limits["x-ratelimit-remaining-tokens"] = "0"
    assert retry_after_s(limits, now=NOW) == 50
    assert retry_after_s({"X-RateLimit-Reset": "5"}, now=NOW) is None


@pytest.mark.parametrize(
    "error",
    [
        {"metadata": {"headers": {"Retry-After": 34}}},
        {"details": ["odd", {"@type": "RetryInfo", "retryDelay": "34s"}]},
    ],
)
def test_faults_read_a_wait_from_the_error(error):
    """What an error itself says of the wait counts where no header does."""
    assert fault("a", 429, error).retry_after_s == 34
    assert fault("a", 429, error, headers={"Retry-After": "7"}).retry_after_s == 7
    for odd in ({"metadata": {"headers": [1]}}, {"details": {}}, {"details": [{}]}):
        assert fault("a", 429, odd).retry_after_s is None


@pytest.mark.parametrize("status", [429, 503])
def test_faults_keep_retry_after(status):
    """How long to wait is passed on."""
    assert fault("a", status, None, headers={"Retry-After": "7"}).retry_after_s == 7


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": {"message": "m"}}', {"message": "m"}),
        (b'[{"error": {"message": "m"}}]', {"message": "m"}),
        (b'{"error": "m"}', "m"),
        (b'{"object": "error", "message": "m"}', {"object": "error", "message": "m"}),
        (b'{"detail": "m"}', {"detail": "m"}),
        (b"<html>\xff</html>", "<html>�</html>"),
        (b"", ""),
        (b'\xef\xbb\xbf{"error": "m"}', "m"),
        (b"[]", []),
    ],
)
def test_faults_parse_any_body(body, error):
    """The error is found in whatever it is wrapped in."""
    assert parse(body) == error


def test_faults_are_said_without_secrets():
    """The provider's words go to the log in one short line, without the keys."""
    error = {"message": "bad key sk-12345678 \n" + "x" * 1000}
    words = said(error, secrets=("sk-12345678",))
    assert words.startswith("bad key *** xxx")
    assert len(words) == 500
    assert said({"detail": "m"}, secrets=()) == '{"detail":"m"}'


def test_faults_are_said_with_the_words_behind_them():
    """An error that wraps another's says both."""
    error = {"message": "Provider returned error", "metadata": {"raw": "busy, key-1"}}
    assert said(error, secrets=("key-1",)) == "Provider returned error: busy, ***"
    error["metadata"]["raw"] = {"code": 5}
    assert said(error, secrets=()) == 'Provider returned error: {"code":5}'
