"""A terminal driver that never blocks the UI, even if the terminal reads nothing.

Textual's own driver queues 30 writes and then blocks its loop until the terminal reads on (measured
with a stopped reader). This driver drops a frame that finds the queue full; the app repaints the
whole screen when the terminal reads again. When the terminal goes away (a closed SSH session), the
driver sets ``gone`` instead of ending the app with a traceback.
Not for: the content of a frame.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if sys.platform == "win32":
    from textual.drivers.windows_driver import WindowsDriver as PlatformDriver
else:
    import termios

    from textual.drivers.linux_driver import LinuxDriver as PlatformDriver

if TYPE_CHECKING:
    from textual.app import App
    from textual.drivers._writer_thread import WriterThread

_PARTING_S = 1.0
"""How long the end of the UI waits for a terminal to take the last writes, in seconds."""


_FLUSHES = 40

_RESTORE = b"\x1b[?2026l\x1b[<u\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b[?25h"
"""Gives back an xterm: no mouse, no bracketed paste, the main screen, the cursor."""


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _standard_output() -> io.TextIOWrapper | None:
    """The stream to draw on if standard error goes to a file (``2>errors``).

    Textual draws on standard error. Standard output gets a stream of its own here: with Python's,
    the flush at exit would fail for a terminal that has gone.
    """
    output = sys.__stdout__
    if output is None:
        return None
    raw = io.FileIO(output.fileno(), "w", closefd=False)
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=output.encoding, errors="backslashreplace")


class NonBlockingDriver(PlatformDriver):
    """Never waits for the terminal, except for at most a second at the end of the UI."""

    dropped = 0
    """Writes that found the queue full."""

    stale = False
    """Whether the screen must be repainted, because a write was dropped."""

    gone = False
    """Whether the terminal has been closed."""

    _deadline: float | None = None

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._own_stream: io.TextIOWrapper | None = None
        if sys.platform != "win32" and not _is_terminal(sys.__stderr__):
            self._file = self._own_stream = _standard_output()

    def write(self, data: str) -> None:
        """Queue ``data`` for the terminal, or drop it if the terminal does not keep up."""
        thread: WriterThread | None = self._writer_thread
        if thread is None:
            return
        if not thread.is_alive():
            self.gone = True  # its last write failed: there is no terminal any more
            return
        try:
            thread._queue.put(data, block=self._patience > 0, timeout=self._patience)  # noqa: SLF001 - Textual offers no other way not to wait
        except queue.Full:
            self.dropped += 1
            self.stale = True

    @property
    def _patience(self) -> float:
        return 0.0 if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def has_room(self) -> bool:
        """Whether the terminal has read everything that was written."""
        thread = self._writer_thread
        return thread is not None and thread._queue.empty()  # noqa: SLF001 - see write

    @property
    def hung_up(self) -> bool:
        """Whether the terminal's other end is closed.

        Only Linux can be asked: macOS can't poll terminals (poll(2), BUGS) and tells by SIGHUP
        and a failing read; Windows closes the whole console.
        """
        if self.gone or sys.platform != "linux":
            return self.gone
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN)
        self.gone = any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
        return self.gone

    def stop_application_mode(self) -> None:
        """Give the terminal back; one that hangs is given up after a second."""
        self._deadline = time.monotonic() + _PARTING_S
        super().stop_application_mode()

    def close(self) -> None:
        """End the writer; what a hung terminal has not read by then is thrown away."""
        thread = self._writer_thread
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            thread._queue.put(None, timeout=max(0.05, self._patience))  # noqa: SLF001 - see write
            thread.join(_PARTING_S)
        if sys.platform != "win32" and thread.is_alive():
            self._throw_away(thread)
        if self._own_stream is not None and not thread.is_alive():
            # A terminal that has gone left something unwritten; Python 3.13 would complain at exit.
            with contextlib.suppress(OSError):
                self._own_stream.close()

    def _terminal_number(self) -> int:
        file = self._file
        assert file is not None  # Textual's driver was given a terminal
        return file.fileno()

    if sys.platform != "win32":  # Windows has no termios, and another input thread

        def _throw_away(self, thread: WriterThread) -> None:
            """Empty the queue and the terminal's buffer, so that no thread hangs on it.

            Without this, the interpreter would wait at its end for the lock that the writer holds.
            """
            terminal = self._terminal_number()
            for _attempt in range(_FLUSHES):
                with contextlib.suppress(queue.Empty):
                    while True:
                        thread._queue.get_nowait()  # noqa: SLF001 - see write
                with contextlib.suppress(queue.Full):
                    thread._queue.put_nowait(None)  # noqa: SLF001 - see write
                with contextlib.suppress(OSError, termios.error):
                    termios.tcflush(terminal, termios.TCOFLUSH)
                thread.join(0.05)
                if not thread.is_alive():
                    with contextlib.suppress(OSError):
                        os.write(terminal, _RESTORE)
                    return

        def _run_input_thread(self) -> None:
            """Read keys until the end of the UI or of the terminal."""
            try:
                self.run_input_thread()
            except OSError:
                self.gone = True
