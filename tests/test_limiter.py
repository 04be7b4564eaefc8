"""Guessing secrets: ten tries, then silence, for the guesser alone."""

from __future__ import annotations

import pytest

from edwin.addresses import client_address, neighbourhood
from edwin.config import from_document
from edwin.errors import ConfigError, TooManyFailures
from edwin.limiter import MAX_ADDRESSES, FailureLimiter
from edwin.testing.gateway import TOKEN
from tests.conftest import Client

RIGHT, WRONG = b"right", b"wrong"


def limiter(**options) -> FailureLimiter:
    return FailureLimiter(**{"exempt_loopback": False, **options})


def fail(guard: FailureLimiter, address: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        guard.check(address, WRONG, now)
        guard.failed(address, now)


def shut_out(guard: FailureLimiter, address: str, digest=WRONG, now=0.0) -> bool:
    try:
        guard.check(address, digest, now)
    except TooManyFailures:
        return True
    return False


def test_limiter_shuts_out_after_ten():
    """Ten wrong secrets in a minute shut an address out for five minutes."""
    guard = limiter()
    fail(guard, "192.0.2.1", 10)
    with pytest.raises(TooManyFailures) as caught:
        guard.check("192.0.2.1", RIGHT, 1.0)
    assert caught.value.headers == {"Retry-After": "299", "x-should-retry": "false"}
    assert shut_out(guard, "192.0.2.1", now=299.0)
    assert not shut_out(guard, "192.0.2.1", now=300.0)
    assert not shut_out(guard, "192.0.2.2")


def test_limiter_forgets_slow_failures():
    """Ten wrong secrets over more than a minute shut nobody out."""
    guard = limiter()
    for i in range(30):
        fail(guard, "192.0.2.1", 1, now=i * 7.0)
    assert not shut_out(guard, "192.0.2.1", now=210.0)


def test_limiter_lets_in_what_was_right_before():
    """A secret that was right from there within the hour is still looked at."""
    guard = limiter()
    guard.succeeded("192.0.2.1", RIGHT, 0.0)
    fail(guard, "192.0.2.1", 10, now=10.0)
    assert not shut_out(guard, "192.0.2.1", RIGHT, now=20.0)
    assert shut_out(guard, "192.0.2.1", WRONG, now=20.0)
    # From elsewhere it was never right.
    fail(guard, "192.0.2.2", 10, now=10.0)
    assert shut_out(guard, "192.0.2.2", RIGHT, now=20.0)
    fail(guard, "192.0.2.1", 10, now=3590.0)
    assert shut_out(guard, "192.0.2.1", RIGHT, now=3601.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_limiter_counts_by_neighbourhood(one, other, same):
    """IPv4 counts by address, mapped or not, IPv6 by /64."""
    guard = limiter()
    fail(guard, one, 10)
    assert shut_out(guard, other) is same
    assert (neighbourhood(one) == neighbourhood(other)) is same


def test_limiter_may_exempt_loopback():
    """Loopback is exempt only where the configuration says so."""
    for exempt in (True, False):
        for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
            guard = limiter(exempt_loopback=exempt)
            fail(guard, address, 10)
            assert shut_out(guard, address) is not exempt


def test_limiter_is_bounded():
    """Of too many addresses the oldest is forgotten."""
    guard = limiter()
    fail(guard, "10.0.0.1", 10)
    for i in range(MAX_ADDRESSES):
        guard.failed(f"11.{i >> 16}.{i >> 8 & 255}.{i & 255}", 0.0)
    assert not shut_out(guard, "10.0.0.1")
    assert len(guard._visitors) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:4711, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_limiter_address_behind_proxies(remote, forwarded, address):
    """The address is the last in X-Forwarded-For that is not a trusted proxy's."""
    config = from_document({"gateway": {"trustedProxies": ["10.0.0.0/8"]}})
    trusted = config.gateway.trusted_proxies
    assert client_address(remote, forwarded, trusted) == address
    assert client_address(remote, forwarded, ()) == remote


@pytest.mark.parametrize("network", ["10.0.0.1/8", "nonsense", "10.0.0.0/33"])
def test_limiter_trusted_proxies_are_networks(network):
    """A trusted proxy that is no network is named."""
    with pytest.raises(ConfigError, match=r"trustedProxies\[0\]"):
        from_document({"gateway": {"trustedProxies": [network]}})


@pytest.mark.gen_test
async def test_limiter_over_http(make_gateway):
    """Eleven wrong secrets: ten 401, then 429; who was right before stays in."""
    config = {"gateway": {"trustedProxies": ["127.0.0.1"]}}
    client = Client(await make_gateway(config))

    async def get(token: str, address: str = "203.0.113.9"):
        headers = {"X-Forwarded-For": address}
        return await client.request("/v1/models", headers=headers, token=token)

    assert (await get(TOKEN)).code == 200
    answers = [await get("wrong") for _ in range(11)]
    assert [answer.code for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 290
    assert b"too_many_failures" in answers[-1].body
    assert (await get(TOKEN)).code == 200
    assert (await get(TOKEN, "203.0.113.10")).code == 200


@pytest.mark.gen_test
async def test_limiter_over_the_socket(client):
    """A secret guessed in a ``connect`` frame counts like any other."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        codes = []
        for _ in range(11):
            async with session.ws_connect(client.served.url + "/ws") as socket:
                await socket.send_json(
                    {
                        "type": "req",
                        "id": "1",
                        "method": "connect",
                        "params": {"auth": {"token": "wrong"}},
                    }
                )
                codes.append((await socket.receive_json())["error"]["code"])
    assert codes == ["invalid_api_key"] * 10 + ["too_many_failures"]
