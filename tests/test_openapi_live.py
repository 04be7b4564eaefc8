"""A live gateway against its own contract, as schemathesis reads it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from edwin.testing.gateway import TOKEN
from tests.process import GatewayProcess, environment

# Cases for each operation; with those that cover the schemas some 3,000 requests.
BUDGET = 10
CONFIG = {
    # Wrong secrets are part of it.
    "gateway": {"auth": {"token": TOKEN, "limiter": {"exemptLoopback": True}}},
    "agents": {"defaults": {"model": "scripted/echo"}, "list": [{"id": "main"}]},
    "models": {"providers": {"scripted": {"api": "scripted"}}},
}
SETTINGS = f"""
headers = {{ Authorization = "Bearer {TOKEN}" }}
request-timeout = 30.0

[generation]
max-examples = {BUDGET}
database = "none"

[checks]
# What a schema cannot say of a request, the gateway refuses all the same.
positive_data_acceptance.enabled = false
# x-edwin-timeout-ms: 1 is a deadline that passes; the scripted model writes no JSON.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 504]
"""


def test_openapi_live_gateway_keeps_its_contract(tmp_path):
    """Whatever is asked, no 5xx, and every answer is one that the document promises."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS, "utf-8")
    program = Path(sys.executable).parent / "schemathesis"
    assert program.exists(), "schemathesis is missing: pip install -e '.[test]'"
    with GatewayProcess(tmp_path, CONFIG) as gateway:
        done = subprocess.run(
            [
                *(str(program), "--config-file", str(settings), "run"),
                *(f"{gateway.url}/openapi.json", "--exclude-path", "/ws"),
                *("--seed", str(seed), "--no-color"),
            ],
            cwd=tmp_path,
            env=environment(HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=300,
        )
        said = done.stdout + done.stderr
        print(said)
        gateway.terminate()
        assert gateway.wait() == 0
    assert done.returncode == 0, said
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in said
    assert not [line for line in gateway.lines if line.get("level") == "error"]
