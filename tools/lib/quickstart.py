"""Makes ``.venv`` and runs the gateway in it with ``conf/quickstart.yaml``.

Without an argument it prints how to call the gateway and serves until it is
interrupted.  With ``--check`` it keeps its state in a temporary folder, sends the
README's first curl with YOUR_TOKEN replaced and nothing else, prints the answer,
and exits by it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO

import environment
from environment import ROOT, say

HOST, PORT = "127.0.0.1", 18789
URL = f"http://{HOST}:{PORT}"
COMMAND = (
    *(ROOT / ".venv/bin/edwin", "gateway"),
    *("--config", ROOT / "conf/quickstart.yaml"),
)
START_S = 60
ANSWER_S = 300
STOP_S = 60


def serve() -> int:
    """Serve until the gateway ends; Ctrl-C and SIGTERM end it."""
    prepare()
    say(f"starting the gateway on {URL}")
    gateway = subprocess.Popen(COMMAND)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: gateway.terminate())
    if wait_ready(gateway):
        print(
            f"\nEdwin Gateway answers on {URL}; Ctrl-C stops it. Say hello:\n\n"
            f"{curl_line(dict(os.environ))}\n",
            flush=True,
        )
    code = gateway.wait()
    say("stopped" if code == 0 else f"the gateway ended with exit code {code}")
    return code


def check() -> int:
    """Let the README's curl be answered once; return 0 if it was."""
    prepare()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EDWIN_")}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+b") as log:
        environ["EDWIN_STATE_DIR"] = f"{folder}/state"
        environ["NO_PROXY"] = environ["no_proxy"] = HOST
        say(f"starting the gateway on {URL}")
        gateway = subprocess.Popen(COMMAND, env=environ, stderr=log)
        try:
            answered = wait_ready(gateway) and ask(environ)
        finally:
            gateway.terminate()
            stopped = ended(gateway)
        if not (answered and stopped):
            show(log)
        return 0 if answered and stopped else 1


def ask(environ: dict[str, str]) -> bool:
    """Send the documented curl; print the answer; return whether it is one."""
    command = documented_curl()
    say("sending the README's curl:")
    print(command, file=sys.stderr, flush=True)
    token = Path(environ["EDWIN_STATE_DIR"], "token").read_text("utf-8").strip()
    try:
        done = subprocess.run(
            ["bash", "-c", command.replace("YOUR_TOKEN", token)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        say(f"there was no answer within {ANSWER_S} s")
        return False
    try:
        text = json.loads(done.stdout)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        text = None
    if done.returncode or not isinstance(text, str) or not text.strip():
        say(f"this is no answer (exit {done.returncode}):")
        print(done.stdout + done.stderr, file=sys.stderr, flush=True)
        return False
    say("the model answers:")
    print(text, flush=True)
    return True


def documented_curl() -> str:
    """Return the README's plain call, word for word."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE):
        if "/v1/chat/completions" in block and " -N" not in block:
            return str(block).strip()
    sys.exit("README.md holds no plain curl call of /v1/chat/completions")


def curl_line(environ: dict[str, str]) -> str:
    """Return a call that works when pasted; the token itself is not in it."""
    token = "$(cat ~/.edwin/token)"
    if folder := environ.get("EDWIN_STATE_DIR"):
        path = Path(folder).expanduser().absolute() / "token"
        token = f"$(cat {shlex.quote(str(path))})"
    if environ.get("EDWIN_GATEWAY_TOKEN"):
        token = "$EDWIN_GATEWAY_TOKEN"
    return (
        f"curl {URL}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {token}" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"model": "edwin", "messages": [{"role": "user", "content": "hi"}]}\''
    )


def prepare() -> None:
    """Make the environment; exit with plain words if the gateway cannot start."""
    # First the port: the environment may be that of a gateway that is running.
    check_port()
    environment.main(ROOT / ".venv", "run")


def check_port() -> None:
    """Exit with plain words if something else listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, PORT))
        except OSError as error:
            sys.exit(
                f"==> {HOST}:{PORT} cannot be used ({error.strerror}): another "
                "gateway may be running.\n"
                "    Stop it, or choose another port:\n"
                "    .venv/bin/edwin gateway --config conf/quickstart.yaml --port 18790"
            )


def wait_ready(gateway: subprocess.Popen[bytes]) -> bool:
    """Return True once the gateway answers, False if it ended or never does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while gateway.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"{URL}/healthz", timeout=2):
                return True
        except OSError:
            time.sleep(0.1)
    if gateway.poll() is None:
        say(f"the gateway does not answer within {START_S} s")
        gateway.terminate()
    return False


def ended(gateway: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of a gateway that was asked to stop; return whether it did."""
    try:
        code = gateway.wait(STOP_S)
    except subprocess.TimeoutExpired:
        gateway.kill()
        gateway.wait()
        say(f"the gateway did not stop within {STOP_S} s")
        return False
    if code:
        say(f"the gateway ended with exit code {code}")
    return code == 0


def show(log: IO[bytes]) -> None:
    """Print the end of the gateway's log."""
    say("the gateway's log ends with:")
    log.seek(0)
    print(log.read().decode("utf-8", "replace")[-8000:], file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["--check"] else serve())
