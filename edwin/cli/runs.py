"""``edwin runs``: which there are and were, and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edwin.cli import output
from edwin.cli.common import check_text, config_option, json_option
from edwin.cli.reach import Document, Keeper, carry_out, collected, every, url_option

STATES = ("queued", "running", "finished", "cancelled", "failed")
HEAD = ("RUN", "STATE", "AGENT", "CREATED", "SECONDS", "TOKENS", "ERROR", "SESSION")

_agent = click.option("--agent", help="Only those of this agent.")
_session = click.option("--session", help="Only those of the session with this key.")
_state = click.option(
    "--state", type=click.Choice(STATES), help="Only those in this state."
)


@click.group("runs")
def runs_group() -> None:
    """See which runs there are and were, and end them."""


@runs_group.command("list")
@config_option
@url_option
@_agent
@_session
@_state
@click.option(
    "--limit", type=click.IntRange(1), default=20, help="How many; default: 20."
)
@json_option
def list_(
    path: Path | None, url: str | None, limit: int, as_json: bool, **wanted: str | None
) -> None:
    """List runs, newest first."""
    check_text(*wanted.values())

    async def work(keeper: Keeper) -> None:
        page = await collected(keeper.list_runs, limit, **wanted)
        if as_json:
            output.echo_json(page)
            return
        if page["data"]:
            rows = [_row(run) for run in page["data"]]
            click.echo("\n".join(output.table(HEAD, rows)))
        if page["has_more"]:
            click.echo("there are more: pass --limit", err=True)

    carry_out(path, url, work)


@runs_group.command()
@config_option
@url_option
@json_option
@click.argument("run_id")
def show(path: Path | None, url: str | None, as_json: bool, run_id: str) -> None:
    """Show a run, with its answer where that is kept."""
    check_text(run_id)

    async def work(keeper: Keeper) -> None:
        _print(await keeper.show_run(run_id), as_json=as_json)

    carry_out(path, url, work)


@runs_group.command()
@config_option
@url_option
@json_option
@click.argument("run_id")
def cancel(path: Path | None, url: str | None, as_json: bool, run_id: str) -> None:
    """End a run; without effect on one that has ended."""
    check_text(run_id)

    async def work(keeper: Keeper) -> None:
        _print(await keeper.cancel_run(run_id), as_json=as_json)

    carry_out(path, url, work)


@runs_group.command()
@config_option
@url_option
@_agent
@_session
@_state
def export(path: Path | None, url: str | None, **wanted: str | None) -> None:
    """Print the ledger as lines of JSON, newest first."""
    check_text(*wanted.values())

    async def work(keeper: Keeper) -> None:
        async for run in every(keeper.list_runs, **wanted):
            output.echo_json(run)

    carry_out(path, url, work)


def _print(run: Document, *, as_json: bool) -> None:
    if as_json:
        output.echo_json(run)
        return
    names = (name.lower() for name in HEAD)
    pairs = [*zip(names, _row(run), strict=True), ("request", run["request_id"])]
    if run["tool_calls"]:
        pairs.append(("tool calls", str(run["tool_calls"])))
    if run["effects"]:
        pairs.append(("effects", "yes: nobody carries it out again"))
    error = run["error"]
    if error and error["message"]:
        pairs.append(("because", output.printable(error["message"])))
    click.echo("\n".join(output.facts(pairs)))
    if run["message"]:
        click.echo("\n" + output.message_text(run["message"]))


def _row(run: Document) -> tuple[str, ...]:
    return (
        run["id"],
        run["state"],
        run["agent"],
        output.moment(run["created_at"]),
        _seconds(run),
        str(run["usage"]["total_tokens"]) if run["usage"] else "-",
        run["error"]["code"] or "-" if run["error"] else "-",
        run["session_key"] or "-",
    )


def _seconds(run: dict[str, Any]) -> str:
    if run["finished_at"] is None:
        return "-"
    return f"{run['finished_at'] - run['created_at']:.1f}"
