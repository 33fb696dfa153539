"""When the service manager is told that all is well, and when it is left to restart the service."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import sys
import threading

import pytest
from appliance_process import free_port, until

from appliance.config.reading import loads
from appliance.engine.service import Appliance
from appliance.ops.systemd import SystemdNotifier
from appliance.ops import supervisor as supervision
from appliance.ops.supervisor import Supervisor

pytestmark = pytest.mark.posix("there is no systemd")

CONFIG = """
[service]
data_dir = '{data}'
[[listener]]
bind = "127.0.0.1:{port}"
[qlik]
edition = "client-managed"
url = "http://127.0.0.1:{dead}"
header = {{name = "X-User"}}
user = 'INTERNAL\\sa_repository'
"""


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A running appliance whose Qlik server is down, and what it tells systemd."""
    monkeypatch.setattr(supervision, "_TICK_S", 0.1)
    path = str(tmp_path / "notify")
    text = CONFIG.format(data=tmp_path / "data", port=free_port(), dead=free_port())
    appliance = Appliance(loads(text, file=str(tmp_path / "config.toml")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        told = SystemdNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"})
        supervisor = Supervisor(appliance, told)
        appliance.when_ready(supervisor.begin)
        appliance.start()
        try:
            yield appliance, manager
        finally:
            appliance.stop()
            assert appliance.wait(30)


def end_by_a_defect(name: str, error: type[BaseException]) -> None:
    """Have a thread meet an error of its own, wherever it is."""
    (thread,) = (one for one in threading.enumerate() if one.name == name)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(error)
    )


def test_a_qlik_server_that_is_down_is_no_reason_for_a_restart(watched) -> None:
    """The watchdog is fed although the server does not answer: a restart would not bring it back."""
    appliance, manager = watched
    assert manager.recv(1000).startswith(b"READY=1")
    until(lambda: appliance.tasks.qlik_state().health.level == "bad", "the server is known as down")
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while manager.recv(1000):
            pass  # what was said before
    manager.settimeout(20)
    assert manager.recv(1000).startswith(b"WATCHDOG=1")


# The journal's writer catches errors and then ends; the task engine runs its threads again after
# an error, so one of them is gone only where it has been ended past that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("name", "error"), [("journal-writer", RuntimeError), ("tasks-clock", SystemExit)]
)
def test_a_thread_that_is_gone_has_the_service_restarted(watched, name, error) -> None:
    """Nothing works without these threads and nothing brings them back, so the watchdog is not fed
    any more: systemd restarts the service. The status line and the health say why."""
    appliance, manager = watched
    assert manager.recv(1000).startswith(b"READY=1")
    end_by_a_defect(name, error)
    said = b"WATCHDOG=1"
    while said.startswith(b"WATCHDOG=1"):
        said = manager.recv(1000)
    assert said == f"STATUS=threads have ended: {name}".encode()
    state = (
        appliance.journal.stats().health
        if "journal" in name
        else (appliance.tasks.qlik_state().engine)
    )
    assert state.level == "bad"
    manager.settimeout(0.5)
    with pytest.raises(TimeoutError):
        manager.recv(1000)
