"""A new session secret: sessions are found again, and no one has another's."""

from __future__ import annotations

import json

import pytest

from edwin.errors import StateError
from tests.conftest import Client

OLD, NEW, THIRD = "o" * 32, "n" * 32, "t" * 32


def secrets(*values: str) -> dict:
    return {"gateway": {"sessionSecrets": list(values)}}


def context(upstream) -> list[str]:
    return [m["content"] for m in upstream.requests[-1].body["messages"]]


@pytest.mark.gen_test
async def test_secrets_are_changed(make_gateway, tmp_path, upstream):
    """A session made under a former secret goes on under the first, whole."""
    place = {"state_dir": tmp_path / "s", "upstream": upstream}
    served = await make_gateway(secrets(OLD), **place)
    for user in ("ann", "bob"):
        first = await Client(served).chat(f"{user} 1", user=user)
    await served.stop()
    served = await make_gateway(secrets(NEW, THIRD, OLD), **place)
    client = Client(served)
    second = await client.chat("ann 2", user="ann")
    assert context(upstream) == ["ann 1", "ann 1", "ann 2"]
    assert second.headers["x-edwin-session-key"] != first.headers["x-edwin-session-key"]
    await client.chat("ann 3", user="ann")
    assert context(upstream)[:2] == ["ann 1", "ann 1"]
    listed = json.loads((await client.request("/v1/sessions")).body)["data"]
    assert len(listed) == 2
    runs = json.loads((await client.request("/v1/runs?limit=100")).body)["data"]
    key = second.headers["x-edwin-session-key"]
    assert sum(run["session_key"] == key for run in runs) == 3
    await served.stop()
    served = await make_gateway(secrets(NEW), **place)
    await Client(served).chat("ann 4", user="ann")
    assert context(upstream)[:2] == ["ann 1", "ann 1"]
    # Who had not come by while the former secret was there begins anew.
    await Client(served).chat("bob 2", user="bob")
    assert context(upstream) == ["bob 2"]


@pytest.mark.gen_test
async def test_secrets_that_are_others(make_gateway, tmp_path):
    """A store of a secret that is not named is refused."""
    served = await make_gateway(secrets(OLD), state_dir=tmp_path / "s")
    await served.stop()
    with pytest.raises(StateError, match="secret"):
        await make_gateway(secrets(NEW), state_dir=tmp_path / "s")


@pytest.mark.gen_test
async def test_secrets_new_user_has_nobodys_session(make_gateway, tmp_path, upstream):
    """A session that is there by the first secret is not replaced by a former one's."""
    place = {"state_dir": tmp_path / "s", "upstream": upstream}
    served = await make_gateway(secrets(OLD), **place)
    await Client(served).chat("old", user="ann")
    await served.stop()
    served = await make_gateway(secrets(NEW, OLD), **place)
    await Client(served).chat("hello", user="carl")
    assert context(upstream) == ["hello"]
