"""Short pauses within a frame, so that the engine's threads are not kept waiting for its end.

A frame takes several milliseconds of one thread. Whoever needs the interpreter meanwhile asks for
it and gets it within a millisecond, if the operating system lets him ask: a thread that was woken
on the processor of the one that draws may not run there for four milliseconds (Linux 6.18, two
processors: a thread that sleeps beside bursts of 6 ms wakes up 4.9 ms late in one case of a
hundred, with a pause every millisecond 0.9 ms). A pause takes some 60 microseconds.
Not for: how often there is a frame (pace.py).
"""

from __future__ import annotations

import time

from appliance.right_of_way import starts

BETWEEN_S = 0.0005

_last_s = 0.0


def breathe() -> None:
    """Let others run, once in half a millisecond. For loops of the thread that draws."""
    global _last_s  # noqa: PLW0603 - one thread draws
    if time.perf_counter() - _last_s >= BETWEEN_S:
        time.sleep(0)
        starts.give_way()
        _last_s = time.perf_counter()
