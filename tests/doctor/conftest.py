"""Configurations to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edwin.config import Config, from_document
from edwin.doctor import Finding

MakeConfig = Callable[..., Config]


@pytest.fixture
def state(tmp_path) -> Path:
    """Return where the configurations' state folder is; it is missing."""
    return tmp_path / "state"


@pytest.fixture
def make_config(state) -> MakeConfig:
    """Return configurations: ``make_config({"port": 0}, agents={…})``."""

    def make(gateway: dict[str, Any] | None = None, **sections: Any) -> Config:
        return from_document(
            {"gateway": {"stateDir": str(state), **(gateway or {})}, **sections}
        )

    return make


def told(findings) -> list[tuple[str, str]]:
    """Return the level of each finding and its first sentence."""
    findings = list(findings)
    for finding in findings:
        assert isinstance(finding, Finding)
        assert bool(finding.why) == bool(finding.fix) == (finding.level != "ok")
    return [(finding.level, finding.what) for finding in findings]
