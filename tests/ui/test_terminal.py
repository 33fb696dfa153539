"""The UI as a real process on a real terminal: tmux for what is seen, a pty for what goes wrong."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tmux_window import DEADLINE_S, Window

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
    pytest.mark.campaign,  # programs in real terminals
]

ENGINE = str(Path(__file__).parent / "fake_engine.py")


def opened_with(folder, *arguments, environment="", after="", **size):
    """A window in which the UI runs, and that stays when it has ended."""
    command = f"{environment} {sys.executable} {ENGINE} {' '.join(arguments)} {after}; exec cat"
    return Window(folder, command, **size)


@pytest.fixture
def tmux(tmp_path):
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened = []

    def start(*arguments, **options):
        opened.append(opened_with(tmp_path, "--run-for", "90", *arguments, **options))
        return opened[-1]

    yield start
    for window in opened:
        window.close()


def test_a_whole_story_by_keys(tmux):
    """From the failed message to its execution, its reason and its retry, then out: by keys."""
    window = tmux("--rate", "20")
    window.wait("✓ all well", "Reload HR")
    window.keys("/")
    window.wait("plant/+/state  text  !not")
    window.keys(*"task:hr", "Enter")
    window.wait("filter task:hr", "✗ failed")
    window.keys("Enter")
    window.wait("What it led to", "table HR.Employees was not found")
    window.keys("Enter")
    window.wait("── Execution 13")
    window.keys("3")
    window.wait("RULE / TIMER", "Reload HR")
    window.keys("Enter")
    window.wait("Script log", "Error: table HR.Employees")
    window.keys("r")
    window.wait("Start Reload HR again?")
    window.keys("y")
    window.keys("Escape")
    window.wait("Reload HR", "requested")
    window.keys("q")
    window.wait("Stop the appliance?")
    window.keys("y")
    text = window.wait("UI ended: quit")
    assert "Traceback" not in text


def test_no_colour_reaches_the_terminal(tmux):
    """With NO_COLOR set, no colour is sent, and the screen says the same."""
    window = tmux("--bad", columns=140, rows=40, environment="NO_COLOR=1")
    window.wait("✗ Qlik", "403 for user", "✗ failed")
    sent = window.screen("-e")
    assert "\x1b[3" not in sent.replace("\x1b[39m", "")
    assert "\x1b[38" not in sent
    assert "\x1b[48" not in sent


def test_errors_sent_to_a_file_leave_the_screen_alone(tmux, tmp_path):
    """``2>errors``: the screen is where it always is, keys work, and the file is no picture."""
    window = tmux(after=f"2>{tmp_path}/errors")
    window.wait("✓ all well", "Reload HR")
    window.keys("q")
    window.wait("Stop the appliance?")
    window.keys("y")
    window.wait("UI ended: quit")
    assert "\x1b" not in (tmp_path / "errors").read_text()


class OnPty:
    """The UI on a pseudo terminal whose other end is ours."""

    def __init__(self, folder, *arguments, errors=None):
        self.report = folder / "end"
        self.ours, theirs = os.openpty()
        environment = dict(os.environ, TERM="xterm-256color", COLUMNS="100", LINES="30")
        self.process = subprocess.Popen(
            [sys.executable, ENGINE, "--report", str(self.report), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs if errors is None else errors,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, wanted):
        """Read what the UI writes until ``wanted`` comes."""
        end = time.monotonic() + DEADLINE_S
        self.seen = b""
        while time.monotonic() < end:
            if not select.select([self.ours], [], [], 1)[0]:
                continue
            self.seen = self.seen[-100_000:] + os.read(self.ours, 65536)
            if wanted in self.seen:
                return
        raise AssertionError(f"{wanted!r} never came; the last was {self.seen[-2000:]!r}")

    def read_for(self, seconds):
        """Read for a while; returns what came."""
        end = time.monotonic() + seconds
        seen = b""
        while (left := end - time.monotonic()) > 0:
            if select.select([self.ours], [], [], left)[0]:
                seen += os.read(self.ours, 65536)
        return seen

    def ended(self):
        """Wait for the end of the process; returns why the UI ended."""
        assert self.process.wait(timeout=DEADLINE_S) == 0
        return self.report.read_text()

    def close(self):
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)


@pytest.fixture
def on_pty(tmp_path):
    opened = []

    def start(*arguments, **options):
        opened.append(OnPty(tmp_path, *arguments, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_terminal_that_reads_nothing_holds_nothing_up(on_pty):
    """A hung terminal: the engine stops, and the process ends in order without a reader."""
    ui = on_pty("--rate", "2000", "--run-for", "2.5", "--queue", "5")
    assert ui.ended() == "stopping"


def test_a_terminal_that_hung_shows_the_present_again(on_pty):
    """When the terminal reads on, the whole screen is painted anew."""
    ui = on_pty("--rate", "2000", "--run-for", "45", "--queue", "5")
    ui.read_until(b" quit")  # the footer, which is painted once
    ui.read_for(0.5)
    assert b" quit" not in ui.read_for(0.5)
    # The hang itself: five frames at ten a second fill the queue, then frames are dropped.
    select.select([], [], [], 1.5)
    ui.read_until(b" quit")  # only a repaint of everything brings it again
    os.write(ui.ours, b"q")
    ui.read_until(b"Stop the appliance?")
    os.write(ui.ours, b"y")
    ui.read_until(b"\x1b[?1049l")  # the terminal is given back
    assert ui.ended() == "quit"


def test_a_fault_while_drawing_brings_the_ui_back(on_pty):
    """The UI starts again by itself, the engine was never touched, no value is printed."""
    ui = on_pty("--crash", "--run-for", "45")
    ui.read_until(b"all well")
    ui.read_until(b"\x1b[?1049l")  # the UI fell
    assert b"hunter2" not in ui.seen
    ui.read_until(b"all well")  # and is back
    os.write(ui.ours, b"q")
    ui.read_until(b"Stop the appliance?")
    os.write(ui.ours, b"y")
    ui.read_until(b"\x1b[?1049l")
    assert ui.ended() == "quit"


def test_a_terminal_that_goes_away_ends_the_ui_alone(on_pty):
    """A closed SSH session: the UI ends cleanly, the engine is not stopped by it."""
    ui = on_pty("--run-for", "45")
    ui.read_until(b"all well")
    os.close(ui.ours)
    ui.ours = -1
    assert ui.ended() == "hangup"


def test_a_terminal_that_goes_away_with_errors_in_a_file(on_pty, tmp_path):
    """The same where standard error is a file: a clean end, and nothing to complain about."""
    with (tmp_path / "errors").open("wb") as errors:
        ui = on_pty("--run-for", "45", errors=errors)
    ui.read_until(b"all well")
    os.close(ui.ours)
    ui.ours = -1
    assert ui.ended() == "hangup"
    assert (tmp_path / "errors").read_bytes() == b""


PARTING = """
import os, sys
from appliance.process.run import say_at_end
if "full" in sys.argv:
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, bytes(4096))
    except BlockingIOError:
        os.set_blocking(1, True)
if "gone" in sys.argv:
    sys.stdin.buffer.read(1)
said = say_at_end("What happened: " + "x" * 5000 + " \\N{SNOWMAN} end")
sys.stderr.write(f"said: {said}")
"""


@pytest.mark.parametrize(
    ("state", "said"), [("full", "said: False"), ("gone", "said: False"), ("well", "said: True")]
)
def test_parting_words_hold_nothing_up(state, said, tmp_path):
    """A terminal that hangs or is gone when the appliance has stopped: the process ends, cleanly."""
    ours, theirs = os.openpty()
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PARTING, state],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=errors,
            start_new_session=True,
        )
    os.close(theirs)
    try:
        if state == "gone":
            os.close(ours)
            process.stdin.write(b".")
            process.stdin.flush()
        if state == "well":
            seen = b""
            while not seen.endswith(b"end\r\n"):
                seen += os.read(ours, 65536)
        assert process.wait(timeout=DEADLINE_S) == 0
        assert (tmp_path / "errors").read_text() == said
    finally:
        process.stdin.close()
        if process.poll() is None:
            process.kill()
            process.wait(timeout=30)
        if state != "gone":
            os.close(ours)


def test_sighup_ends_the_ui_alone(on_pty):
    """The signal of a lost terminal does not kill the process."""
    ui = on_pty("--run-for", "45")
    ui.read_until(b"all well")
    os.kill(ui.process.pid, signal.SIGHUP)
    assert ui.ended() == "hangup"
