"""What clients call themselves and send, on a real terminal: every byte that it gets is read."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from appliance_process import ApplianceProcess, until

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.posix("a terminal is a file there"),
]

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
"""
NASTY = "\x1b]0;owned\x07\x1b[31mred\x9b1m\u202ebidi\u2066\u200bzero\u061c日本語"
OBEYED = ("\x1b]0;", "\x1b[31mred", "owned\x07", "\x9b", "\u202e", "\u2066", "\u200b", "\u061c")
KEYS = ("2", "\x1b[B", "\r", "1", "\r", "C", "c", "\x1b", "4", "\r", "C", "5", "\r", "\x1b")


def drawn(arguments: list[str], keys: tuple[str, ...], folder: Path, enough: str) -> str:
    """Run a command on a terminal of 140x40, press keys, and return all that it wrote."""
    import fcntl  # noqa: PLC0415 - not on Windows
    import pty  # noqa: PLC0415
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", XDG_STATE_HOME=str(folder))
        os.execv(sys.executable, [sys.executable, "-m", "appliance", *arguments])  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    out, left, end = b"", list(keys), time.monotonic() + 30
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.15)
        if ready:
            try:
                out += os.read(terminal, 65536)
            except OSError:  # the command has ended
                break
        elif enough in out.decode("utf-8", "replace"):
            if not left:
                break
            os.write(terminal, left.pop(0).encode())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return out.decode("utf-8", "replace")


def test_a_terminal_gets_nothing_of_others_that_it_obeys(tmp_path: Path) -> None:
    """Client id, user, topic and payload with escape sequences, bidi and invisible characters, on
    the screens of an attached terminal, in what is copied there, and in what commands print."""
    with ApplianceProcess(tmp_path, CONFIG) as process:
        process.start()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"id{NASTY}")
        client.username_pw_set(f"user{NASTY}", "x")
        client.connect("127.0.0.1", process.port)
        client.loop_start()
        until(client.is_connected, "paho connects")
        client.publish(f"topic{NASTY}/x", f"payload{NASTY}", 1).wait_for_publish(10)
        configured = ["-c", str(process.config)]
        seen = drawn(["attach", *configured], KEYS, tmp_path, "owned")
        assert "\x1b]52;" in seen, "something was copied"
        seen += drawn(["export", "--format", "csv", *configured], (), tmp_path, "1 message")
        assert seen.count("owned") > 10
        assert [each for each in OBEYED if each in seen] == []
        assert not any(each in line for line in process.lines for each in OBEYED)
        client.loop_stop()
        assert process.end() == 0
