"""What Retry-After is made from."""

from __future__ import annotations

import pytest

from edwin.runs.pace import LONGEST_S, UNKNOWN_S, Pace


def test_pace_says_nothing_of_nothing():
    """Before anything has ended, it is a guess of its own."""
    pace = Pace(100.0)
    assert pace.until_free(100.0, 5) == UNKNOWN_S
    assert pace.until_turn(3) == UNKNOWN_S


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_pace_follows_the_speed(rate):
    """A place is free after as long as that many runs take to end."""
    pace = Pace(0.0)
    for number in range(1, 101):
        pace.ended(number / rate, 0.3)
    now = 100 / rate
    assert pace.until_free(now, 9) == pytest.approx(10 / rate, rel=0.15)


def test_pace_forgets():
    """What was fast long ago is not now."""
    pace = Pace(0.0)
    for number in range(100):
        pace.ended(number / 100, 0.01)
    assert pace.until_free(1.0, 10) < 5
    assert pace.until_free(150.0, 10) > 5
    assert pace.until_free(120.0, 10_000) <= LONGEST_S


def test_pace_of_a_lane_is_the_mean_of_runs():
    """A session's next turn comes after as long as a run takes."""
    pace = Pace(0.0)
    for number in range(20):
        pace.ended(float(number), 4.0)
    assert pace.until_turn(2) == pytest.approx(8.0)
