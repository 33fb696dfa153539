"""Errors of the appliance itself in the task engine: failed threads, messages set aside.

A thread that fails is run again after a pause. The terminal and ``/healthz`` show the state here.
Not for: a server or a disk that fails (circuit.py, state_store.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from appliance.engine_api import Health
from appliance.storage.sqlite import disk_fault

_log = logging.getLogger(__name__)
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A thread that was run again counts as failing until it has run for so long."""
SHOWN_S = 600.0
"""For how long it is shown that something was set aside."""


class _Failing(msgspec.Struct):
    is_vital: bool
    pause_s: float
    times: int = 0
    resumed_s: float | None = None


class InternalErrors:
    """The internal errors so far. Methods may be called from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._failing: dict[str, _Failing] = {}
        self._set_aside = ""
        self._set_aside_s = 0.0

    def supervise(
        self,
        name: str,
        work: Callable[[], None],
        wait: Callable[[float], bool],
        *,
        is_vital: bool = True,
    ) -> None:
        """Run ``work`` until it returns; after an exception again, with growing pauses.

        ``wait`` waits for so many seconds, or until the stop, and returns whether that came.
        ``is_vital``: without this thread no task is started or followed.
        """
        while True:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - no error may end the thread
                pause_s = self._failed(name, is_vital=is_vital)
                if reason := disk_fault(error):
                    _log.error(  # the operator's matter, so without a traceback
                        "The thread %s of the task engine waits for the disk: %s. It is run again"
                        " in %g s",
                        name,
                        reason,
                        pause_s,
                    )
                else:
                    _log.exception(
                        "The thread %s of the task engine failed (%s): this is a defect, please "
                        "report it. It is run again in %g s",
                        name,
                        type(error).__name__,
                        pause_s,
                    )
                if wait(pause_s):
                    return
                with self._lock:
                    self._failing[name].resumed_s = self._monotonic()
            else:
                return

    def _failed(self, name: str, *, is_vital: bool) -> float:
        with self._lock:
            self._forget_steady()
            one = self._failing.setdefault(name, _Failing(is_vital, FIRST_PAUSE_S))
            pause_s = one.pause_s
            one.times += 1
            one.pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            one.resumed_s = None
            return pause_s

    def _forget_steady(self) -> None:
        now = self._monotonic()
        for name, one in list(self._failing.items()):
            if one.resumed_s is not None and now - one.resumed_s >= STEADY_S:
                del self._failing[name]

    def set_aside(self, what: str) -> None:
        """Note that ``what`` (a message, a timer's firing) could not be dealt with."""
        with self._lock:
            self._set_aside = what
            self._set_aside_s = self._monotonic()

    def health(self) -> Health:
        """``bad`` while a vital thread fails, ``warn`` for what is less, else ``ok``."""
        with self._lock:
            self._forget_steady()
            for is_vital in (True, False):
                for name, one in self._failing.items():
                    if one.is_vital is is_vital:
                        times = "once" if one.times == 1 else f"{one.times} times"
                        return Health(
                            "bad" if is_vital else "warn",
                            f"the task engine's thread {name} failed {times}; see the log",
                        )
            if self._set_aside and self._monotonic() - self._set_aside_s < SHOWN_S:
                return Health("warn", f"internal error with {self._set_aside}; see the log")
            return Health("ok")
