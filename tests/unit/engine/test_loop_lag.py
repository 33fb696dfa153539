"""How late the engine's loop is."""

from appliance.engine.loop_lag import LoopLag


def test_the_worst_hundredth_is_left_out():
    """One long moment in a minute is no habit; eight of them are seen, and forgotten again."""
    lag = LoopLag()
    for _ in range(600):
        lag.note(0.001)
    lag.note(0.9)
    for _ in range(10):
        lag.note(0.001)
    assert lag.p99_ms < 2
    for _ in range(8):
        lag.note(0.2)
    for _ in range(10):
        lag.note(0.001)
    assert lag.p99_ms > 190
    for _ in range(610):
        lag.note(-0.001)
    assert lag.p99_ms == 0


async def test_a_loop_that_is_held_up_is_late():
    """What holds up the loop is what is measured."""
    import asyncio
    import time

    lag = LoopLag()
    watch = asyncio.get_running_loop().create_task(lag.watch())
    await asyncio.sleep(0)
    time.sleep(0.25)
    while not lag.p99_ms:
        await asyncio.sleep(0.01)
    watch.cancel()
    assert lag.p99_ms > 100
