"""``edwin backup`` and ``edwin restore``: all that a gateway keeps, in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edwin.cli.common import config_option, interruptible, plain_errors
from edwin.cli.output import moment

if TYPE_CHECKING:
    from edwin.config import Config

_file = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@config_option
@_file
def backup(path: Path | None, file: Path) -> None:
    """Copy all that the gateway keeps to FILE, also while it runs."""
    from edwin import config as configuration

    with plain_errors():
        config = configuration.load(path, environ=os.environ)
        interruptible(_back_up(config, file))


@click.command()
@config_option
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Where to; default: the configuration's.",
)
@_file
def restore(path: Path | None, state_dir: Path | None, file: Path) -> None:
    """Put what FILE holds into a state folder that is empty or missing."""
    from edwin import config as configuration

    with plain_errors():
        if state_dir is None:
            config = configuration.load(path, environ=os.environ)
            state_dir = config.gateway.state_dir
        _restore(file, state_dir)


async def _back_up(config: Config, file: Path) -> None:
    """Make the backup *file*.

    Raises:
        StateError: If there is nothing to copy, or *file* is there or cannot be made.

    """
    from shutil import copyfile

    from edwin.cli import bundle
    from edwin.errors import StateError
    from edwin.state import SESSION_SECRET, TOKEN
    from edwin.store import Store

    folder = config.gateway.state_dir
    database = folder.resolve() / bundle.DATABASE
    if not database.exists():
        raise StateError(f"the state folder {folder} holds nothing yet")
    if file.exists():
        raise StateError(f"{file} is there already; name another file")
    if not (folder / SESSION_SECRET).exists():
        if not config.gateway.session_secrets:
            raise StateError(
                f"{folder / SESSION_SECRET} is missing: without it no session could "
                "be found again"
            )
        click.echo("gateway.sessionSecrets is not part of it: keep it too", err=True)
    with bundle.drafts(file) as place:
        await Store(f"sqlite:///{database}").backup(place / bundle.DATABASE)
        for name in (SESSION_SECRET, TOKEN):
            try:
                if (folder / name).exists():
                    copyfile(folder / name, place / name)
            except OSError as error:
                reason = f"{folder / name} cannot be copied: {error.strerror}"
                raise StateError(reason) from error
        manifest = bundle.pack(place, file)
    click.echo(f"{file}: {', '.join(manifest.digests)} of {folder}")


def _restore(file: Path, state_dir: Path) -> None:
    """Make the state folder *state_dir* of the backup *file*.

    Raises:
        StateError: If the folder is held or not empty, or *file* is no whole backup.

    """
    from edwin.cli import bundle
    from edwin.errors import StateError
    from edwin.state import StateFolder

    if not file.is_file():
        raise StateError(f"{file} is no file")
    _check_empty(state_dir)
    folder = StateFolder(state_dir)
    folder.acquire()
    try:
        _check_empty(state_dir)
        manifest = bundle.unpack(file, state_dir)
    finally:
        folder.release()
    at = moment(manifest.created_at)
    click.echo(f"{state_dir}: {', '.join(manifest.digests)} of {at}")


def _check_empty(state_dir: Path) -> None:
    """Refuse a folder with something in it beside what says who holds it.

    Raises:
        StateError: If there is something, or that cannot be told.

    """
    from edwin.errors import StateError

    try:
        found = sorted({path.name for path in state_dir.iterdir()} - {"lock"})
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"{state_dir} cannot be read: {error.strerror}") from error
    if found:
        raise StateError(
            f"the state folder {state_dir} is not empty ({found[0]}); move it away, or "
            "name another"
        )
