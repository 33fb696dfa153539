"""Notifies systemd that the service is ready, alive, reloading and stopping.

The protocol is one datagram a state to the socket that ``$NOTIFY_SOCKET`` names, sd_notify(3). It
needs twenty lines, so no library is used. Without the variable, and on Windows, the methods do
nothing. Not for: when to notify (ops/supervisor.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class SystemdNotifier:
    """Sends sd_notify(3) datagrams. For any thread; never waits."""

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
        """Feed the watchdog, if there is one, and set the status line."""
        watchdog = "WATCHDOG=1\n" if self.has_watchdog else ""
        self._say(f"{watchdog}STATUS={_line(status)}")

    def failing(self, status: str) -> None:
        """Set the status line without feeding the watchdog: systemd will restart the service."""
        self._say(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """Notify that the configuration is read again; ``ready`` notifies the end.

        sd_notify(3) wants the time of CLOCK_MONOTONIC in microseconds.
        """
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1\nSTATUS=finishing accepted messages")

    def _say(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        # An error (no listener, a full queue) must not disturb the service.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), self._address)


def _line(text: str) -> str:
    return text.replace("\n", " ")
