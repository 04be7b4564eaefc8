"""File descriptors bound how many runs there can be."""

from __future__ import annotations

import resource
import subprocess
import sys

from edwin.config import RunsConfig
from edwin.runs.limits import RESERVED, within_descriptors

LIMITS = RunsConfig(4, 10, 5, 60.0, 60.0)


def test_limits_leave_what_fits():
    """Where there are descriptors for all runs, nothing changes."""
    assert within_descriptors(LIMITS) is LIMITS


def test_limits_are_lowered_with_a_word(caplog):
    """Where there are not, as many are allowed as fit, and the log says so."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = RunsConfig(soft, 10, 5, 60.0, 60.0)
    assert within_descriptors(many).max_concurrent == (soft - RESERVED) // 2
    assert "maxConcurrent is lowered" in caplog.text


def test_limits_leave_one_run_at_least():
    """A process with hardly any descriptors still carries one run."""
    code = (
        "import resource\n"
        "from tests.runs.test_limits import LIMITS\n"
        "from edwin.runs.limits import within_descriptors\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "print(within_descriptors(LIMITS).max_concurrent)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
