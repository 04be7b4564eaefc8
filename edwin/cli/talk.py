"""``edwin agent``: say something, and see the answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from edwin.cli.common import (
    ALONE,
    check_text,
    config_option,
    interruptible,
    plain_errors,
)
from edwin.cli.output import printable


@click.command()
@config_option
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
    check_text(message, agent, user, session)
    request = ChatRequest(
        messages=[{"role": "user", "content": message}],
        model="edwin",
        agent=agent,
        user=user,
        session_key=session,
        request_id=new_id("req"),
        log_fields={"surface": "cli"},
    )
    with plain_errors():
        config = configuration.load(path, environ=os.environ, overrides=ALONE)
        interruptible(_say(config, request, as_json=as_json))


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
                    # To a terminal the model gives no orders; a file has its words.
                    text = printable(event.text) if sys.stdout.isatty() else event.text
                    click.echo(text, nl=False)
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
