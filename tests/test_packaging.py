"""The package as others get it: complete, installable, runnable from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Return a wheel built from a copy of the checkout."""
    source = tmp_path_factory.mktemp("source") / "edwin"
    names = ["edwin", "schemas", "conf", "setup.py", "pyproject.toml"]
    source.mkdir()
    for name in [*names, "README.md", "LICENSE", "NOTICE"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    out = source / "dist"
    subprocess.run(
        [*(sys.executable, "-m", "build", "--wheel", "--no-isolation"), "-o", out],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_packaging_wheel_is_complete(wheel):
    """Every schema, default and migration is in the wheel, and no test."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, target in [("schemas", "edwin/schemas"), ("conf", "edwin/conf")]:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".json", ".yaml"):
                assert f"{target}/{path.relative_to(ROOT / folder)}" in names
    for path in (ROOT / "edwin").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    assert "edwin/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]


def test_packaging_wheel_runs_from_anywhere(wheel, tmp_path):
    """Installed in an environment of its own, the gateway runs from ``/``."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    # The dependencies are those of this environment; the package is the wheel's.
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--target", site, wheel], check=True)
    paths = [p for p in sys.path if p.endswith("site-packages")]
    (Path(site) / "shared.pth").write_text("\n".join(paths))
    config = tmp_path / "edwin.yaml"
    config.write_text(
        "gateway: {port: 0, auth: {token: a-token-for-tests-only}, "
        "http: {endpoints: {chatCompletions: {enabled: true}}}}\n"
        "agents: {defaults: {model: script/x}}\n"
        "models: {providers: {script: {api: scripted}}}\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "EDWIN_STATE_DIR": str(tmp_path / "state"),
    }
    command = [tmp_path / "env" / "bin" / "python", "-m", "edwin.gateway"]
    process = subprocess.Popen(
        [*command, "--config", config],
        cwd="/",
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        assert started["message"] == "listening", started
        url = f"http://127.0.0.1:{started['port']}/v1/chat/completions"
        request = urllib.request.Request(
            url,
            json.dumps(
                {"model": "edwin", "messages": [{"role": "user", "content": "ping"}]}
            ).encode(),
            {"Authorization": "Bearer a-token-for-tests-only"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            answer = json.load(response)
        assert answer["choices"][0]["message"]["content"] == "ping"
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stderr.close()
