"""The clock of the machine is set while the appliance runs on Windows (libfaketime, under Wine)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from appliance_process import until
from windows_process import (
    DEADLINE_S,
    ONE_RECORDER,
    WindowsProcess,
    connected,
    run_appliance,
    windows_path,
)

from appliance.errors import EXIT_OK

LIBRARIES = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    *Path("/usr/lib/faketime").glob("libfaketimeMT.so.1"),
]

TICKS = """
[[recorder]]
topic = "tick"
path = "recordings/ticks.json"
format = "json"
metadata = true
[[timer]]
name = "tick"
every = "1s"
publish = {topic = "tick", payload = "tick"}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the clock of the real machine is not touched")
@pytest.mark.skipif(not LIBRARIES, reason="libfaketime (package faketime) is not installed")
def test_a_step_of_the_clock_stops_nothing(tmp_path):
    """Two hours back, then two days ahead: messages are acknowledged and recorded in order, the timer
    goes on, the appliance is healthy, a restart continues, and it ends in order."""
    step = tmp_path / "step"
    step.write_text("+0")
    clock = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(step),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def set_clock(offset: str) -> None:
        new = step.with_suffix(".new")
        new.write_text(offset)
        os.replace(new, step)

    with WindowsProcess(tmp_path, ONE_RECORDER + TICKS, **clock) as appliance:
        lines = appliance.data / "recordings" / "line7.json"
        ticks = appliance.data / "recordings" / "ticks.json"

        def hours() -> list[str]:
            return [each["time"][:13] for each in json.loads(ticks.read_text("utf-8"))]

        client = connected(appliance.start().port)
        until(hours, "the timer fires", DEADLINE_S)
        number = 0
        for offset in ("+0", "-2h", "+2d"):
            before = hours()[-1]
            set_clock(offset)
            if offset != "+0":
                until(lambda before=before: hours()[-1] != before, f"a tick after {offset}", 60)
            for number in range(number, number + 50):
                info = client.publish("line/7", str(number), qos=1)
                info.wait_for_publish(DEADLINE_S)
                assert info.is_published()
            number += 1
            wanted = list(range(number))
            until(lambda: json.loads(lines.read_text("utf-8")) == wanted, "all recorded", 60)  # noqa: B023
            health = run_appliance("health", "-c", windows_path(appliance.config), **clock)
            assert health.returncode == EXIT_OK, health.stdout
        assert appliance.end() == EXIT_OK
        appliance.start()
        client.loop_stop()
        count = len(hours())
        until(lambda: len(hours()) > count, "the timer goes on after a restart", DEADLINE_S)
        assert appliance.end() == EXIT_OK
        assert "Traceback" not in "\n".join(appliance.lines)
