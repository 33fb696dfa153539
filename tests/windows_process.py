"""The appliance on Windows, run by the Python that the environment variable WINDOWS_PYTHON names.

That is the launcher of a Windows Python under Wine, or a real one where the tests themselves run
on Windows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as mqtt
from appliance_process import ApplianceProcess, until

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
DEADLINE_S = 120.0
"""Loading the appliance takes ten seconds under Wine on a busy machine."""

ONE_RECORDER = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[recorder]]
topic = "line/7"
path = "recordings/line7.json"
format = "json"
"""
"""A configuration: what comes on line/7 is recorded."""


def windows_path(path: Path | str) -> str:
    """The path as a program on Windows names it."""
    return str(path) if sys.platform == "win32" else "Z:" + str(path).replace("/", "\\")


def environment(**more: str) -> dict[str, str]:
    """The environment of a program on Windows, which finds the project in it."""
    # Wine reads the names of files in this locale; the code page of pipes stays cp1252.
    fixed = {"LC_ALL": "C.UTF-8", "PYTHONPATH": windows_path(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **fixed, **more}


def spawn(*arguments: str, encoding: str = "cp1252", **more: str) -> subprocess.Popen[str]:
    """Start the Windows Python; its pipes are in the Windows code page by default."""
    return subprocess.Popen(
        [os.environ["WINDOWS_PYTHON"], *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=encoding,
        errors="replace",
        env=environment(**more),
    )


def run_python(
    *arguments: str, text: str = "", timeout_s: float = DEADLINE_S, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the Windows Python to its end; ``text`` is its standard input."""
    with spawn(*arguments, **more) as process:
        try:
            output, errors = process.communicate(text, timeout_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def run_appliance(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    """Run a command of the appliance to its end."""
    return run_python("-m", "appliance", *arguments, **more)


def connected(port: int, **credentials: str) -> mqtt.Client:
    """A client of paho, connected, its loop in a thread. ``credentials``: username, password."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if credentials:
        client.username_pw_set(**credentials)
    client.connect("127.0.0.1", port)
    client.loop_start()
    until(client.is_connected, "paho connects", DEADLINE_S)
    return client


class WindowsProcess(ApplianceProcess):
    """``appliance run --headless`` on Windows, in a console of its own (windows_supervisor.py)."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        port: int | None = None,
        program: tuple[str, ...] = ("-m", "appliance"),
        **environment: str,
    ) -> None:
        super().__init__(folder, config, port=port)
        self._program = program
        self._environment = environment

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[str]:
        shown = [windows_path(each) if each == str(self.config) else each for each in arguments]
        supervisor = windows_path(TESTS / "windows_supervisor.py")
        return spawn(supervisor, *self._program, *shown, **self._environment)

    def start(self, *arguments: str) -> WindowsProcess:
        self.begin(*arguments)
        self.wait_for_line("listening on", DEADLINE_S)
        return self

    def command(self, name: str) -> None:
        """``ctrl-c``, ``ctrl-break`` or ``terminate`` (TerminateProcess)."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()

    def end(self, name: str = "ctrl-c") -> int:
        """Stop it as a service wrapper does and return its exit code."""
        self.command(name)
        return self.exit_code()

    def kill(self) -> None:
        self.end("terminate")

    def exit_code(self, timeout_s: float = DEADLINE_S) -> int:
        assert self.process is not None
        code = super().exit_code(timeout_s)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return code
