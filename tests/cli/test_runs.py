"""``edwin runs``: the same words, whoever holds the state folder."""

from __future__ import annotations

import asyncio

import pytest

from edwin import ledger
from edwin.cli.runs import HEAD, STATES
from edwin.client import HttpClient
from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas
from tests.cli.conftest import lines
from tests.conftest import Client, chat

SCHEMAS = Schemas()


@pytest.mark.gen_test
async def test_cli_runs_list(kept, command, settle):
    """``list`` shows the newest runs in a table, or as the API's list."""
    for agent in ("main", "beta", "main"):
        answer = await Client(kept).chat("Hi", model=f"edwin:{agent}", user="ann")
        assert answer.status == 200
    kept.upstream.fail(401)
    assert (await Client(kept).chat("Hi", user="bob")).status == 502
    await settle()
    (page,) = lines(await command("runs", "list", "--json"))
    SCHEMAS.check("runs/run_list", page)
    failed, *finished = page["data"]
    assert failed["error"]["code"] == "provider_error"
    assert [run["agent"] for run in finished] == ["main", "beta", "main"]

    result = await command("runs", "list", "--agent", "main", "--state", "finished")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *rows = (line.split() for line in result.stdout.splitlines())
    assert head == list(HEAD)
    assert [row[0] for row in rows] == [finished[0]["id"], finished[2]["id"]]
    assert rows[0][1:3] == ["finished", "main"]
    assert rows[0][-1] == finished[0]["session_key"]
    assert rows[0][-3] == str(finished[0]["usage"]["total_tokens"])

    result = await command("runs", "list", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3 and "--limit" in result.stderr
    result = await command("runs", "list", "--session", "nobody")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.gen_test
async def test_cli_runs_show(kept, command, settle):
    """``show`` prints what is known of a run, and its answer where it is kept."""
    kept.upstream.reply("A bell: \x07")
    async with HttpClient(kept.url, TOKEN) as client:
        run = await client.start_run(chat("Hi"), session_key="talk")
        assert [e async for e in client.run_events(run["id"])]
    await settle()
    (shown,) = lines(await command("runs", "show", run["id"], "--json"))
    SCHEMAS.check("runs/run", shown)
    assert shown["message"]["content"] == "A bell: \x07"
    result = await command("runs", "show", run["id"])
    facts, answer = result.stdout.split("\n\n")
    known = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert known["run"] == run["id"] and known["state"] == "finished"
    assert known["session"] == "talk" and known["request"] == run["request_id"]
    assert answer == "A bell: \\x07\n"
    assert "effects" not in known


@pytest.mark.gen_test
async def test_cli_runs_show_effects(kept, command, settle):
    """``show`` says of a run that nobody carries it out again."""
    async with HttpClient(kept.url, TOKEN) as client:
        begun = await client.start_run(chat("Hi"))
        assert [e async for e in client.run_events(begun["id"])]
    run = kept.gateway.engine.find(begun["id"])
    run.effects = True
    await kept.gateway.store.open(run.record())
    await settle()
    result = await command("runs", "show", begun["id"])
    (line,) = (x for x in result.stdout.splitlines() if x.startswith("effects"))
    assert "nobody carries it out again" in line
    assert lines(await command("runs", "show", begun["id"], "--json"))[0]["effects"]


@pytest.mark.gen_test
async def test_cli_runs_export(kept, command, settle):
    """``export`` prints the whole ledger, a run a line, past the pages of the API."""
    client = Client(kept)
    answers = [client.chat("Hi", user=f"user {number}") for number in range(101)]
    answers = await asyncio.gather(*answers)
    await settle()
    found = lines(await command("runs", "export"))
    assert {run["id"] for run in found} == {
        answer.headers["x-edwin-run-id"] for answer in answers
    }
    (page,) = lines(await command("runs", "list", "--json", "--limit", "101"))
    assert found == page["data"] and not page["has_more"]
    assert lines(await command("runs", "export", "--state", "failed")) == []


@pytest.mark.gen_test
async def test_cli_runs_cancel(kept, command):
    """``cancel`` ends a run of the gateway that holds the state folder."""
    kept.upstream.hang(after=["half"])
    async with HttpClient(kept.url, TOKEN) as client:
        run = await client.start_run(chat("Hi"))
    await kept.upstream.arrival()
    result = await command("runs", "cancel", run["id"])
    assert result.exit_code == 0 and "cancelled" in result.stdout
    assert "because" in result.stdout
    await kept.upstream.requests[0].closed.wait()
    (again,) = lines(await command("runs", "cancel", run["id"], "--json"))
    assert again["state"] == "cancelled"
    await kept.stop()
    (alone,) = lines(await command("runs", "cancel", run["id"], "--json"))
    assert alone["state"] == "cancelled"


@pytest.mark.gen_test
async def test_cli_runs_unknown(kept, command, settle):
    """A run that does not exist is an error in the API's words, and exit code 1."""
    await settle()
    for verb in ("show", "cancel"):
        result = await command("runs", verb, "run_none")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "edwin: no such run: 'run_none' (run_not_found)\n"


def test_cli_runs_states():
    """``--state`` takes the states that there are."""
    assert STATES == ledger.STATES
