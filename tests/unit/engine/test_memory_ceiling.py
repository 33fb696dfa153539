"""What is given up when the process has too much memory, in which order, and when it ends."""

from __future__ import annotations

from collections import Counter as Counts

from appliance.counters import Counter
from appliance.engine.memory_ceiling import MemoryCeiling
from appliance.engine.resident_memory import resident_bytes, return_free_memory

MIB = 1024 * 1024
LIMIT = 200 * MIB


class Process:
    """A process whose memory the test sets."""

    def __init__(self) -> None:
        self.bytes = 0
        self.done: list[str] = []
        self.held: list[bool] = []
        self.counts: Counts[Counter] = Counts()
        self.ceiling = MemoryCeiling(
            lambda: LIMIT,
            lambda: self.bytes,
            steps=(
                (Counter.MEMORY_LIVE_VIEW_SHED, "first", lambda: self.done.append("live view")),
                (Counter.MEMORY_CACHES_SHED, "second", lambda: self.done.append("caches")),
            ),
            hold=self.held.append,
            back_to_normal=lambda: self.done.append("normal"),
            count=lambda counter: self.counts.update((counter,)),
        )

    def looks(self, mib: int, times: int = 1) -> None:
        self.bytes = mib * MIB
        for _ in range(times):
            self.ceiling.look()


def test_one_step_a_look_in_order():
    """The live view, caches, then publishers wait; each is counted once and said."""
    process = Process()
    process.looks(200)
    assert (process.done, process.ceiling.health.level) == ([], "ok")
    process.looks(201)
    assert process.done == ["live view"]
    assert "first" in process.ceiling.health.text
    process.looks(201)
    assert (process.done, process.held) == (["live view", "caches"], [])
    process.looks(201)
    assert process.held == [True]
    assert process.ceiling.health.level == "warn"
    assert "publishers wait" in process.ceiling.health.text
    process.looks(201, 5)
    assert process.counts == {
        Counter.MEMORY_LIVE_VIEW_SHED: 1,
        Counter.MEMORY_CACHES_SHED: 1,
        Counter.MEMORY_PUBLISHERS_PAUSED: 1,
    }


def test_it_ends_well_below_the_ceiling():
    """Just below the ceiling nothing changes; then all is as before, and may begin anew."""
    process = Process()
    process.looks(300, 3)
    process.looks(190, 3)
    assert (process.done, process.held[-1]) == (["live view", "caches"], True)
    process.looks(170)
    assert (process.done[-1], process.held[-1]) == ("normal", False)
    assert process.ceiling.health.level == "ok"
    process.looks(300)
    assert process.done[-1] == "live view"


def test_publishers_are_held_anew_at_each_look():
    """While the memory stays, so that the door can let some of them go on."""
    process = Process()
    process.looks(300, 2 + 3)
    process.looks(190, 2)
    assert process.held == [True] * 5


def test_the_memory_of_this_process():
    """It is measured, and grows by what is allocated."""
    before = resident_bytes()
    held = bytearray(b"x") * (64 * MIB)
    assert resident_bytes() - before > 48 * MIB
    del held
    return_free_memory()
    assert before > 5 * MIB
