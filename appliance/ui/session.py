"""The terminal UI from its start to its end, with the restarts after a failure of its own.

Not for: what the UI does meanwhile (app.py).
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.engine_api import Engine
from appliance.ui.app import ApplianceApp, UiEnd
from appliance.ui.settings import UiSettings
from appliance.ui.terminal_driver import NonBlockingDriver

_MAX_CRASHES = 3
_CRASHES_S = 60.0
"""The UI is given up after ``_MAX_CRASHES`` failures within so many seconds."""


def run_ui(
    engine: Engine,
    *,
    settings: UiSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    when_painted: Callable[[], object] | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> UiEnd:
    """Show the UI on this terminal until the operator quits or the engine stops.

    Runs in the main thread. A failure of the UI leaves the engine alone. The UI is started again,
    unless it has failed three times within a minute.

    Args:
        engine: the engine to show.
        settings: keys, theme and files; ``None`` for the defaults.
        clock_ns: the time of day, in nanoseconds since 1970.
        when_painted: called once the first frame is on its way to the terminal.
        monotonic_s: the clock that the minute is measured with, in seconds.
    """
    failed_s: deque[float] = deque(maxlen=_MAX_CRASHES)
    while len(failed_s) < _MAX_CRASHES or failed_s[-1] - failed_s[0] > _CRASHES_S:
        app = ApplianceApp(
            engine.running(),
            settings,
            clock_ns,
            driver_class=NonBlockingDriver,
            when_painted=when_painted,
        )
        with _hangup_ends(app):
            end = app.run()
        if end is not None:
            return end
        if engine.snapshot().stopping:
            return UiEnd.STOPPING
        failed_s.append(monotonic_s())
    return UiEnd.CRASHED


@contextmanager
def _hangup_ends(app: ApplianceApp) -> Iterator[None]:
    """Let SIGHUP end the UI and not the process; afterwards the signal is ignored if it came."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def handle(_number: int, _frame: object) -> None:
        nonlocal came
        came = True
        app.call_later(app.exit, UiEnd.HANGUP)

    before = signal.signal(hangup, handle)
    try:
        yield
    finally:
        signal.signal(hangup, signal.SIG_IGN if came else before)
