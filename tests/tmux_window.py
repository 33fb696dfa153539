"""One window of a tmux server of its own: what a person at a terminal types and sees."""

from __future__ import annotations

import select
import subprocess
import time
from pathlib import Path

DEADLINE_S = 60


class Window:
    """Runs ``command``; with ``wrapped``, text that goes on in the next row is waited for as one."""

    def __init__(
        self,
        folder: Path,
        command: str,
        *,
        columns: int = 80,
        rows: int = 24,
        wrapped: bool = False,
    ) -> None:
        self._base = ["tmux", "-S", str(folder / "tmux.sock"), "-f", "/dev/null"]
        self._wrapped = wrapped
        size = ("-x", str(columns), "-y", str(rows))
        self.run("new-session", "-d", *size, "-c", str(folder), command)

    def run(self, *arguments: str) -> str:
        """A command to tmux; returns what it says."""
        return subprocess.run(
            [*self._base, *arguments], check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def keys(self, *names: str) -> None:
        """Press keys, by tmux's names for them."""
        for name in names:
            self.run("send-keys", name)

    def type(self, text: str) -> None:
        """Type a line."""
        self.run("send-keys", "-l", text)
        self.keys("Enter")

    def screen(self, *options: str) -> str:
        """What is on the screen."""
        return self.run("capture-pane", "-p", *options)

    def wait(self, *wanted: str) -> str:
        """Wait until all of ``wanted`` is on the screen; returns it."""
        end = time.monotonic() + DEADLINE_S
        text = ""
        while time.monotonic() < end:
            text = self.screen()
            seen = text.replace("\n", "") if self._wrapped else text
            if all(one in seen for one in wanted):
                return text
            select.select([], [], [], 0.05)  # tmux can't tell when the screen changes
        raise AssertionError(f"{wanted} never came; the screen was:\n{text}")

    def close(self) -> None:
        """End the server and what runs in it."""
        subprocess.run([*self._base, "kill-server"], check=False, capture_output=True, timeout=30)
