"""Telling systemd that the service is ready, alive, reloading and stopping.

The protocol is one datagram a state to the socket that ``$NOTIFY_SOCKET`` names, sd_notify(3);
that is twenty lines, so no library. Elsewhere (no such variable, Windows) everything here does
nothing. Not for: when to say what (ops/supervisor.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class SystemdNotifier:
    """The service manager, if it asked to be told. Any thread may use it; it never waits."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        pid = environ.get("WATCHDOG_PID", "")
        for_us = not pid or pid == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.has_watchdog = bool(self._address and for_us and usec.isdigit())

    def ready(self, status: str) -> None:
        self._say(f"READY=1\nSTATUS={_line(status)}")

    def alive(self, status: str) -> None:
        """Feed the watchdog, if there is one, and tell the status line."""
        watchdog = "WATCHDOG=1\n" if self.has_watchdog else ""
        self._say(f"{watchdog}STATUS={_line(status)}")

    def failing(self, status: str) -> None:
        """Tell the status line alone: a watchdog that is fed no more has the service restarted."""
        self._say(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """Tell that the configuration is being read again, until ``ready`` is told.

        The time is that of CLOCK_MONOTONIC in microseconds, sd_notify(3).
        """
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1\nSTATUS=finishing what was accepted")

    def _say(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        # Nobody listens, or its queue is full: the service goes on all the same.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), self._address)


def _line(text: str) -> str:
    return text.replace("\n", " ")
