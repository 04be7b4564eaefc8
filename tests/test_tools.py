"""The scripts of ``tools/``: what they say, and what they install."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edwin.providers import llama_child

ROOT = Path(__file__).parent.parent
PINS = ROOT / "requirements"
BASH = shutil.which("bash") or "/bin/bash"


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* where the scripts' own modules can be imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools" / "lib")},
        capture_output=True,
        text=True,
        timeout=30,
    )


def pins(name: str) -> dict[str, str]:
    """Return the versions that ``requirements/<name>.txt`` pins."""
    text = (PINS / f"{name}.txt").read_text("utf-8")
    found = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))
    # Each pin has a hash, or pip would refuse the whole list.
    assert len(re.findall(r"== ?.*\\\n    --hash=sha256:[0-9a-f]{64}", text)) == len(
        found
    )
    assert "://" not in text
    return found


def curl_arguments(environ: dict[str, str]) -> list[str]:
    """Return what curl gets when the printed line is pasted into a shell."""
    code = f"import quickstart; print(quickstart.curl_line({environ!r}))"
    line = python(code).stdout
    # A function of that name stands in for the program, and shows its arguments.
    script = 'curl() { printf "%s\\0" "$@"; }\n' + line
    done = subprocess.run([BASH, "-c", script], env=environ, capture_output=True)
    return done.stdout.decode().split("\0")[:-1]


def test_tools_pin_every_requirement():
    """What is installed is pinned, and what is tested is what is run."""
    run, test = pins("run"), pins("test")
    assert run.items() <= test.items()
    setup = (ROOT / "setup.py").read_text("utf-8")
    listed = setup.partition("CORE = [")[2].partition("]")[0]
    core = {name.lower() for name in re.findall(r'"([A-Za-z0-9-]+)[<>=]', listed)}
    assert len(core) > 10 and {"tornado", "click"} <= core <= run.keys()
    assert {"pytest", "ruff", "mypy", "xllamacpp"} <= test.keys()


def test_tools_pin_the_weights():
    """The package with the weights is the one that the child process knows."""
    assert pins("local") == {llama_child.DISTRIBUTION: "0.1.2"}


def test_tools_run_prints_a_curl_line_that_works(tmp_path):
    """The line reads the token where it is, and does not hold it."""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    folders = {"~/.edwin": home, "a state": home | {"EDWIN_STATE_DIR": ""}}
    for folder, environ in folders.items():
        path = tmp_path / folder.removeprefix("~/")
        path.mkdir()
        (path / "token").write_text(f"token of {folder}\n", "utf-8")
        if "EDWIN_STATE_DIR" in environ:
            environ["EDWIN_STATE_DIR"] = str(path)
        words = curl_arguments(environ)
        assert words[0] == "http://127.0.0.1:18789/v1/chat/completions"
        assert f"Authorization: Bearer token of {folder}" in words
        assert json.loads(words[-1])["model"] == "edwin"
    own = home | {"EDWIN_GATEWAY_TOKEN": "my own"}
    assert "Authorization: Bearer my own" in curl_arguments(own)


def test_tools_check_sends_the_first_plain_curl_of_the_readme():
    """``tools/run --check`` sends what the README shows, word for word."""
    code = "import quickstart; print(quickstart.documented_curl())"
    command = python(code).stdout.strip()
    assert f"```bash\n{command}\n```" in (ROOT / "README.md").read_text("utf-8")
    assert "YOUR_TOKEN" in command and " -N" not in command


@pytest.mark.parametrize("script", ["run", "test"])
def test_tools_name_the_package_where_python_is_missing(script, tmp_path):
    """Without Python 3.11 the scripts say what to install."""
    for name in ("dirname", "bash"):
        (tmp_path / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    old = tmp_path / "python3"
    old.write_text(f'#!{BASH}\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        [BASH, ROOT / "tools" / script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_tools_name_the_package_where_venv_is_missing():
    """Without venv the scripts say what to install, in place of a traceback."""
    code = "import sys; sys.modules['ensurepip'] = None\n"
    done = python(code + "import environment; environment.check_venv()")
    assert done.returncode == 1
    assert re.search(r"apt-get install python3[.0-9]*-venv\n", done.stderr)
    assert "Traceback" not in done.stderr


def test_tools_leave_an_environment_that_is_as_it_should_be(tmp_path):
    """An environment is made anew only when what it is made from has changed."""
    code = f"""
import environment, pathlib, sys
folder = pathlib.Path({str(tmp_path)!r})
(folder / "bin").mkdir()
(folder / "bin" / "python").symlink_to(sys.executable)
root = environment.ROOT
names = ("requirements/run.txt", "requirements/local.txt", "setup.py", "pyproject.toml")
digest = environment.digest([root / name for name in names])
(folder / "made-from").write_text(digest)
environment.main(folder, "run")
print("left alone")
sys.modules["ensurepip"] = None
environment.main(folder, "test")
"""
    done = python(code)
    assert done.stdout == "left alone\n"
    # It would be, had this interpreter a venv module.
    assert "has no venv module" in done.stderr
