"""The first run on a real engine in a real terminal: the page says what to do next."""

import shutil
import subprocess
import sys

import pytest
from appliance_process import free_port
from tmux_window import Window

from appliance.mqtt.client import Client, Target

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")

BARE = """
[[listener]]
bind = "127.0.0.1:PORT"
"""


@pytest.fixture
def run(tmp_path):
    """Start ``appliance run`` at 80x24 with a configuration; returns the window and the port."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened = []

    def start(text):
        port = free_port()
        text = text.replace("PORT", str(port)).replace("1:1883", f"1:{port}")
        (tmp_path / "config.toml").write_text(text, "utf-8")
        command = f"{sys.executable} -m appliance run; exec cat"
        opened.append(Window(tmp_path, command))
        return opened[-1], port

    yield start
    for window in opened:
        window.close()


def initial(folder):
    """What ``appliance init`` writes."""
    command = [sys.executable, "-m", "appliance", "init", "made.toml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / "made.toml").read_text("utf-8")


def test_with_a_bare_configuration(run):
    """The address, how to add a user, how to set the Qlik server; gone with the first message."""
    window, port = run(BARE)
    text = window.wait(
        "✓ all well",
        f"mosquitto_pub -h 127.0.0.1 -p {port} -t demo/hello",
        'users_file = "users.txt"',
        "appliance user add NAME",
        "No Qlik server is set",
        "appliance check --connect",
        "data    ",
    )
    assert "Starting" not in text
    with Client(Target("127.0.0.1", port, client_id="first")) as client:
        client.publish("hall/door", b"open", qos=1, retain=False)
    window.wait("hall/door", "open")
    assert "mosquitto_pub" not in window.screen()


def test_with_the_configuration_of_init(run, tmp_path):
    """It has a recorder, a trigger and a simulated server: the page is there, with their values."""
    window, port = run(initial(tmp_path))
    text = window.wait(
        "✓ all well",
        f"mosquitto_pub -h 127.0.0.1 -p {port} -t /demo/integers",
        "appliance user add NAME",
        "Tasks are started on a simulated server",
        "starts a task now; so does its id on qliksense/start_task",
        "Esc hides this page",
    )
    assert "Starting" not in text
    window.keys("Escape")
    window.wait("No message has come since the start")
