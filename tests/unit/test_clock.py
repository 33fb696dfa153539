"""The clock that tells steps of the system's clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.clock import HOLD_NS, Clock, steady
from appliance.engine import kept_clock
from appliance.ui import formats

SECOND = 1_000_000_000
DAY = 86400 * SECOND


class Times:
    """The system's time of day and the steady time."""

    def __init__(self) -> None:
        self.steady, self.ahead = 5 * SECOND, 1_700_000_000 * SECOND
        self.clock = Clock(lambda: self.steady + self.ahead, lambda: self.steady)


def test_a_step_is_told_once_and_counts_when_it_is_adopted() -> None:
    """Until then the clock goes on at its pace, in both directions."""
    for step in (2 * DAY, -5 * 3600 * SECOND):
        times = Times()
        before = times.clock()
        times.ahead += step
        times.steady += SECOND
        assert times.clock() == before + SECOND
        assert times.clock.step_ns() == step
        times.clock.adopt(step)
        assert times.clock() == before + SECOND + step
        assert times.clock.step_ns() == 0


def test_a_step_between_two_lives_is_told_like_one_in_a_life() -> None:
    """A clock that begins where the last one would be finds the step; without one, none."""
    for step in (2 * DAY, -5 * 3600 * SECOND, 0):
        times = Times()
        kept = times.clock.ahead_ns
        times.steady += 3600 * SECOND
        times.ahead += step
        again = Clock(lambda: times.steady + times.ahead, lambda: times.steady, kept)  # noqa: B023
        assert again() == times.clock()
        assert again.step_ns() == step


def test_what_is_kept_of_a_clock_counts_until_the_machine_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the time since its start is another one. What a power cut leaves counts as nothing."""
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr(kept_clock, "_BOOT_ID", boot_id)
    monkeypatch.setattr("sys.platform", "linux")
    kept_clock.write(tmp_path, 5)
    assert kept_clock.read(tmp_path) is None
    boot_id.write_text("one\n", "ascii")
    assert kept_clock.read(tmp_path) is None
    kept_clock.write(tmp_path, -(10**18))
    assert kept_clock.read(tmp_path) == -(10**18)
    boot_id.write_text("two\n", "ascii")
    assert kept_clock.read(tmp_path) is None
    for garbage in (
        b"",
        b"{",
        b'{"bootId": "two"}',
        b'{"bootId": "two", "aheadNs": "x"}',
        b"[" * 9000,
    ):
        (tmp_path / "clock.json").write_bytes(garbage)
        assert kept_clock.read(tmp_path) is None
    kept_clock.write(tmp_path / "gone", 1)


def test_a_small_difference_is_followed_and_is_no_step() -> None:
    """A clock that NTP corrects little by little never steps."""
    times = Times()
    for _ in range(100):
        times.ahead += SECOND // 2
        assert times.clock.step_ns() == 0
    assert times.clock() == times.steady + times.ahead


def test_what_lasts_for_a_time_ends_in_its_time() -> None:
    """A token that is good for an hour is not believed for six after a step back."""
    times = Times()
    clock = steady(times.clock)
    begins = clock()
    times.ahead -= 5 * 3600 * SECOND
    times.steady += 3600 * SECOND
    assert clock() == begins + 3600 * SECOND
    times.clock.adopt(times.clock.step_ns())
    assert clock() == begins + 3600 * SECOND


def test_what_deletes_by_age_follows_a_step_forward_after_a_day() -> None:
    """A clock that was 30 days ahead for an hour deletes nothing."""
    times = Times()
    right = times.clock.settled_ns()
    times.ahead += 30 * DAY
    times.clock.adopt(times.clock.step_ns())
    assert times.clock.settled_ns() == right
    times.steady += 3600 * SECOND
    times.ahead -= 30 * DAY
    times.clock.adopt(times.clock.step_ns())
    assert times.clock.settled_ns() == right + 3600 * SECOND
    times.ahead += 30 * DAY
    times.clock.adopt(times.clock.step_ns())
    times.steady += HOLD_NS
    assert times.clock.settled_ns() == times.clock()


def test_an_age_is_never_negative() -> None:
    """What came before the clock was set back is "just now", and what should be due is due."""
    for seconds in (-5 * 3600.0, -0.5):
        shown = [formats.age(seconds), formats.ago(seconds), formats.elapsed(seconds)]
        assert shown == ["now", "just now", "0:00"]
        assert formats.took(seconds) == "0 ms"
