"""A storm of random keys, clicks, pastes and resizes on the UI in a real terminal of its own.

The program runs on a pseudo terminal. Input is sent as the bytes that a terminal sends, at most
every 30 ms and often several at once; what the program draws is read and thrown away. The log of
the program says whether the UI failed. POSIX only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path

STEP_S = 0.03
KEYS = {
    "f1": "\x1bOP",
    "escape": "\x1b",
    "enter": "\r",
    "tab": "\t",
    "shift+tab": "\x1b[Z",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "page up": "\x1b[5~",
    "page down": "\x1b[6~",
    "delete": "\x1b[3~",
    "backspace": "\x7f",
    "ctrl+p": "\x10",
}
_OFTEN = ("escape", "enter", "tab", "down", "up")
_LETTERS = "1234567812345678?/ abcdefghijklmnoprstuwxyzCGJKNOTUX.!:\"'#+"
SIZES = ((80, 24), (80, 24), (100, 30), (140, 40), (200, 55), (79, 24), (80, 20), (30, 8), (1, 1))
PASTES = ("state:failed", 'client:"x', "plant/#", "since:zz", "\x00\x07", "日本\u202e", "ab\ncd\t")
FAILURES = ("terminal UI failed", "UI could not", "Traceback", "request of the terminal UI failed")


def _mouse(chance: random.Random, columns: int, rows: int) -> str:
    x, y = chance.randint(1, columns), chance.randint(1, rows)
    kind = chance.random()
    if kind < 0.3:  # the wheel
        return f"\x1b[<{chance.choice((64, 65))};{x};{y}M"
    if kind < 0.4:  # a move
        return f"\x1b[<35;{x};{y}M"
    click = f"\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m"
    return click * chance.choice((1, 1, 1, 2))


def _one(chance: random.Random, columns: int, rows: int) -> str:
    kind = chance.random()
    if kind < 0.12:
        return _mouse(chance, columns, rows)
    if kind < 0.14:
        return f"\x1b[200~{chance.choice(PASTES)}\x1b[201~"
    if kind < 0.35:
        return KEYS[chance.choice(_OFTEN)]
    if kind < 0.55:
        return KEYS[chance.choice(tuple(KEYS))]
    return chance.choice(_LETTERS)


class Terminal:
    """A program on a pseudo terminal that a thread reads."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._ours, theirs = os.openpty()
        self.size = (80, 24)
        self._resize(self.size)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "XDG_STATE_HOME": str(folder / "state")}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = b""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while data := os.read(self._ours, 65536):
                with self._news:
                    self.seen = (self.seen + data)[-200_000:]
                    self._news.notify_all()

    def wait(self, wanted: bytes, timeout_s: float = 60.0) -> None:
        """Wait until the program has drawn ``wanted``."""
        with self._news:
            if not self._news.wait_for(lambda: wanted in self.seen, timeout_s):
                raise AssertionError(f"{wanted!r} never came; the last was {self.seen[-2000:]!r}")
            self.seen = b""

    def _resize(self, size: tuple[int, int]) -> None:
        columns, rows = size
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, size: tuple[int, int]) -> None:
        """Change the size, as a dragged window does."""
        self.size = size
        self._resize(size)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Send input; what a program that hangs would not take is dropped."""
        if select.select([], [self._ours], [], 1)[1]:
            os.write(self._ours, text.encode())

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the program in order, if it still runs."""
        if self.runs:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)
        self._reader.join(30)
        os.close(self._ours)


def storm(terminal: Terminal, chance: random.Random, until_s: float, sent: list[str]) -> None:
    """Input until ``time.monotonic()`` is ``until_s`` or the program ends; ``sent`` gets it."""
    while terminal.runs and time.monotonic() < until_s:
        if chance.random() < 0.03:
            size = chance.choice(SIZES)
            sent.append(f"<{size[0]}x{size[1]}>")
            terminal.resize(size)
        else:
            count = chance.choice((1, 1, 1, 1, 2, 3, 5))
            text = "".join(_one(chance, *terminal.size) for _ in range(count))
            sent.append(repr(text))
            terminal.type(text)
        del sent[:-400]
        time.sleep(STEP_S)


def failures(log: Path) -> list[str]:
    """The lines of a program's log that tell of a fault of the UI."""
    with contextlib.suppress(FileNotFoundError):
        text = log.read_text("utf-8", "replace")
        return [line for line in text.splitlines() if any(one in line for one in FAILURES)]
    return []
