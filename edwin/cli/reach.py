"""How a command comes by what a gateway keeps.

Where a gateway holds the state folder it is asked, over HTTP; else the command holds
the folder itself, and does in its own process what the gateway would do.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from edwin.cli.common import ALONE, fail, interruptible, plain_errors

if TYPE_CHECKING:
    from edwin.config import Config

Document = dict[str, Any]

PAGE = 100
"""As many items a gateway gives at once."""

url_option = click.option(
    "--url",
    help="The gateway to ask; default: the one that holds the state folder, if any.",
)


class Keeper(Protocol):
    """What keeps runs and sessions: a gateway, from wherever.

    As :class:`~edwin.client.HttpClient` has it.
    """

    async def list_runs(
        self,
        *,
        agent: str | None = None,
        session: str | None = None,
        state: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Document: ...

    async def show_run(self, run_id: str) -> Document: ...

    async def cancel_run(self, run_id: str) -> Document: ...

    async def list_sessions(
        self, *, agent: str | None = None, limit: int = 20, after: str | None = None
    ) -> Document: ...

    async def show_session(
        self,
        agent: str,
        key: str,
        *,
        after: int = 0,
        limit: int = 20,
        superseded: bool = False,
    ) -> Document: ...

    async def delete_session(self, agent: str, key: str) -> Document: ...

    async def reset_session(self, agent: str, key: str) -> Document: ...

    async def list_tokens(self) -> Document: ...

    async def create_token(self, document: Document) -> Document: ...

    async def rotate_token(self, id: str) -> Document: ...

    async def revoke_token(self, id: str) -> Document: ...


def carry_out(
    path: Path | None, url: str | None, work: Callable[[Keeper], Awaitable[None]]
) -> None:
    """Carry *work* out on what the configuration's gateway keeps, and exit if it fails.

    Args:
        path: The configuration's file, or None.
        url: The gateway to ask, or None.
        work: What to do.

    """
    from edwin import config as configuration
    from edwin.client import ClientError

    async def main() -> None:
        async with _reached(config, url) as keeper:
            await work(keeper)

    with plain_errors():
        config = configuration.load(path, environ=os.environ, overrides=ALONE)
        try:
            interruptible(main())
        except ClientError as error:
            fail(error.message, error.code)


async def collected(
    fetch: Callable[..., Awaitable[Document]], limit: int, **wanted: Any
) -> Document:
    """Return one page of what *fetch* lists, of any length."""
    data: list[Document] = []
    while True:
        page = await fetch(limit=min(limit - len(data), PAGE), **wanted)
        data += page["data"]
        if not page["has_more"] or len(data) >= limit:
            return {**page, "data": data}
        wanted["after"] = page["next"]


async def every(
    fetch: Callable[..., Awaitable[Document]], **wanted: Any
) -> AsyncIterator[Document]:
    """Yield all that *fetch* lists, page by page."""
    more = True
    while more:
        page = await fetch(limit=PAGE, **wanted)
        for item in page["data"]:
            yield item
        more, wanted["after"] = page["has_more"], page["next"]


@asynccontextmanager
async def _reached(config: Config, url: str | None) -> AsyncIterator[Keeper]:
    """Give what keeps the configuration's runs and sessions.

    Raises:
        StateError: If there is nothing, or a process holds it that does not listen.

    """
    from edwin import state
    from edwin.client import HttpClient
    from edwin.errors import StateError
    from edwin.tls import own_context

    folder, files = config.gateway.state_dir, config.gateway.tls
    tls = None
    if url is None:
        held_by = state.holder(folder)
        if held_by is None:
            async with _in_process(config) as keeper:
                yield keeper
            return
        url = held_by.url
        if url is None:
            raise StateError(
                f"the state folder {folder} is held by another Edwin process "
                f"({held_by}), which has not said where it listens; try again, or "
                "say it with --url"
            )
        if files and url.startswith("https:"):
            tls = own_context(files.cert_file)
    async with HttpClient(url, _secret(config), tls=tls) as client:
        yield client


def _secret(config: Config) -> str | None:
    """Return what the configuration's gateway wants to be shown."""
    from edwin.state import StateFolder

    auth = config.gateway.auth
    if auth.mode == "none":
        return None
    if auth.mode == "password":
        return auth.password
    return auth.token or StateFolder(config.gateway.state_dir).found_token()


@asynccontextmanager
async def _in_process(config: Config) -> AsyncIterator[Keeper]:
    """Hold the state folder, with a gateway that serves nobody else."""
    from dataclasses import replace

    from edwin.cli.bundle import DATABASE
    from edwin.cli.in_process import InProcess
    from edwin.errors import StateError
    from edwin.gateway import Gateway

    folder = config.gateway.state_dir
    if not (folder / DATABASE).exists():
        raise StateError(f"the state folder {folder} holds nothing yet")
    # Nothing is asked of a model, and some take long to start.
    gateway = Gateway(replace(config, providers={}))
    await gateway.start()
    try:
        yield InProcess(gateway)
    finally:
        await gateway.stop()
