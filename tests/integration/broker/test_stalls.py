"""How long the appliance, a process of its own, lets an innocent client wait for its PINGRESP.

The kinds and the measuring are those of tests/benchmarks/stalls.py, whose other kinds take longer.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.campaign

MEASURE = Path(__file__).parents[2] / "benchmarks" / "stalls.py"
LONGEST_MS = 50
BEFORE_LOGIN_MS = 20
TRIES = 4
"""The best one counts: a machine that does other things can only make it worse."""


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("subscribe_deep_retained", LONGEST_MS),
        ("subscribe_all_retained", LONGEST_MS),
        ("subscribe_far_too_many", LONGEST_MS),
        ("unsubscribe_far_too_many", LONGEST_MS),
        ("many_pings", LONGEST_MS),
        ("many_tiny_messages", LONGEST_MS),
        ("message_through_deep_filters", LONGEST_MS),
        ("properties", LONGEST_MS),
        ("properties_before_login", BEFORE_LOGIN_MS),
        ("retained_deletions", LONGEST_MS),
        ("many_acknowledgements", LONGEST_MS),
        ("overlapping_subscriptions", LONGEST_MS),
        ("small_websocket_frames", LONGEST_MS),
        ("websocket_pings", LONGEST_MS),
    ],
)
def test_no_client_keeps_another_one_waiting(kind: str, bound: int) -> None:
    """At most 50 ms, and 20 ms for what a stranger sends before the login."""
    waits = []
    while len(waits) < TRIES and (not waits or waits[-1] > bound):
        measured = subprocess.run(
            [sys.executable, str(MEASURE), kind],
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=True,
        )
        waits.append(float(measured.stdout.rpartition(" ms")[0].split()[-1]))
    assert min(waits) <= bound, f"{waits} ms"
