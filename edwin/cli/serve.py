"""``edwin gateway``: serve."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edwin.cli.common import config_option, plain_errors

if TYPE_CHECKING:
    from edwin.config import Config
    from edwin.notify import ServiceManager

_log = logging.getLogger("edwin")


@click.command()
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: a free one.")
@click.option("--bind", help="Address to listen on.")
@click.option("--check-config", is_flag=True, help="Say what would run, and exit.")
def gateway(
    path: Path | None, port: int | None, bind: str | None, check_config: bool
) -> None:
    """Serve until SIGTERM or SIGINT."""
    from edwin import config as configuration
    from edwin import tracing
    from edwin.log import setup

    given = {"gateway.port": port, "gateway.bind": bind}
    overrides = {key: value for key, value in given.items() if value is not None}
    with plain_errors():
        config = configuration.load(path, environ=os.environ, overrides=overrides)
        if check_config:
            _show(config.describe())
            return
        setup()
        _allow_open_files()
        stop_tracing = tracing.setup(os.environ)
        again = partial(
            configuration.load, path, environ=os.environ, overrides=overrides
        )
        try:
            asyncio.run(_serve(config, again))
        finally:
            if stop_tracing is not None:
                stop_tracing()


async def _serve(config: Config, again: Callable[[], Config]) -> None:
    from edwin.cli.reloads import Reloads
    from edwin.gateway import Gateway
    from edwin.notify import ServiceManager

    manager = ServiceManager(os.environ)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    served = Gateway(config)
    await served.start()
    reloads = Reloads(served, again)
    reloads.start()
    try:
        address, port = await served.listen()
        _spare_the_collector()
        _log.info("listening", extra={"fields": {"address": address, "port": port}})
        manager.ready(f"listening on {address}:{port}")
        # It goes on while runs come to their end.
        beat = asyncio.create_task(_beat(manager), name="beat")
        await stop.wait()
        await reloads.stop()
        _log.info("stopping")
        manager.stopping(served.config.gateway.shutdown_seconds)
    finally:
        await served.stop()
    beat.cancel()
    _log.info("stopped")


async def _beat(manager: ServiceManager) -> None:
    """Tell the service manager that the loop turns, for as long as it does."""
    while manager.beat_s is not None:
        await asyncio.sleep(manager.beat_s)
        manager.alive()


def _allow_open_files() -> None:
    """Let the process open as many files as it may: each run needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A system may refuse what it said itself; macOS does.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_the_collector() -> None:
    """Let the garbage collector look at what is new, not at the whole gateway.

    A full collection stops the loop for tens of milliseconds and frees next to
    nothing: what there is at the start lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _show(value: dict[str, Any]) -> None:
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
