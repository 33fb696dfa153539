"""Runs a command in a terminal of 140 x 40 whose screen is read and thrown away.

``python terminal.py COMMAND...`` prints ``pid NUMBER`` and, once the first text was painted,
``painted SECONDS SECONDS`` (since the command was started, and how much processor time it used). Ends with the command; SIGTERM is passed on.
Text is what is left of the output without control sequences and blanks. Not for: looking at what
was painted (the tests of the UI do that).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
from pathlib import Path

ROWS, COLUMNS = 40, 140
ENOUGH = 20
"""Characters of text that count as painted: more than a stray answer or a banner's first letter."""

_CONTROL = re.compile(
    rb"\x1b(?:\[[0-9;:?<>=!]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])"
)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(command: list[str]) -> int:
    began = time.monotonic()
    pid, screen = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.environ["COLORTERM"] = "truecolor"
        os.execvp(command[0], command)
    print(f"pid {pid}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    seen = b""
    painted = False
    while True:
        try:
            data = os.read(screen, 262144)
        except OSError as error:
            if error.errno == errno.EIO:  # Linux says so when the other side is closed
                break
            raise
        if not data:
            break
        if not painted:
            seen = (seen + data)[-65536:]
            if len(re.sub(rb"\s", b"", _CONTROL.sub(b"", seen))) >= ENOUGH:
                painted = True
                taken = time.monotonic() - began
                print(f"painted {taken:.4f} {cpu_s(pid):.4f}", flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
