"""``appliance run`` with its UI on a terminal: how it starts, fails to start, and loses the terminal."""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest
from appliance_process import free_port, until

from appliance.mqtt.client import Client, Target

if sys.platform != "win32":
    import fcntl
    import termios

pytestmark = [
    pytest.mark.posix("the terminal is a pseudo terminal of POSIX"),
    pytest.mark.campaign,  # processes of their own
]

DEADLINE_S = 30
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:{port}"
[ui]
on_hangup = "{on_hangup}"
"""
FAILING = """
import sys
from appliance.config.reading import load
from appliance.process.run import main
from appliance.ui.screens.live import LiveScreen

def fail(*_): raise RuntimeError("hunter2")

LiveScreen.update_body = fail
sys.exit(main(load("config.toml"), headless=False))
"""


class OnTerminal:
    """A command on a pseudo terminal of 100x30 whose other end is ours."""

    def __init__(self, folder, *command):
        self.ours, theirs = os.openpty()
        self.resize(30, 100)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, wanted):
        """Read until ``wanted`` comes, or (``None``) to the end."""
        end = time.monotonic() + DEADLINE_S
        while wanted is None or wanted not in self.seen:
            assert time.monotonic() < end, f"{wanted!r} never came: {self.seen[-2000:]!r}"
            if select.select([self.ours], [], [], 0.2)[0]:
                try:
                    data = os.read(self.ours, 65536)
                except OSError:  # how Linux says that the other end is closed
                    data = b""
                if not data:
                    assert wanted is None, f"{wanted!r} never came: {self.seen[-2000:]!r}"
                    return
                self.seen += data

    def hang_up(self):
        os.close(self.ours)
        self.ours = -1

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        if self.ours >= 0:
            os.close(self.ours)


@pytest.fixture
def run(tmp_path):
    """Start ``appliance run``, or another command, with a configuration: (terminal, port)."""
    opened = []

    def start(*command, port=None, on_hangup="stop"):
        port = port or free_port()
        text = CONFIG.format(port=port, on_hangup=on_hangup)
        (tmp_path / "config.toml").write_text(text, "utf-8")
        opened.append(OnTerminal(tmp_path, *(command or ("-m", "appliance", "run"))))
        return opened[-1], port

    yield start
    for one in opened:
        one.__exit__()


def accepts(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def test_the_screen_stands_before_the_engine_and_ends_with_it(run):
    """It paints while it starts, says so, then that all is well; SIGTERM ends both with 0."""
    terminal, port = run()
    terminal.read_until("◌ starting".encode())
    terminal.read_until("✓ all well".encode())
    assert accepts(port)
    terminal.process.send_signal(signal.SIGTERM)
    terminal.read_until(None)
    assert terminal.process.wait(DEADLINE_S) == 0


def test_a_start_that_fails_says_why_on_the_normal_screen(run):
    """The port is taken: the screen is given back, then one message, and exit code 69."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        terminal, port = run(port=other.getsockname()[1])
        terminal.read_until(None)
        assert terminal.process.wait(DEADLINE_S) == 69
    said = terminal.seen.rpartition(b"\x1b[?1049l")[2].decode()
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said
    assert "Traceback" not in said


def test_a_flood_with_large_payloads_and_a_storm_of_resizes(run):
    """A megabyte among many messages, the window pulled about meanwhile: keys are answered."""
    terminal, port = run()
    terminal.read_until("✓ all well".encode())
    picture = b"\xff\xd8\xff\xe0" + bytes(1_000_000)
    with Client(Target("127.0.0.1", port, client_id="cam1")) as client:
        for _ in range(5):
            client.publish("plant/cam1", picture, qos=1, retain=False)
            for rows, columns in ((10, 20), (60, 200), (24, 80), (30, 100)):
                terminal.resize(rows, columns)
                terminal.process.send_signal(signal.SIGWINCH)
                for number in range(20):
                    client.publish("plant/sensor", b"%d" % number, qos=0, retain=False)
        client.publish("plant/cam1", picture, qos=1, retain=False)
    terminal.read_until(b"<jpeg 1.0 MB>")
    os.write(terminal.ours, b" ")
    terminal.read_until(b"PAUSED")
    os.write(terminal.ours, b"q")
    terminal.read_until(b"Stop the appliance?")
    os.write(terminal.ours, b"y")
    terminal.read_until(None)
    assert terminal.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("on_hangup", ["stop", "continue"])
def test_a_closed_terminal_does_what_the_configuration_says(run, tmp_path, on_hangup):
    """The SSH session ends: the appliance stops in order, or goes on until it is told to stop."""
    terminal, port = run(on_hangup=on_hangup)
    terminal.read_until("✓ all well".encode())
    terminal.process.send_signal(signal.SIGHUP)
    terminal.hang_up()
    if on_hangup == "continue":
        log = tmp_path / "data" / "logs" / "appliance.log"
        until(lambda: "continues without its terminal" in log.read_text(), "it goes on")
        assert accepts(port)
        terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(DEADLINE_S) == 0


def test_a_ui_that_keeps_failing_leaves_the_engine_running(run):
    """A fault in a widget, again and again: the terminal is given back, the broker goes on."""
    terminal, port = run("-c", FAILING)
    terminal.read_until(b"The terminal UI failed")
    assert b"hunter2" not in terminal.seen
    assert until(lambda: accepts(port), "it accepts connections")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(None)
    assert terminal.process.wait(DEADLINE_S) == 0
