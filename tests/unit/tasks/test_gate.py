"""The gate in front of start calls: nobody passes early, and each last step is taken once."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.tasks.gate import Gate

PATIENCE_S = 10.0


def test_whoever_opens_it_takes_the_last_steps_of_those_who_wait() -> None:
    """So nothing has to wake up before the call leaves."""
    gate, steps, passed = Gate(), [], []
    waiting = threading.Barrier(3)

    def wait(name: str) -> None:
        waiting.wait()
        assert gate.wait(PATIENCE_S, lambda: steps.append((name, threading.current_thread().name)))
        passed.append((name, len(steps)))

    threads = [threading.Thread(target=wait, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    waiting.wait()
    while len(gate._steps) < 2:
        pass
    assert steps == passed == []
    gate.open()
    for thread in threads:
        thread.join(PATIENCE_S)
    here = threading.current_thread().name
    assert sorted(steps) == [("a", here), ("b", here)]
    assert sorted(passed) == [("a", 2), ("b", 2)]


def test_who_comes_when_it_is_open_goes_through() -> None:
    gate, steps = Gate(), []
    gate.open()
    assert gate.wait(PATIENCE_S, lambda: steps.append(1))
    assert gate.wait(PATIENCE_S, lambda: steps.append(2))
    assert steps == []


def test_the_step_of_who_gave_up_is_not_taken() -> None:
    """A call that was given back (the appliance stops) must not leave afterwards."""
    gate, steps = Gate(), []
    assert not gate.wait(0.0, lambda: steps.append(1))
    gate.open()
    assert steps == []


@settings(deadline=None, max_examples=50)
@given(wait_us=st.integers(0, 300), open_us=st.integers(0, 300))
def test_giving_up_at_the_moment_of_opening_is_one_or_the_other(wait_us: int, open_us: int) -> None:
    """Either it was open, and the step was taken at most once before; or it will never be."""
    gate, steps = Gate(), []
    opener = threading.Timer(open_us / 1e6, gate.open)
    opener.start()
    is_open = gate.wait(wait_us / 1e6, lambda: steps.append(1))
    taken = len(steps)
    opener.join(PATIENCE_S)
    assert len(steps) == taken <= (1 if is_open else 0)


def test_a_waiter_returns_only_when_its_step_is_over() -> None:
    """Otherwise two threads would write to one socket."""
    gate = Gate()
    begun, go_on, passed = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    def wait() -> None:
        while not gate.wait(0.001, step):  # gives up and tries again, as who looks for a stop does
            pass
        passed.set()

    threads = [threading.Thread(target=wait), threading.Thread(target=gate.open)]
    threads[0].start()
    while not gate._steps:
        pass
    threads[1].start()
    if begun.wait(0.5):  # else it was opened between two tries
        assert not passed.wait(0.05)
    go_on.set()
    assert passed.wait(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
