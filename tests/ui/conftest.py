"""What the UI's tests have in common: the hand-made engine, a clock, UTC, the screen as text."""

import sys
import time
from pathlib import Path

import pytest
import textual._wait

sys.path.insert(0, str(Path(__file__).parent))


# Textual's pilot sleeps 20 ms at a time until the process is idle; hundreds of keys are pressed here.
textual._wait.SLEEP_GRANULARITY = 1 / 400
textual._wait.SLEEP_IDLE = 1 / 800


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch):
    """Local time is UTC, the terminal has all colours."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        patch.delenv("NO_COLOR", raising=False)
        patch.setenv("COLORTERM", "truecolor")
        patch.setenv("TERM", "xterm-256color")
        if hasattr(time, "tzset"):
            time.tzset()
        yield
    if hasattr(time, "tzset"):
        time.tzset()
