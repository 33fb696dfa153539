"""Commands that need no configuration: an installation can be tried at once."""

from __future__ import annotations

import json

from windows_process import run_appliance, windows_path


def test_the_selftest_passes():
    """All that the program carries works: codecs, journal, TLS, the broker with a start, the UI."""
    done = run_appliance("selftest", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a task started, 9 screens shown" in done.stdout


def test_the_demo_records_and_starts_a_task_and_ends(tmp_path):
    """The demo without a terminal records its publisher's numbers, starts tasks and ends in time."""
    folder = tmp_path / "demo"
    done = run_appliance(
        "demo", "--headless", "--run-for", "12s", "--data-dir", windows_path(folder)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What happened:" in done.stdout
    assert " x succeeded: " in done.stdout
    recorded = json.loads((folder / "recordings" / "integers.json").read_text("utf-8"))
    assert len(recorded) > 2
    assert "Traceback" not in done.stderr
