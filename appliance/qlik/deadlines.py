"""The end of a call that takes too long: its socket is shut down at a time that is set before.

The time-out of a socket counts from byte to byte, so a server that sends a header now and then
never meets it. One thread watches the deadlines of all calls. What each call does is known by its
thread, because urllib3 opens connections by itself, in the middle of a request.

Not for: what a call that was broken off means (failures.py).
"""

from __future__ import annotations

import _socket
import contextlib
import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator

from appliance.qlik.failures import too_slow_error


class Deadline:
    """When one call ends. ``expire`` is for the watchdog, the rest for the thread of the call."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.began_s = time.monotonic()
        """By ``time.monotonic``."""
        self.at_s = self.began_s + limit_s
        self.is_over = False
        """Whether the call was broken off."""
        self.is_given_up = False
        """Whether that was before its time, because no answer is expected any more."""
        self.is_done = False
        self.is_sent = False
        """Whether any byte of the request may have left."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def left_s(self) -> float:
        """Seconds until the call is broken off; a time-out of a socket must be positive."""
        return max(self.at_s - time.monotonic(), 0.001)

    def watch(self, used: socket.socket) -> None:
        """Shut this socket down at the deadline."""
        with self._lock:
            self._socket = used
            is_late = self.is_over
        if is_late:
            shut_down(used)

    def expire(self) -> None:
        """Break the call off, unless it is done: its socket may serve another call."""
        with self._lock:
            if self.is_done:
                return
            self.is_over = True
            if self._socket is not None:
                shut_down(self._socket)

    def give_up(self) -> None:
        """Break the call off before its time."""
        self.is_given_up = True
        self.expire()

    def end(self) -> None:
        """The call is done."""
        with self._lock:
            self.is_done = True
            self._socket = None


class _Watchdog:
    """One thread for all deadlines. It ends when none is left, and begins with the next one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline) -> None:
        with self._changed:
            entry = (deadline.at_s, next(self._numbers), deadline)
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="qlik-deadlines", daemon=True
                )
                self._thread.start()
            elif self._heap[0] is entry:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while self._heap:
                at_s, _, deadline = self._heap[0]
                wait_s = at_s - time.monotonic()
                if deadline.is_done or wait_s <= 0:
                    heapq.heappop(self._heap)
                    deadline.expire()
                else:
                    self._changed.wait(wait_s)
            self._thread = None


_WATCHDOG = _Watchdog()
_LOCAL = threading.local()


@contextlib.contextmanager
def limited(limit_s: float) -> Iterator[Deadline]:
    """Break off what the thread does with a server within the block, after so many seconds.

    The limit of a block around this one counts too.
    """
    outer: float | None = getattr(_LOCAL, "until_s", None)
    if outer is not None:
        limit_s = max(min(limit_s, outer - time.monotonic()), 0.001)
    deadline = Deadline(limit_s)
    _WATCHDOG.add(deadline)
    before = present()
    _LOCAL.deadline = deadline
    try:
        yield deadline
    finally:
        deadline.end()
        _LOCAL.deadline = before


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Let all calls of the thread within the block end after so many seconds, taken together."""
    outer: float | None = getattr(_LOCAL, "until_s", None)
    until_s = time.monotonic() + limit_s
    _LOCAL.until_s = until_s if outer is None else min(outer, until_s)
    try:
        yield
    finally:
        _LOCAL.until_s = outer


def _left_s() -> float:
    """Seconds that are left of ``within``; -1, which means for ever to a lock, outside of it."""
    until_s: float | None = getattr(_LOCAL, "until_s", None)
    return -1.0 if until_s is None else max(until_s - time.monotonic(), 0.0)


@contextlib.contextmanager
def locked(lock: threading.Lock, where: str) -> Iterator[None]:
    """Hold a lock, which another thread may hold while it waits for the server.

    Raises:
        QlikError: the time of ``within`` was over before.
    """
    limit_s = _left_s()
    if not lock.acquire(timeout=limit_s):
        raise too_slow_error(where, limit_s)
    try:
        yield
    finally:
        lock.release()


def present() -> Deadline | None:
    """The deadline of the call that the thread makes."""
    found: Deadline | None = getattr(_LOCAL, "deadline", None)
    return found


def timeout_s(usual_s: float) -> float:
    """The time-out of one step of the call that the thread makes, in seconds."""
    deadline = present()
    return usual_s if deadline is None else min(usual_s, deadline.left_s())


def shut_down(opened: socket.socket) -> None:
    """End a connection, also under a thread that reads from it."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: that would free the TLS state under a thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
    if os.name == "nt":
        # There a thread that waits for an answer does not notice the end of its own socket. The
        # base class closes at once; socket.close waits for the file that the response reads.
        with contextlib.suppress(OSError):
            _socket.socket.close(opened)
