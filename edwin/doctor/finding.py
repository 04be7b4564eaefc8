"""Finding: what a check has to say."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One thing that is right, or is not.

    Attributes:
        level: ``ok``, ``warning`` (it works, and could be better) or ``problem``.
        check: Which check found it, a word that stays.
        what: How it is; no secret.
        why: What follows from that; empty where all is right.
        fix: What to do; empty where there is nothing to do.

    """

    level: str
    check: str
    what: str
    why: str = ""
    fix: str = ""


def ok(check: str, what: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(OK, check, what)


def warning(check: str, what: str, why: str, fix: str) -> Finding:
    """Return that something could be better."""
    return Finding(WARNING, check, what, why, fix)


def problem(check: str, what: str, why: str, fix: str) -> Finding:
    """Return that something does not work, or is not safe."""
    return Finding(PROBLEM, check, what, why, fix)
