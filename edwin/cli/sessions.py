"""``edwin sessions``: which there are, what was said, their end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from edwin.cli import output
from edwin.cli.common import check_text, config_option, json_option
from edwin.cli.reach import Document, Keeper, carry_out, collected, every, url_option

HEAD = ("AGENT", "MESSAGES", "USED", "CREATED", "KEY")
MANY = 2**31

_agent = click.option(
    "--agent", help="Whose session it is; default: the agent in the key, else main."
)
_superseded = click.option(
    "--superseded",
    is_flag=True,
    help="Also what is no part of the transcript any more.",
)
_key = click.argument("key")


@click.group("sessions")
def sessions_group() -> None:
    """See which sessions there are and what was said, and end them."""


@sessions_group.command("list")
@config_option
@url_option
@click.option("--agent", help="Only those of this agent.")
@click.option(
    "--limit", type=click.IntRange(1), default=20, help="How many; default: 20."
)
@json_option
def list_(
    path: Path | None, url: str | None, agent: str | None, limit: int, as_json: bool
) -> None:
    """List sessions, the ones used last first."""
    check_text(agent)

    async def work(keeper: Keeper) -> None:
        page = await collected(keeper.list_sessions, limit, agent=agent)
        if as_json:
            output.echo_json(page)
            return
        if page["data"]:
            rows = [_row(session) for session in page["data"]]
            click.echo("\n".join(output.table(HEAD, rows)))
        if page["has_more"]:
            click.echo("there are more: pass --limit", err=True)

    carry_out(path, url, work)


@sessions_group.command()
@config_option
@url_option
@_agent
@_superseded
@json_option
@_key
def show(
    path: Path | None,
    url: str | None,
    agent: str | None,
    superseded: bool,
    as_json: bool,
    key: str,
) -> None:
    """Show a session and all that was said in it."""
    agent = _agent_of(agent, key)

    async def work(keeper: Keeper) -> None:
        fetch = partial(keeper.show_session, agent, key, superseded=superseded)
        session = await collected(fetch, MANY)
        if as_json:
            output.echo_json(session)
            return
        names = (name.lower() for name in HEAD)
        pairs = list(zip(names, _row(session), strict=True))
        click.echo("\n".join(output.facts(pairs)))
        for entry in session["data"]:
            _print(entry)

    carry_out(path, url, work)


@sessions_group.command()
@config_option
@url_option
@_agent
@_superseded
@_key
def export(
    path: Path | None, url: str | None, agent: str | None, superseded: bool, key: str
) -> None:
    """Print a session's transcript as lines of JSON, oldest first."""
    agent = _agent_of(agent, key)

    async def work(keeper: Keeper) -> None:
        fetch = partial(keeper.show_session, agent, key, superseded=superseded)
        async for entry in every(fetch):
            output.echo_json(entry)

    carry_out(path, url, work)


@sessions_group.command()
@config_option
@url_option
@_agent
@json_option
@_key
def delete(
    path: Path | None, url: str | None, agent: str | None, as_json: bool, key: str
) -> None:
    """Delete all that is kept of a session; its runs are cancelled first."""
    agent = _agent_of(agent, key)

    async def work(keeper: Keeper) -> None:
        done = await keeper.delete_session(agent, key)
        output.echo_json(done) if as_json else click.echo(f"deleted {key}")

    carry_out(path, url, work)


@sessions_group.command()
@config_option
@url_option
@_agent
@json_option
@_key
def reset(
    path: Path | None, url: str | None, agent: str | None, as_json: bool, key: str
) -> None:
    """Let a session begin anew, behind the runs it has."""
    agent = _agent_of(agent, key)

    async def work(keeper: Keeper) -> None:
        done = await keeper.reset_session(agent, key)
        output.echo_json(done) if as_json else click.echo(f"reset {key}")

    carry_out(path, url, work)


def _agent_of(agent: str | None, key: str) -> str:
    """Return the agent that the command line means."""
    from edwin.sessions.keys import agent_of_key

    check_text(agent, key)
    return agent or agent_of_key(key) or "main"


def _row(session: Document) -> tuple[str, ...]:
    return (
        session["agent"],
        str(session["messages"]),
        output.moment(session["used_at"]),
        output.moment(session["created_at"]),
        session["key"],
    )


def _print(entry: Document) -> None:
    message = entry["message"]
    left = "" if entry["current"] else "  (no part of the transcript)"
    click.echo(f"\n#{entry['seq']} {message['role']}  {entry['run_id']}{left}")
    click.echo(output.message_text(message))
