"""``appliance attach`` as an operator types it: tmux, the real UI, a real appliance process."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import attached_appliance
import certificates
import pytest
from appliance_process import free_port
from attached_appliance import PASSWORD, publish, target
from tmux_window import DEADLINE_S, Window

from appliance.commands.attach import state_folder
from appliance.mqtt.client import Client

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
    pytest.mark.campaign,  # terminals of processes
]

APPLIANCE = f"{shlex.quote(sys.executable)} -m appliance"


def shell(folder):
    """A shell that waits for its first command."""
    environment = f"XDG_STATE_HOME={folder}/state PS1='ready> ' TERM=screen-256color"
    opened = Window(folder, f"{environment} exec sh", wrapped=True)
    opened.wait("ready>")
    return opened


@pytest.fixture
def window(tmp_path):
    opened = shell(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with attached_appliance.make(tmp_path_factory.mktemp("attach")) as process:
        yield process.start()


def test_an_operator_attaches_and_leaves(running, window):
    """The password is asked for, the screens show the appliance, q leaves and it goes on."""
    window.type(f"{APPLIANCE} attach 127.0.0.1 --port {running.port} -u admin; echo rc $?")
    window.wait("Password for admin:")
    window.type(PASSWORD)
    window.wait("✓ all well", f":{running.port}")
    publish(running, "plant/shown", b'{"value":42}')
    window.wait("plant/shown", '{"value":42}')
    window.keys("4")
    window.wait("attached", "as operator", "terminal-")
    window.keys("q")
    text = window.wait("Detached from", "the appliance continues", "rc 0")
    assert "Traceback" not in text
    assert PASSWORD not in text
    assert running.process.poll() is None


@pytest.mark.campaign
def test_sessions_are_ended_by_key_and_by_command(running, window):
    """X asks and ends a client's session, ``appliance session end`` too; no leaves all as it is.
    A viewer's terminal says that a viewer may not."""
    end = f"{APPLIANCE} session end ended-2 -c {shlex.quote(str(running.config))}; echo rc $?"
    with contextlib.ExitStack() as stack:
        for name in ("ended-1", "ended-2"):
            stack.enter_context(Client(target(running, "plc-7", name)))
        window.type(end)
        window.wait("End the session of ended-2?", "[y/N]")
        window.type("n")
        window.wait("nothing was changed", "rc 64")
        window.type(f"clear; {end}")
        window.wait("[y/N]")
        window.type("y")
        window.wait("the session of ended-2 is ended", "rc 0")
        for user, answer in (("anna", "may look and not act"), ("admin", "The session of ended-1")):
            window.type(
                f"clear; echo {shlex.quote(PASSWORD)} | {APPLIANCE} attach 127.0.0.1 "
                f"--port {running.port} -u {user} --password-stdin"
            )
            window.wait("✓ all well")
            window.keys("4", "/")
            window.type("ended-")
            window.wait("ended-1")
            window.keys("X")
            window.wait("End the session of ended-1?")
            window.keys("y")
            window.wait(answer)
            window.keys("q")
            window.wait("Detached from")
    assert not [line for line in running.lines if "Traceback" in line]
    ended = [line for line in running.lines if "ended the client's session" in line]
    assert ["ended-2" in ended[0], "ended-1" in ended[1], len(ended)] == [True, True, 2]


def test_with_the_configuration_nothing_but_the_name_is_said(running, window):
    """In the configuration's folder its first listener is meant; the password may be piped in."""
    window.type(f"cd {shlex.quote(str(running.folder))}")
    window.type(
        f"echo {shlex.quote(PASSWORD)} | {APPLIANCE} attach -u anna --password-stdin; echo rc $?"
    )
    window.wait("✓ all well", f":{running.port}")
    window.keys("4")
    window.wait("as viewer")
    window.keys("q")
    window.wait("Detached from", "rc 0")


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("plc-7", PASSWORD, "may not attach"),
        ("admin", "wrong", "wrong user name or password"),
    ],
)
def test_who_may_not_is_told_so(running, window, user, password, said):
    """Exit code 77 and a sentence, before any screen."""
    window.type(
        f"echo {shlex.quote(password)} | {APPLIANCE} attach 127.0.0.1 --port {running.port} "
        f"-u {user} --password-stdin; echo rc $?"
    )
    text = window.wait(said, "rc 77")
    assert "Traceback" not in text


def test_over_tls(window, tmp_path):
    """The listener's certificate is checked before anything is sent; with its authority named, the
    terminal attaches."""
    files = certificates.make(tmp_path / "tls")
    bind = 'bind = "127.0.0.1:PORT"'
    config = attached_appliance.CONFIG.replace(
        bind, f"{bind}\ntls = {{certfile = {files.server!r}, keyfile = {files.server_key!r}}}"
    )
    with attached_appliance.make(tmp_path, config=config).start() as process:
        command = f"echo {shlex.quote(PASSWORD)} | {APPLIANCE} attach -u anna --password-stdin"
        there = f"localhost --port {process.port}"
        window.type(f"{command} {there} --tls; echo rc $?")
        window.wait(f"certificate of localhost:{process.port} is not trusted", "rc 69")
        window.type(f"clear; {command} {there} --ca-file tls/{Path(files.root).name}; echo rc $?")
        window.wait("✓ all well", f":{process.port}")
        window.keys("q")
        window.wait("Detached from localhost", "rc 0")


def test_nothing_there_is_told(window):
    """Exit code 69 and where it was looked for."""
    port = free_port()
    window.type(f"{APPLIANCE} attach --port {port}; echo rc $?")
    window.wait(f"nothing listens at 127.0.0.1:{port}", "rc 69")


def test_no_terminal_is_told(running):
    """In a script there is nothing to show: exit code 64, and no waiting."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "attach", "127.0.0.1", "--port", str(running.port)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 64
    assert "no terminal" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_remembered_has_a_place_of_its_own(monkeypatch, tmp_path):
    """The attached UI's settings lie with the user, never in an appliance's data directory."""
    name = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME"
    monkeypatch.setenv(name, str(tmp_path))
    if sys.platform == "darwin":
        monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder().is_relative_to(tmp_path)
    assert os.path.basename(state_folder()) == "appliance"
