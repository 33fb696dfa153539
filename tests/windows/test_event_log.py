"""The Windows event log: what the appliance reports through advapi32."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from windows_process import WindowsProcess

from appliance.errors import EXIT_OK, EXIT_UNAVAILABLE

CONFIG = """
[service]
data_dir = "data"
event_log = true
[[listener]]
bind = "127.0.0.1:PORT"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="only Wine tells what ReportEventW was given")
def test_start_stop_and_a_failed_start_are_reported(tmp_path: Path) -> None:
    """The calls go through with the ids and texts of start, stop and a port in use; none is refused."""
    shown = {"WINEDEBUG": "-all,+eventlog"}
    with WindowsProcess(tmp_path / "a", CONFIG, **shown) as first:
        first.start()
        with WindowsProcess(tmp_path / "b", CONFIG, port=first.port, **shown) as second:
            second.begin()
            assert second.exit_code() == EXIT_UNAVAILABLE
        assert first.end() == EXIT_OK
    assert reports(first) == [
        ("trace", f"engine.service: listening on 127.0.0.1:{first.port} (tcp)"),
        ("trace", stopped_line(first)),
    ]
    (failure,) = reports(second)
    assert failure[0] == "err"
    assert failure[1].startswith(f"process.run: not started: listener 127.0.0.1:{first.port}: ")
    assert "event log refuses" not in "\n".join(first.lines + second.lines)


def reports(process: WindowsProcess) -> list[tuple[str, str]]:
    """Wine's name for the kind of event (``trace`` is information), and its text."""
    pattern = re.compile(r'\w+:(\w+):eventlog:ReportEventW L"(.*)"')
    return [match.groups() for line in process.lines if (match := pattern.search(line))]


def stopped_line(process: WindowsProcess) -> str:
    line = next(line for line in process.lines if " engine.service: stopped: " in line)
    return line.partition("INFO    ")[2]
