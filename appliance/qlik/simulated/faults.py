"""What can go wrong with the simulated server, switched on from a test.

Not for: outcomes of tasks, which are part of a task (site.py).
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from dataclasses import dataclass


class FaultKind(enum.Enum):
    """What the server does with a request that a fault catches."""

    HANG = "hang"
    """Says nothing until the fault is cleared, the server stops, or ``seconds`` have passed."""
    LOGIN_PAGE = "login page"
    """Answers 200 with the HTML of a sign-in form, as a proxy does."""
    REDIRECT = "redirect"
    """Answers 302 to a sign-in form (or to ``text``, if that is an address), as a proxy does
    when a session is over."""
    STATUS = "status"
    """Answers with ``status`` and ``text``; 429 carries ``retry_after_s``."""
    DROP_BEFORE = "drop before"
    """Closes the connection without carrying out the request."""
    DROP_AFTER = "drop after"
    """Carries out the request, then closes the connection without an answer."""
    HANG_AFTER = "hang after"
    """Carries out the request, then does not answer, like HANG."""
    DELAY = "delay"
    """Waits ``seconds``, then answers as usual."""
    GARBAGE = "garbage"
    """Carries out the request, then answers 200 with a body that is not JSON."""
    DRIP_HEADERS = "drip headers"
    """Answers 200 and then a header every ``seconds``, without end."""
    ENDLESS = "endless"
    """Answers 200 with a body that does not end."""
    DRIP = "drip"
    """Answers 200 with a body that does not end, a letter every ``seconds``."""
    LONG_TEXT = "long text"
    """Answers 200 with ``size`` bytes of lines, the last of which is ``text``."""


@dataclass
class Fault:
    """A fault for the requests that fit ``method`` and ``path``, at most ``times`` of them."""

    kind: FaultKind
    method: str = ""
    """Empty: any method."""
    path: str = ""
    """A part of the request's path, or its end if a ``$`` stands behind; empty: any path."""
    times: int | None = None
    """``None``: until it is cleared."""
    status: int = 503
    text: str = "Service unavailable"
    seconds: float = 600.0
    retry_after_s: float | None = None
    size: int = 0

    def fits(self, method: str, path: str) -> bool:
        if self.method and self.method != method:
            return False
        if self.path.endswith("$"):
            return path.endswith(self.path[:-1])
        return self.path in path


class Faults:
    """The faults that are switched on. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._released = threading.Event()
        self.bitten: Counter[str] = Counter()
        """How many requests each kind of fault caught."""

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            if self._released.is_set():
                # Requests that wait on the old event were released when the faults were cleared.
                self._released = threading.Event()
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Switch every fault off and release hanging requests."""
        with self._lock:
            self._faults.clear()
            self._released.set()

    def bites(self) -> bool:
        """Whether requests that were caught are still held."""
        return not self._released.is_set()

    def end(self) -> None:
        """Switch every fault off; requests that hang go on hanging."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, if there is one; counts it."""
        with self._lock:
            for fault in self._faults:
                if not fault.fits(method, path):
                    continue
                if fault.times is not None:
                    if fault.times <= 0:
                        continue
                    fault.times -= 1
                self.bitten[fault.kind.value] += 1
                return fault
        return None

    def wait(self, seconds: float) -> None:
        """Wait until the faults are cleared, at most ``seconds``."""
        self._released.wait(seconds)
