"""Connections that all have much to do share the steps of the loop, whichever loop it is."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable

import pytest

from appliance.broker import work


def _loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415 - there is none for Windows

        found.append(uvloop.new_event_loop)
    return found


@pytest.mark.parametrize("make_loop", _loops())
def test_a_step_is_over_after_its_time_and_the_next_one_begins(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Also when the step before was one of the queue."""

    async def look() -> None:
        loop = asyncio.get_running_loop()
        turns = work.Turns(loop)
        for _ in range(3):
            now = time.perf_counter()
            assert not turns.is_over(loop.time(), now)
            assert turns.is_over(turns._at, now + 1)
            turns.later(lambda: None)
            await asyncio.sleep(0.005)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(look())


@pytest.mark.parametrize("make_loop", _loops())
def test_the_queue_is_worked_off_in_order_a_few_in_a_step(
    make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at least in each step; what waits again goes to the end."""
    monkeypatch.setattr(work, "LONGEST_STEP_S", 0.0)
    done: list[tuple[int, str]] = []

    async def look() -> None:
        turns = work.Turns(asyncio.get_running_loop())
        step = 0

        def note(name: str) -> None:
            done.append((step, name))
            if name == "a":
                turns.later(lambda: note("a again"))

        for name in "abc":
            turns.later(lambda name=name: note(name))  # type: ignore[misc]
        while len(done) < 4:
            step += 1
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(look())
    assert [name for _, name in done] == ["a", "b", "c", "a again"]
    assert len({step for step, _ in done}) == 4


@pytest.mark.parametrize("make_loop", _loops())
def test_what_waits_has_its_turn_however_long_a_step_takes(
    make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that waits asks again when it is called; one in a step is not put off once more."""
    monkeypatch.setattr(work, "LONGEST_STEP_S", -1.0)
    done: list[int] = []

    async def look() -> None:
        loop = asyncio.get_running_loop()
        turns = work.Turns(loop)
        all_done = asyncio.Event()

        def take(number: int) -> None:
            if turns.is_over(turns._at, time.perf_counter()):
                turns.later(lambda: take(number))
                return
            done.append(number)
            if len(done) == 5:
                all_done.set()

        for number in range(5):
            turns.later(lambda number=number: take(number))  # type: ignore[misc]
        async with asyncio.timeout(30):
            await all_done.wait()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(look())
    assert sorted(done) == list(range(5))
