"""The ``edwin`` command.

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong,
130 interrupted.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edwin import __version__
from edwin.errors import ConfigError, EdwinError

_log = logging.getLogger("edwin")


@click.group()
@click.version_option(__version__, prog_name="edwin")
def main() -> None:
    """Agents behind one port that speaks the OpenAI API."""


_config = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Configuration file; default: EDWIN_CONFIG, ./edwin.yaml, ~/.edwin/edwin.yaml",
)


@main.command()
@_config
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
    with _plain_errors():
        config = configuration.load(path, environ=os.environ, overrides=overrides)
        if check_config:
            _show(config.describe())
            return
        setup()
        stop_tracing = tracing.setup(os.environ)
        try:
            asyncio.run(_serve(config))
        finally:
            if stop_tracing is not None:
                stop_tracing()


async def _serve(config: Any) -> None:
    from edwin.gateway import Gateway

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    served = Gateway(config)
    await served.start()
    try:
        address, port = await served.listen()
        _spare_the_collector()
        _log.info("listening", extra={"fields": {"address": address, "port": port}})
        await stop.wait()
        _log.info("stopping")
    finally:
        await served.stop()
    _log.info("stopped")


def _spare_the_collector() -> None:
    """Let the garbage collector look at what is new, not at the whole gateway.

    A full collection stops the loop for tens of milliseconds and frees next to
    nothing: what there is at the start lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@main.command()
@_config
@click.option("-m", "--message", required=True, help="What to say.")
@click.option("--agent", default="", help="Who answers; default: main.")
@click.option("--user", help="Talk in this user's session.")
@click.option("--session", help="Talk in the session with this key.")
@click.option("--json", "as_json", is_flag=True, help="Print the completion object.")
@click.option("--local", is_flag=True, help="Run in this process, without a gateway.")
def agent(
    path: Path | None,
    message: str,
    agent: str,
    user: str | None,
    session: str | None,
    as_json: bool,
    local: bool,
) -> None:
    """Say something to an agent and print its answer as it comes."""
    from edwin import config as configuration
    from edwin.ids import new_id
    from edwin.types import ChatRequest

    if user is not None and session is not None:
        raise click.UsageError("--user and --session exclude each other")
    if not local:
        raise click.UsageError("pass --local: the agent then runs in this process")
    for text in (message, agent, user, session):
        if text and not _is_unicode(text):
            raise click.UsageError("the command line is not text in UTF-8")
    request = ChatRequest(
        messages=[{"role": "user", "content": message}],
        model="edwin",
        agent=agent,
        user=user,
        session_key=session,
        request_id=new_id("req"),
        log_fields={"surface": "cli"},
    )
    with _plain_errors():
        # A terminal is no place for the monitor's lines.
        quiet = {"gateway.monitor.blockedMs": 0}
        config = configuration.load(path, environ=os.environ, overrides=quiet)
        _interruptible(_say(config, request, as_json=as_json))


async def _say(config: Any, request: Any, *, as_json: bool) -> None:
    """Carry *request* out as the gateway would, and print what comes of it."""
    from edwin import dispatch
    from edwin.gateway import Gateway
    from edwin.types import OWNER, RefusalDelta, RunFailed, RunFinished, TextDelta
    from edwin.wire.openai import completion
    from edwin.wire.sse import json_line

    served = Gateway(config)
    await served.start()
    try:
        run = await dispatch.submit(served, request, OWNER)
        with run.events() as reader:
            async for event in reader:
                if isinstance(event, TextDelta | RefusalDelta) and not as_json:
                    click.echo(event.text, nl=False)
                elif isinstance(event, RunFailed):
                    raise event.error
        assert isinstance(run.end, RunFinished)
        run.delivered()
        if as_json:
            body = completion(
                run.end,
                run_id=run.id,
                created=int(run.created_at),
                model=f"edwin:{run.request.agent.id}",
            )
            click.echo(json_line(body))
        else:
            click.echo()
    finally:
        await served.stop()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong in a sentence, and exit with the code that goes with it."""
    try:
        yield
    except ConfigError as error:
        click.echo(error.message, err=True)
        sys.exit(2)
    except EdwinError as error:
        code = f" ({error.code})" if error.code else ""
        click.echo(f"edwin: {error.message}{code}", err=True)
        sys.exit(1)


def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Carry *work* out; Ctrl-C cancels it, and the command exits with 130."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_unicode(text: str) -> bool:
    """Return whether *text* can be encoded; bytes that are no UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(value: dict[str, Any]) -> None:
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


if __name__ == "__main__":
    main()
