"""The terminal UI from its start to its end: after a failure of its own it starts again.

Not for: what the UI does meanwhile (app.py).
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textual.driver import Driver

from appliance.engine_api import Engine
from appliance.ui.app import ApplianceApp, UiEnd
from appliance.ui.settings import UiSettings
from appliance.ui.terminal_driver import NonBlockingDriver

_MANY = 3
_MANY_S = 60.0
_PAUSE_S = 10.0
"""The UI waits so long before it starts again after ``_MANY`` failures within ``_MANY_S``."""

_STEP_S = 0.1
_BACK = "The terminal UI failed and has started again; the log says where it failed."

_LOG = logging.getLogger(__name__)


def run_ui(
    engine: Engine,
    *,
    settings: UiSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    when_painted: Callable[[], object] | None = None,
    say: Callable[[str], object] = print,
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> UiEnd:
    """Show the UI on this terminal until the operator quits or the engine stops.

    Runs in the main thread. A failure of the UI leaves the engine alone, and the UI starts again:
    at once, or after a pause if it has failed three times within a minute.

    Args:
        engine: the engine to show.
        settings: keys, theme and files; ``None`` for the defaults.
        clock_ns: the time of day, in nanoseconds since 1970.
        when_painted: called once the first frame is on its way to the terminal, and after a
            failure.
        say: writes a line to the terminal while the UI pauses.
        monotonic_s: the clock that the failures are counted with, in seconds.
        sleep: waits for so many seconds.
    """
    driver: type[Driver] = NonBlockingDriver
    in_browser = settings is not None and settings.in_browser
    if in_browser:
        from appliance.ui.browser_driver import BrowserDriver  # noqa: PLC0415 - rarely needed

        driver = BrowserDriver
    failed_s: deque[float] = deque(maxlen=_MANY)
    while True:
        app = ApplianceApp(
            engine.running(),
            settings,
            clock_ns,
            driver_class=driver,
            when_painted=when_painted,
            greeting=_BACK if failed_s else "",
        )
        with _hangup_ends(app):
            end = _run(app)
        if end is not None:
            return end
        if in_browser:  # its other end has gone; and whoever is there can open another one
            return UiEnd.HANGUP
        if engine.snapshot().stopping:
            return UiEnd.STOPPING
        if when_painted is not None:
            when_painted()  # it may have failed before that
        failed_s.append(monotonic_s())
        if len(failed_s) == _MANY and failed_s[-1] - failed_s[0] <= _MANY_S:
            leaving = "leaves it" if engine.is_remote else "stops the appliance"
            say(
                f"The terminal UI failed {_MANY} times within a minute; the log says where. The "
                f"appliance continues. The UI starts again in {_PAUSE_S:.0f} s; Ctrl+C {leaving}."
            )
            if (end := _pause(engine, monotonic_s, sleep)) is not None:
                return end


def _run(app: ApplianceApp) -> UiEnd | None:
    """Run the app once; ``None``: it failed."""
    try:
        return app.run()
    except Exception as error:  # noqa: BLE001 - the engine outlives its UI
        if sys.__stdin__ is None or not sys.__stdin__.isatty():
            return UiEnd.HANGUP  # it can't take over a terminal that has been closed
        _LOG.error("the terminal UI failed: %s", type(error).__name__, exc_info=True)
        return None


def _pause(
    engine: Engine, monotonic_s: Callable[[], float], sleep: Callable[[float], None]
) -> UiEnd | None:
    """Wait before the next start; returns why there is none, if so."""
    end_s = monotonic_s() + _PAUSE_S
    try:
        while monotonic_s() < end_s:
            if engine.snapshot().stopping:
                return UiEnd.STOPPING
            sleep(_STEP_S)
    except KeyboardInterrupt:  # of an attached terminal; the appliance has a handler
        return UiEnd.DETACHED
    return None


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
