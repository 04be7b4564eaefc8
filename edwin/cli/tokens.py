"""``edwin token``: who has a token of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edwin.cli import output
from edwin.cli.common import check_text, config_option, json_option
from edwin.cli.reach import Document, Keeper, carry_out, url_option
from edwin.types import SCOPES

HEAD = ("ID", "ORIGIN", "EXPIRES", "SCOPES")

_id = click.argument("id")


@click.group("token")
def token_group() -> None:
    """Give others tokens of their own, and take them back."""


@token_group.command()
@config_option
@url_option
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it opens; may be repeated.",
)
@click.option("--agent", "agents", multiple=True, help="Only this one; repeatable.")
@click.option("--model", "models", multiple=True, help="Only such; repeatable.")
@click.option("--tools", multiple=True, help="Only such of an agent's; repeatable.")
@click.option("--requests-per-minute", type=click.IntRange(1), help="At most so many.")
@click.option("--concurrent-runs", type=click.IntRange(1), help="At most so many.")
@click.option("--tokens-per-day", type=click.IntRange(1), help="At most so many.")
@click.option("--expires", help="From when on it is nobody's: 2027-01-31.")
@click.option(
    "--for-config", is_flag=True, help="Keep nothing; print what to configure."
)
@json_option
@_id
def create(
    path: Path | None,
    url: str | None,
    scopes: tuple[str, ...],
    agents: tuple[str, ...],
    models: tuple[str, ...],
    tools: tuple[str, ...],
    requests_per_minute: int | None,
    concurrent_runs: int | None,
    tokens_per_day: int | None,
    expires: str | None,
    for_config: bool,
    as_json: bool,
    id: str,
) -> None:
    """Make a token; it is shown once."""
    check_text(id, expires, *agents, *models, *tools)
    limits = {
        "requestsPerMinute": requests_per_minute,
        "concurrentRuns": concurrent_runs,
        "tokensPerDay": tokens_per_day,
    }
    given: Document = {
        "scopes": list(scopes),
        "agents": list(agents),
        "models": list(models),
        "tools": list(tools),
        "limits": {name: value for name, value in limits.items() if value},
        "expiresAt": expires,
    }
    document = {"id": id} | {name: value for name, value in given.items() if value}
    if for_config:
        _print_for_config(document)
        return

    async def work(keeper: Keeper) -> None:
        made = await keeper.create_token(document)
        output.echo_json(made) if as_json else click.echo(made["token"])

    carry_out(path, url, work)


@token_group.command("list")
@config_option
@url_option
@json_option
def list_(path: Path | None, url: str | None, as_json: bool) -> None:
    """List who has a token, without the tokens."""

    async def work(keeper: Keeper) -> None:
        page = await keeper.list_tokens()
        if as_json:
            output.echo_json(page)
        elif page["data"]:
            rows = [_row(found) for found in page["data"]]
            click.echo("\n".join(output.table(HEAD, rows)))

    carry_out(path, url, work)


@token_group.command()
@config_option
@url_option
@json_option
@_id
def rotate(path: Path | None, url: str | None, as_json: bool, id: str) -> None:
    """Make a new token in the place of one; the old one is nobody's at once."""
    check_text(id)

    async def work(keeper: Keeper) -> None:
        made = await keeper.rotate_token(id)
        output.echo_json(made) if as_json else click.echo(made["token"])

    carry_out(path, url, work)


@token_group.command()
@config_option
@url_option
@json_option
@_id
def revoke(path: Path | None, url: str | None, as_json: bool, id: str) -> None:
    """Let a token's holder in no more; what it has open ends."""
    check_text(id)

    async def work(keeper: Keeper) -> None:
        done = await keeper.revoke_token(id)
        output.echo_json(done) if as_json else click.echo(f"revoked {id}")

    carry_out(path, url, work)


def _print_for_config(document: Document) -> None:
    """Print a fresh token, and what stands for it in the configuration."""
    import yaml

    from edwin.auth import new_token

    id = document["id"]
    token, digest = new_token(id)
    rest = {name: value for name, value in document.items() if name != "id"}
    item: dict[str, Any] = {"id": id, "tokenHash": f"sha256:{digest.hex()}", **rest}
    text = yaml.safe_dump(
        {"gateway": {"auth": {"principals": [item]}}}, sort_keys=False
    )
    click.echo(f"# {token}\n{text}", nl=False)


def _row(found: Document) -> tuple[str, ...]:
    return (
        found["id"],
        found["origin"],
        output.moment(found["expires_at"]),
        " ".join(found["scopes"]),
    )
