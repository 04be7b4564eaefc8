"""What every command shares: its options, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from edwin.errors import ConfigError, EdwinError


def _beside(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Let Python find the modules that stand beside the configuration's file.

    Last of all, so that they replace no other.  Embedders see to that themselves.
    """
    named = path or os.environ.get("EDWIN_CONFIG")
    for candidate in (named,) if named else ("edwin.yaml", "~/.edwin/edwin.yaml"):
        file = os.path.abspath(os.path.expanduser(candidate))
        if os.path.isfile(file):
            folder = os.path.dirname(file)
            if folder not in sys.path:
                sys.path.append(folder)
                context.call_on_close(partial(sys.path.remove, folder))
            break
    return path


config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    callback=_beside,
    help="Configuration file; default: EDWIN_CONFIG, ./edwin.yaml, ~/.edwin/edwin.yaml",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, as the API gives it."
)

ALONE = {"gateway.monitor.blockedMs": 0, "gateway.runs.maxConcurrent": 1}
"""What a gateway is told that serves one command; a terminal is no place for a log."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say what is wrong in a sentence, and exit with the code that goes with it."""
    try:
        yield
    except ConfigError as error:
        click.echo(error.message, err=True)
        sys.exit(2)
    except EdwinError as error:
        fail(error.message, error.code)


def fail(message: str, code: str | None = None) -> NoReturn:
    """Say that the command failed, and exit."""
    click.echo(f"edwin: {message}" + (f" ({code})" if code else ""), err=True)
    sys.exit(1)


def interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Carry *work* out; Ctrl-C cancels it, and the command exits with 130."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(130)


def check_text(*texts: str | None) -> None:
    """Refuse what the command line has that is not text: bytes that are no UTF-8."""
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise click.UsageError("the command line is not text in UTF-8") from None
