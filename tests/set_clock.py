"""A real process whose system clock is set while it runs: a preloaded library moves its time."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess

SOURCE = Path(__file__).with_name("set_clock.c")


class SetClock:
    """A clock that the test sets; processes with ``environment`` see it at once."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("a C compiler on Linux makes the library that moves the clock")
        library = folder / "set_clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True
        )
        self._ahead = folder / "ahead"
        self._ahead.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD_FILE": str(self._ahead)}

    def set(self, ahead_s: float) -> None:
        """Set it so many seconds ahead of the real time, or behind it."""
        with self._ahead.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(ahead_s * 1e9)))


class ProcessWithSetClock(ApplianceProcess):
    """The appliance with a clock that can be set."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder, config)
        self.clock = SetClock(folder)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.clock.environment}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the appliance to its end, with the same clock."""
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments, "-c", str(self.config)],
            env=self._environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
