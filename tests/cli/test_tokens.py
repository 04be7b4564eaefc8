"""``edwin token``: tokens made, listed, changed and revoked, whoever has the folder."""

from __future__ import annotations

import pytest
import yaml

from edwin.auth import Authenticator
from edwin.config import from_document
from edwin.validate import Schemas
from tests.cli.conftest import lines
from tests.conftest import Client

SCHEMAS = Schemas()


async def state_of(kept, token: str) -> int:
    return (await Client(kept).request("/v1/runs", token=token)).code


@pytest.mark.gen_test
async def test_cli_token_life(kept, command):
    """A token opens what it was made for, until it is rotated or revoked."""
    made = await command("token", "create", "ci", "--scope", "runs:read")
    first = made.stdout.strip()
    assert first.startswith("edw_ci_") and len(first) == len("edw_ci_") + 43
    assert await state_of(kept, first) == 200
    second = (await command("token", "rotate", "ci")).stdout.strip()
    assert [await state_of(kept, token) for token in (first, second)] == [401, 200]
    assert (await command("token", "revoke", "ci")).stdout == "revoked ci\n"
    assert await state_of(kept, second) == 401
    again = await command("token", "revoke", "ci")
    assert again.exit_code == 1 and "token_not_found" in again.stderr


@pytest.mark.gen_test
async def test_cli_token_documents(kept, command, settle):
    """The same words and documents, over HTTP and without a gateway."""
    await settle()
    options = ("--agent", "main", "--model", "x/*", "--requests-per-minute", "5")
    (made,) = lines(
        await command(
            *("token", "create", "ann", "--scope", "admin", "--json", *options),
            *("--expires", "2199-01-31", "--tools", "papers_*", "--tools", "clock"),
        )
    )
    SCHEMAS.check("tokens/token", made)
    assert (made["agents"], made["limits"]["requestsPerMinute"]) == (["main"], 5)
    assert made["tools"] == ["papers_*", "clock"]
    (page,) = lines(await command("token", "list", "--json"))
    SCHEMAS.check("tokens/token_list", page)
    assert [(x["id"], x["token"]) for x in page["data"]] == [("ann", None)]
    table = (await command("token", "list")).stdout
    assert "ann" in table and "2199-01-31" in table and made["token"] not in table
    twice = await command("token", "create", "ann", "--scope", "admin")
    assert twice.exit_code == 1 and "taken" in twice.stderr


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "words",
    [
        ("owner", "--scope", "admin"),
        ("Ann", "--scope", "admin"),
        ("ann", "--scope", "admin", "--expires", "2027-02-31"),
        ("ann", "--scope", "everything"),
        ("ann",),
    ],
)
async def test_cli_token_refuses(kept, command, words):
    """A name or day that cannot be, and scopes there are none, are refused."""
    assert (await command("token", "create", *words)).exit_code in (1, 2)
    assert not lines(await command("token", "list", "--json"))[0]["data"]


@pytest.mark.gen_test
async def test_cli_token_for_the_configuration(kept, command):
    """What is printed for the configuration lets the printed token in."""
    made = await command(
        *("token", "create", "ci", "--scope", "runs:read", "--for-config"),
        *("--tools", "papers_*"),
    )
    head, _, text = made.stdout.partition("\n")
    config = from_document(yaml.safe_load(text))
    auth = Authenticator(config.gateway.auth, token="another")
    principal, _ = auth.by_secret(head.removeprefix("# ").encode(), "127.0.0.1")
    assert principal.id == "ci" and principal.scopes == {"runs:read"}
    assert principal.tools == ("papers_*",)
    assert not lines(await command("token", "list", "--json"))[0]["data"]
