"""Libraries with known faults."""

from __future__ import annotations

import pytest

from edwin import gateway
from edwin.doctor.versions import ADVISORIES, check_versions

FIXED = {name: advisory.fixed_in for name, advisory in ADVISORIES.items()}


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, "ok"),
        ({"tornado": "6.6"}, "problem"),
        ({"tornado": "6.5.10"}, "problem"),
        ({"tornado": "6.10"}, "ok"),
        ({"tornado": "7.0b1"}, "ok"),
        ({"aiohttp": "3.9.5"}, "problem"),
        ({"orjson": "of an unknown version"}, "ok"),
    ],
)
def test_doctor_compares_versions(change, level):
    """A library older than the fix of what is known is a problem."""
    (finding,) = check_versions(FIXED | change)
    assert finding.level == level
    for name, version in change.items():
        assert f"{name} {version}" in finding.what


def test_doctor_names_each_old_library():
    """Each old library is told by itself, with the version to install."""
    found = list(check_versions(dict.fromkeys(ADVISORIES, "1.0")))
    assert [finding.level for finding in found] == ["problem"] * len(ADVISORIES)
    for finding, (name, advisory) in zip(found, ADVISORIES.items(), strict=True):
        assert finding.fix == f"install {name} {advisory.fixed_in} or later"


def test_doctor_and_gateway_agree_on_tornado():
    """The start's warning and the doctor's are about the same versions."""
    assert FIXED["tornado"] == ".".join(map(str, gateway.SAFE_TORNADO))


def test_doctor_finds_what_is_installed():
    """What runs the tests is free of known faults."""
    (finding,) = check_versions()
    assert finding.level == "ok"
    assert all(name in finding.what for name in ADVISORIES)
