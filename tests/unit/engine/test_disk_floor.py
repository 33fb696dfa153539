"""What gives way when the disk has little free space, in which order, and when it ends."""

from __future__ import annotations

from collections import Counter as Counts

import pytest

from appliance.counters import Counter
from appliance.engine.disk_floor import DiskFloor

MB = 1_000_000
FLOOR = 200 * MB


class Disk:
    """A disk whose free space the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_overfull = self.are_paused = False
        self.held: list[int] = []
        self.keeps: list[bool] = []
        self.counts: Counts[Counter] = Counts()
        self.floor = DiskFloor(
            lambda: FLOOR,
            lambda: 0,
            is_overfull=lambda: self.is_overfull,
            are_recorders_paused=lambda: self.are_paused,
            hold=self.held.append,
            keep_unread=self.keeps.append,
            count=lambda counter: self.counts.update((counter,)),
            clock=lambda: self.now_s,
        )
        self.now_s = 100.0

    def look(self, free_mb: float) -> str:
        self.floor.look(int(free_mb * MB))
        return self.floor.health.level


def test_recorders_then_some_publishers_then_all_of_them() -> None:
    disk = Disk()
    assert (disk.look(200), disk.held, disk.keeps) == ("ok", [], [False])
    assert (disk.look(199), disk.held, disk.keeps[-1]) == ("warn", [], True)
    assert "recorders pause" in disk.floor.health.text
    assert (disk.look(99), disk.held[-1]) == ("bad", 1)
    assert (disk.look(49), disk.held[-1]) == ("bad", 2)
    assert "publishers wait" in disk.floor.health.text
    assert disk.counts == {
        Counter.DISK_PUBLISHERS_SLOWED: 1,
        Counter.DISK_PUBLISHERS_STOPPED: 1,
    }


def test_it_ends_by_itself_with_a_tenth_more_than_the_bound() -> None:
    disk = Disk()
    disk.look(10)
    for free_mb, held in ((54, 2), (56, 1), (109, 1), (111, 0)):
        disk.look(free_mb)
        assert disk.held[-1] == held, free_mb
    assert disk.look(219) == "warn"
    assert disk.look(221) == "ok"
    assert disk.keeps[-1] is False
    assert disk.held[-1] == 0
    calls = len(disk.held)
    disk.look(300)
    assert len(disk.held) == calls  # nobody is bothered while all is well


def test_a_journal_that_would_delete_what_paused_recorders_have_not_read_makes_publishers_wait() -> (
    None
):
    """Recorders on a disk of their own pause, and the disk of the journal has room."""
    disk = Disk()
    disk.are_paused = True
    assert (disk.look(10_000), disk.keeps[-1], disk.held) == ("ok", True, [])
    disk.is_overfull = True
    assert (disk.look(10_000), disk.keeps[-1], disk.held[-1]) == ("bad", True, 2)
    disk.are_paused = False
    assert (disk.look(10_000), disk.keeps[-1], disk.held[-1]) == ("ok", False, 0)
    assert disk.counts == {Counter.DISK_PUBLISHERS_STOPPED: 1}


def test_nothing_unread_is_deleted_before_recorders_had_time_to_look() -> None:
    disk = Disk()
    disk.now_s = 1.0
    disk.look(10_000)
    assert disk.keeps == [True]


@pytest.mark.parametrize("free_mb", [0, 1, 50, 10_000])
def test_without_a_floor_nothing_is_held(free_mb: int) -> None:
    disk = Disk()
    disk.floor._floor = lambda: 0
    assert (disk.look(free_mb), disk.held) == ("ok", [])
