"""The appliance as its user runs it: a process of its own, a configuration file, real sockets."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from wine import SLOWNESS

DEADLINE_S = 60.0 * SLOWNESS
"""A wait ends with its event; this only bounds how long a failure takes on a busy machine."""

QUICK = (str(Path(__file__).parent / "quick_appliance.py"),)
"""Arguments of Python that start the appliance with short waits."""


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(holds, what: str, timeout_s: float = DEADLINE_S):
    """Wait until ``holds()`` is true and return what it returned; fail with ``what`` if never."""
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(ValueError, OSError):
            if found := holds():
                return found
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.02)


class ApplianceProcess:
    """``appliance run --headless`` with a configuration written for the test."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        port: int | None = None,
        program: tuple[str, ...] = ("-m", "appliance"),
    ) -> None:
        self.folder = folder
        self.program = program
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "config.toml"
        self.config.write_text(config.replace("PORT", str(self.port)), "utf-8")
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        self.process: subprocess.Popen[str] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def begin(self, *arguments: str) -> ApplianceProcess:
        """Start the process without waiting for anything; what an earlier one said is dropped."""
        self.lines = []
        self._news = queue.Queue()
        self.process = self._spawn(["run", "--headless", "-c", str(self.config), *arguments])
        self._reader = threading.Thread(
            target=self._read, args=(self.process, self.lines, self._news), daemon=True
        )
        self._reader.start()
        return self

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",  # a log in JSON has it on every system
            errors="backslashreplace",
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1"}

    def start(self, *arguments: str) -> ApplianceProcess:
        """Start and wait until it listens."""
        self.begin(*arguments)
        self.wait_for_line("listening on")
        return self

    @staticmethod
    def _read(
        process: subprocess.Popen[str], lines: list[str], news: queue.Queue[str | None]
    ) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                lines.append(line.rstrip())
                news.put(line)
        news.put(None)

    def wait_for_line(self, part: str, timeout_s: float = DEADLINE_S) -> str:
        """Wait for a log line that has ``part``."""
        seen = 0
        end = time.monotonic() + timeout_s
        while True:
            while seen < len(self.lines):
                if part in self.lines[seen]:
                    return self.lines[seen]
                seen += 1
            try:
                if self._news.get(timeout=max(0.01, end - time.monotonic())) is None:
                    if any(part in line for line in self.lines[seen:]):
                        continue
                    code = self.process and self.process.wait(DEADLINE_S)
                    said = "\n".join(self.lines)
                    raise AssertionError(f"ended with {code} and without {part!r}:\n{said}")
            except queue.Empty:
                raise AssertionError(f"no {part!r} in time:\n" + "\n".join(self.lines)) from None

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Stop it in order and return its exit code."""
        self.send(number)
        return self.exit_code()

    def exit_code(self, timeout_s: float = DEADLINE_S) -> int:
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self.process is not None
        self.process.kill()
        self.exit_code()

    def __enter__(self) -> ApplianceProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
