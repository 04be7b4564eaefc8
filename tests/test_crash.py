"""A gateway that is killed loses nothing it accepted, and repeats nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.process import environment

MOMENTS = 10


def test_crash_loses_and_repeats_nothing(tmp_path):
    """Killed at random moments under 20 sessions, nothing accepted is lost or redone.

    ``EDWIN_CRASH_SEED=… pytest tests/test_crash.py`` makes the same choices again.
    """
    seed = os.environ.get("EDWIN_CRASH_SEED")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tools.soak", "--crashes", str(MOMENTS)),
            *(("--seed", seed) if seed else ()),
        ],
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    figures = dict(line.rsplit(None, 1) for line in run.stdout.splitlines()[1:-1])
    # Otherwise nothing was at stake.
    assert int(figures["kills"]) == MOMENTS
    assert int(figures["lost"]) > 0 and int(figures["answered"]) > 0
