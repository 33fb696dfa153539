"""The Windows event log gets start, stop and errors, beside the log itself.

The events are in the log ``Application`` under the source ``appliance``. A thread of its own
reports them: a service that hangs or refuses stops neither the appliance nor its log.
Not for: lines of the log (logs.py); the source's registration (packaging/windows/install.ps1).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

SOURCE = "appliance"

STARTED = 1
STOPPED = 2
FAILED = 3
"""Ids of events. Monitoring reads them, so they stay."""

EVENT_KEY = "event_id"
"""The attribute of a log record that makes it an event."""
START: Mapping[str, object] = {EVENT_KEY: STARTED}
STOP: Mapping[str, object] = {EVENT_KEY: STOPPED}
"""For ``extra`` of a logging call."""

LONGEST_TEXT = 31_839
"""Characters (UTF-16 units) of a string, ReportEventW on learn.microsoft.com."""

_QUEUED_EVENTS = 1_000
_CLOSE_S = 1.0
_CUT = "..."
# "%1" in a text would be replaced by an event viewer, ReportEventW's remarks.
_INSERTION = re.compile(r"%(?=[\d%])")

_ERROR_TYPE, _WARNING_TYPE, _INFORMATION_TYPE = 1, 2, 4
"""EVENTLOG_ERROR_TYPE and so on, winnt.h."""

_log = logging.getLogger(__name__)


class Event(NamedTuple):
    """One event, its text already escaped and masked."""

    kind: int
    """1: error, 2: warning, 4: information."""
    number: int
    text: str


Report = Callable[[Event], None]
"""Hands one event to the system. Raises ``OSError``."""


def event(level: int, number: int, source: str, text: str, trace: Sequence[str] = ()) -> Event:
    """The event of a log line of the level ``level`` (logging's) from the part ``source``."""
    if level >= logging.ERROR:
        kind = _ERROR_TYPE
    else:
        kind = _WARNING_TYPE if level >= logging.WARNING else _INFORMATION_TYPE
    return Event(kind, number, _fitting("\r\n".join((f"{source}: {text}", *trace))))


def _fitting(text: str) -> str:
    text = _INSERTION.sub("% ", text)
    units = text.encode("utf-16-le", "replace")
    if len(units) <= 2 * LONGEST_TEXT:
        return text
    return units[: 2 * (LONGEST_TEXT - len(_CUT))].decode("utf-16-le", "ignore") + _CUT


class EventLog:
    """Reports events in a thread. ``lost`` counts those that were refused or came too fast."""

    def __init__(self, report: Report) -> None:
        self.lost = 0
        self._report = report
        self._queue: queue.Queue[Event | None] = queue.Queue(_QUEUED_EVENTS)
        self._thread = threading.Thread(target=self._run, name="event log", daemon=True)
        self._thread.start()

    def add(self, one: Event) -> None:
        """Queue an event; never waits."""
        try:
            self._queue.put_nowait(one)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Report what is queued, for at most a second."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        is_refused = False
        while (one := self._queue.get()) is not None:
            try:
                self._report(one)
                is_refused = False
            except OSError as error:
                self.lost += 1
                if not is_refused:  # a warning is no event, so it leads to no further one
                    _log.warning("The Windows event log refuses events: %s", error)
                is_refused = True


def open_event_log() -> EventLog | None:
    """The event log of this machine; ``None`` where there is none (not Windows)."""
    if sys.platform == "win32":
        return EventLog(_report)
    return None


if sys.platform == "win32":

    def _report(one: Event) -> None:
        """ReportEventW, with a handle for each event: they are few, and the service may restart."""
        import ctypes  # noqa: PLC0415 - only where it is used
        from ctypes import wintypes  # noqa: PLC0415

        advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
        register = advapi32.RegisterEventSourceW
        register.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR)
        register.restype = wintypes.HANDLE
        report = advapi32.ReportEventW
        report.argtypes = (
            wintypes.HANDLE,
            wintypes.WORD,
            wintypes.WORD,
            wintypes.DWORD,
            wintypes.LPVOID,
            wintypes.WORD,
            wintypes.DWORD,
            ctypes.POINTER(wintypes.LPCWSTR),
            wintypes.LPVOID,
        )
        report.restype = wintypes.BOOL
        advapi32.DeregisterEventSource.argtypes = (wintypes.HANDLE,)
        handle = register(None, SOURCE)
        if not handle:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            strings = (wintypes.LPCWSTR * 1)(one.text)
            if not report(handle, one.kind, 0, one.number, None, 1, 0, strings, None):
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            advapi32.DeregisterEventSource(handle)
