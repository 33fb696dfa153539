"""The first lines of a headless appliance's log: what runs, where, and what to look at."""

from __future__ import annotations

import pytest
from appliance_process import QUICK, ApplianceProcess

from appliance import __version__, cli

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "simulated"
[[trigger]]
topic = "appliance/tasks/+/last"
task = {name = "Reload sales"}
"""
SECOND = """
[[trigger]]
topic = "appliance/tasks/+/last"
task = {name = "Reload line 7"}
"""


def test_the_log_begins_with_version_process_configuration_and_data(tmp_path) -> None:
    """Each log says what wrote it, and where that is."""
    with ApplianceProcess(tmp_path, CONFIG, program=QUICK) as appliance:
        appliance.begin()
        first = appliance.wait_for_line("starts")
        assert appliance.lines[0] == first
        for part in (
            f"appliance {__version__} starts",
            f"process {appliance.process.pid},",
            f"configuration {appliance.config},",
            f"data in {appliance.data}",
        ):
            assert part in first


@pytest.mark.campaign
def test_a_start_and_a_reload_warn_of_triggers_that_start_each_other(tmp_path, capfd) -> None:
    """Who does not run ``check`` is told all the same."""
    with ApplianceProcess(tmp_path, CONFIG, program=QUICK) as appliance:
        appliance.start()
        with appliance.config.open("a", encoding="utf-8") as file:
            file.write(SECOND)
        assert cli.main(["reload", "-c", str(appliance.config)]) == 0
        assert "a loop that never ends" in capfd.readouterr().out
        assert appliance.end() == 0
        appliance.begin()
        assert "WARN" in appliance.wait_for_line("a loop that never ends")
