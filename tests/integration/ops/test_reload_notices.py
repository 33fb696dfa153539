"""What systemd is told while the configuration is read again, over the socket that it gives."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from appliance_process import ApplianceProcess, until

from appliance import cli

pytestmark = [
    pytest.mark.posix("there is no systemd"),
    pytest.mark.campaign,  # processes of their own
]

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
anonymous = true
"""


@pytest.fixture
def manager(tmp_path, monkeypatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield manager


def next_state(manager: socket.socket) -> str:
    """The next datagram that is about the service's state, not its status line alone."""
    while True:
        text = manager.recv(1000).decode()
        if not text.startswith(("STATUS=", "WATCHDOG=")):
            return text


@pytest.mark.parametrize("how", ["signal", "command", "wrong configuration"])
def test_a_reload_is_told_when_it_begins_and_when_it_is_over(tmp_path, manager, how) -> None:
    """RELOADING=1 with the time it began, then READY=1, also when the new configuration is wrong:
    the appliance goes on with the old one."""
    with ApplianceProcess(tmp_path, CONFIG) as appliance:
        appliance.start()
        assert next_state(manager).startswith("READY=1\n")
        before_us = time.monotonic_ns() // 1000
        if how == "wrong configuration":
            appliance.config.write_text("[service]\nnonsense = 1\n")
        if how == "command":
            until((appliance.data / "health.json").exists, "the appliance can be asked")
            assert cli.main(["reload", "-c", str(appliance.config)]) == 0
        else:
            appliance.send(signal.SIGHUP)
        found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", next_state(manager))
        assert found
        assert before_us <= int(found[1]) <= time.monotonic_ns() // 1000
        assert next_state(manager).startswith("READY=1\n")
        appliance.wait_for_line("reload: ")
        assert appliance.end() == 0
        assert next_state(manager).startswith("STOPPING=1\n")
