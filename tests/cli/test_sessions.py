"""``edwin sessions``: the same words, whoever holds the state folder."""

from __future__ import annotations

import pytest

from edwin.cli.sessions import HEAD
from edwin.validate import Schemas
from tests.cli.conftest import lines
from tests.conftest import Client

SCHEMAS = Schemas()
KEY = "x-edwin-session-key"


async def talk(kept, *texts: str, key: str = "talk", agent: str = "main") -> None:
    """Say *texts* in a session, one after another."""
    for text in texts:
        headers = {KEY: key, "x-edwin-agent-id": agent}
        assert (await Client(kept).chat(text, headers=headers)).status == 200


@pytest.mark.gen_test
async def test_cli_sessions_list(kept, command, settle):
    """``list`` shows the sessions used last in a table, or as the API's list."""
    await talk(kept, "one", "two", key="first")
    await talk(kept, "one", key="agent:beta:second", agent="beta")
    await settle()
    (page,) = lines(await command("sessions", "list", "--json"))
    SCHEMAS.check("sessions/session_list", page)
    result = await command("sessions", "list")
    head, *rows = (line.split() for line in result.stdout.splitlines())
    assert head == list(HEAD)
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("beta", "2", "agent:beta:second"),
        ("main", "4", "first"),
    ]
    result = await command("sessions", "list", "--limit", "1")
    assert len(result.stdout.splitlines()) == 2 and "--limit" in result.stderr
    result = await command("sessions", "list", "--agent", "main", "--json")
    assert [session["key"] for session in lines(result)[0]["data"]] == ["first"]


@pytest.mark.gen_test
async def test_cli_sessions_show(kept, command, settle):
    """``show`` prints the whole transcript, harmless for the terminal."""
    texts = [f"text {number}\x1b[2J" for number in range(52)]
    kept.upstream.reply("an answer\nof two lines")
    await talk(kept, *texts)
    await settle()
    result = await command("sessions", "show", "talk")
    assert result.exit_code == 0
    assert [t for t in texts if t.replace("\x1b", "\\x1b") not in result.stdout] == []
    assert (
        "\x1b" not in result.stdout and "\nan answer\nof two lines\n" in result.stdout
    )
    (shown,) = lines(await command("sessions", "show", "talk", "--json"))
    SCHEMAS.check("sessions/transcript", shown)
    assert len(shown["data"]) == 104 and not shown["has_more"]


@pytest.mark.gen_test
async def test_cli_sessions_export(kept, command, settle):
    """``export`` prints a message a line; the key says whose agent's session it is."""
    await talk(kept, "one", "two", key="agent:beta:x", agent="beta")
    await settle()
    found = lines(await command("sessions", "export", "agent:beta:x"))
    assert [entry["message"]["role"] for entry in found] == ["user", "assistant"] * 2
    named = await command("sessions", "export", "agent:beta:x", "--agent", "BETA")
    assert lines(named) == found
    other = await command("sessions", "export", "agent:beta:x", "--agent", "main")
    assert other.exit_code == 1 and other.stderr.endswith("(session_not_found)\n")


@pytest.mark.gen_test
async def test_cli_sessions_reset(kept, command, settle):
    """``reset`` leaves an empty transcript; what was before is shown when asked for."""
    await talk(kept, "one")
    await settle()
    result = await command("sessions", "reset", "talk")
    assert (result.exit_code, result.stdout) == (0, "reset talk\n")
    assert lines(await command("sessions", "export", "talk")) == []
    old = lines(await command("sessions", "export", "talk", "--superseded"))
    assert [entry["current"] for entry in old] == [False, False]
    shown = await command("sessions", "show", "talk", "--superseded")
    assert shown.stdout.count("no part of the transcript") == 2
    (done,) = lines(await command("sessions", "reset", "talk", "--json"))
    SCHEMAS.check("sessions/was_reset", done)


@pytest.mark.gen_test
async def test_cli_sessions_delete(kept, command, settle):
    """``delete`` leaves nothing of a session, and the others as they are."""
    await talk(kept, "one", key="-gone")
    await talk(kept, "one", key="gone")
    await talk(kept, "one", key="stays")
    await settle()
    result = await command("sessions", "delete", "--", "-gone")
    assert (result.exit_code, result.stdout) == (0, "deleted -gone\n")
    (done,) = lines(await command("sessions", "delete", "gone", "--json"))
    SCHEMAS.check("sessions/deleted", done)
    (page,) = lines(await command("sessions", "list", "--json"))
    assert [session["key"] for session in page["data"]] == ["stays"]


@pytest.mark.gen_test
@pytest.mark.parametrize("verb", ["show", "export", "reset", "delete"])
async def test_cli_sessions_unknown(kept, command, settle, verb):
    """A session that does not exist is an error in the API's words, and exit code 1."""
    await settle()
    result = await command("sessions", verb, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("(session_not_found)\n")
