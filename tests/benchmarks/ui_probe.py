"""``appliance run`` that says on a pipe when a key reached its action and how late the loop was.

Usage: python ui_probe.py PIPE run [...]
Lines: ``key NANOSECONDS`` (the monotonic clock, which all processes share) and ``lag SECONDS``.
"""

from __future__ import annotations

import os
import sys
import time

from appliance import cli
from appliance.engine import loop_lag

PIPE = int(sys.argv[1])


def say(line: str) -> None:
    os.write(PIPE, f"{line}\n".encode())


_note = loop_lag.LoopLag.note


def note(self: loop_lag.LoopLag, late_s: float) -> None:
    say(f"lag {late_s:.6f}")
    _note(self, late_s)


loop_lag.LoopLag.note = note  # type: ignore[method-assign]  # what a probe is for

if "--headless" not in sys.argv:
    from appliance.ui.screens.live import LiveScreen

    _pause = LiveScreen.action_pause

    def pause(self: LiveScreen) -> None:
        say(f"key {time.monotonic_ns()}")
        _pause(self)

    LiveScreen.action_pause = pause  # type: ignore[method-assign]  # as above

    from appliance.ui.widgets.rows import Rows

    _down = Rows.action_down

    def down(self: Rows) -> None:
        say(f"key {time.monotonic_ns()}")
        _down(self)

    Rows.action_down = down  # type: ignore[method-assign]  # as above

sys.exit(cli.main(sys.argv[2:]))
