"""Are the libraries free of what is known to be wrong with them?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import NamedTuple

from edwin.doctor.finding import Finding, ok, problem


class Advisory(NamedTuple):
    """What was wrong with a library before a version.

    Attributes:
        fixed_in: The first version without any of it.
        id: The gravest, or latest.
        what: What it lets happen to a gateway.

    """

    fixed_in: str
    id: str
    what: str


ADVISORIES: Mapping[str, Advisory] = MappingProxyType(
    {
        "tornado": Advisory(
            "6.6.1", "CVE-2026-82397", "a request can hold the gateway up for long"
        ),
        "aiohttp": Advisory(
            "3.14.4", "CVE-2026-128131", "a provider can hold the gateway up for long"
        ),
        "orjson": Advisory(
            "3.11.6", "CVE-2025-67221", "a deeply nested document can end the process"
        ),
    }
)
"""Libraries that speak to strangers, or read what they sent."""


def check_versions(installed: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Compare the versions of libraries with our own list of advisories.

    Args:
        installed: Version of each; None: as they are installed here.

    """
    old = False
    found = _installed() if installed is None else installed
    for name, advisory in ADVISORIES.items():
        if name in found and _parts(found[name]) < _parts(advisory.fixed_in):
            old = True
            yield problem(
                "versions",
                f"{name} {found[name]} has known faults ({advisory.id})",
                advisory.what,
                f"install {name} {advisory.fixed_in} or later",
            )
    if not old:
        shown = ", ".join(
            f"{name} {found[name]}" for name in ADVISORIES if name in found
        )
        yield ok("versions", f"{shown}: nothing is known against them")


def _installed() -> dict[str, str]:
    found = {}
    for name in ADVISORIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Somebody has put it there by other means.
            found[name] = "of an unknown version"
    return found


def _parts(text: str) -> tuple[int, ...]:
    """Return a version's numbers; what is none is newer than all that is known."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    if numbers is None:
        return (2**31,)
    return tuple(map(int, numbers[0].split(".")))
