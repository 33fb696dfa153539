"""Logging: one safe line a record, for the terminal, the file and the UI.

A writer thread does all writing, so a thread that logs never waits for a disk or a stopped
terminal. Text from outside can't forge lines or move the cursor, secrets are masked, and a line
that repeats a thousand times is written thirty times and then counted.
Not for: deciding what is logged (each part does), status topics, counters.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TextIO

from appliance.engine_api import LogLine
from appliance.log.event_log import EVENT_KEY, FAILED, EventLog, event, open_event_log
from appliance.log.lines import Form, Line, RepeatFilter
from appliance.log.sanitize import SecretMasker, escape
from appliance.secret import Secret

_QUEUED_LINES = 10_000
_RING_LINES = 2_000
_LONGEST_TEXT = 4_000
"""Characters of a record's text; longer text is cut, because a payload may be a megabyte."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_TALKATIVE = (
    *("amqtt", "transitions", "websockets", "asyncio", "urllib3"),
    # These write what signs in: tokens of NTLM, parameters of SQL, answers of OAuth.
    *("spnego", "requests_ntlm", "requests_oauthlib", "oauthlib", "aiosqlite", "sqlalchemy"),
    *("aiohttp", "apprise"),
)
"""Loggers of libraries. Their lines below a warning do not help an operator."""


class Log:
    """The running log: ``lines`` for the UI, ``close`` at the end. Made by ``start``."""

    def __init__(
        self,
        stream: TextIO | None,
        file: logging.Handler | None,
        form: Form = "text",
        events: EventLog | None = None,
    ) -> None:
        self._form = form
        self._events = events
        self._stream = stream
        self._file = file
        self._masks = SecretMasker()
        self._lock = threading.Lock()
        self._ring: deque[LogLine] = deque(maxlen=_RING_LINES)
        self._number = 0
        self._lost = 0
        self._repeats = RepeatFilter()
        self._queue: queue.Queue[str | None] = queue.Queue(_QUEUED_LINES)
        self._handler = _Handler(self)
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._old_hook = threading.excepthook
        self._closed = False

    @property
    def lost(self) -> int:
        """Lines that were not written because the terminal or the disk was too slow.

        Events that the Windows event log did not take are counted too.
        """
        return self._lost + (self._events.lost if self._events is not None else 0)

    def lines(self, after_number: int, limit: int) -> Sequence[LogLine]:
        """The newest lines with a larger number, at most ``limit``, oldest first."""
        with self._lock:
            wanted = min(self._number - after_number, limit, len(self._ring))
            if wanted <= 0:
                return ()
            return tuple(self._ring[index] for index in range(-wanted, 0))

    def mask(self, *secrets: Secret) -> None:
        """Replace these secrets by ``***`` from now on."""
        self._masks.add(*secrets)

    def report_failure(self, error: BaseException) -> None:
        """Tell the Windows event log why the appliance does not start.

        The log itself does not get it, because the command line prints it.
        """
        if self._events is not None:
            text = self._masks.apply(escape(f"not started: {error}"))
            self._events.add(event(logging.ERROR, FAILED, "process.run", text))

    def set_level(self, level: str) -> None:
        """``"debug"``, ``"info"``, ``"warning"`` or ``"error"``, from the next record on."""
        number = _LEVELS[level]
        logging.getLogger().setLevel(number)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(max(number, logging.WARNING))

    def close(self) -> None:
        """Write the queued lines (for at most two seconds) and restore the loggers."""
        if self._closed:
            return
        self._closed = True
        logging.getLogger().removeHandler(self._handler)
        threading.excepthook = self._old_hook
        with self._lock:
            for line in self._repeats.finish():
                line.text = self._masks.apply(line.text)
                self._keep(line)
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=1)
        self._thread.join(2)
        if self._file is not None and not self._thread.is_alive():
            self._file.close()
        if self._events is not None:
            self._events.close()

    def _begin(self) -> None:
        root = logging.getLogger()
        root.addHandler(self._handler)
        threading.excepthook = _log_thread_error
        self._thread.start()

    def take(self, record: logging.LogRecord) -> None:
        """Take one record (called by logging, from any thread)."""
        text = self._text(record)
        with self._lock:
            reports, wanted = self._repeats.admit(record, text)
            for report in reports:
                report.text = self._masks.apply(report.text)
                self._keep(report)
            if wanted:
                source = record.name.removeprefix("appliance.")
                line = Line(int(record.created * 1e9), record.levelno, source, text, _trace(record))
                self._keep(line)
                if self._events is not None:
                    self._add_event(self._events, record, line)

    def _keep(self, line: Line) -> None:
        """Add to the ring and the queue. The lock is held, so both have the same order."""
        self._number += 1
        self._ring.append(LogLine(self._number, line.at_ns, line.level, line.source, line.text))
        self._offer(line)

    def _add_event(self, events: EventLog, record: logging.LogRecord, line: Line) -> None:
        number = getattr(record, EVENT_KEY, FAILED if record.levelno >= logging.ERROR else 0)
        if number:
            events.add(event(line.level, number, line.source, line.text, line.trace))

    def _offer(self, line: Line) -> None:
        line.trace = [self._masks.apply(escape(each)) for each in line.trace]
        try:
            self._queue.put_nowait(line.written(self._form))
        except queue.Full:
            self._lost += 1

    def _text(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  a wrong format string must not stop the thread that logs
            text = f"{record.msg} (its values don't fit)"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text = f"{text}: {type(error).__name__}: {error}"
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"
        return self._masks.apply(escape(text))

    def _write_all(self) -> None:
        told = 0
        while True:
            line = self._queue.get()
            if line is None:
                return
            if self._lost > told:
                # Not through logging: the queue may still be full.
                text = f"{self._lost - told} lines before this one were lost: too slow"
                lost = Line(time.time_ns(), logging.WARNING, "logs", text)
                line = f"{lost.written(self._form)}\n{line}"
                told = self._lost
            self._write(line)

    def _write(self, line: str) -> None:
        if self._stream is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # its reader has gone, or it is closed
                self._lost += 1
        if self._file is not None:
            self._file.emit(logging.LogRecord("", 0, "", 0, line, (), None))


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.take(record)


def _trace(record: logging.LogRecord) -> Sequence[str]:
    """The lines of a traceback. They are written indented, so that none looks like a record."""
    if not record.exc_info or record.exc_info[1] is None:
        return ()
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip().splitlines()


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread else "?"
    logging.getLogger("appliance").error(
        "the thread %s ended with an error",
        name,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def start(
    level: str = "info",
    *,
    stream: TextIO | None = None,
    file: str | None = None,
    secrets: Iterable[Secret] = (),
    form: Form = "text",
    events: EventLog | None = None,
) -> Log:
    """Begin logging: to the ring for the UI, and to ``stream`` and ``file`` unless ``None``.

    ``events`` gets start, stop and errors too.

    ``file`` grows to 10 MB and is then set aside, five old ones being kept; its folder is made.
    Raises ``NoPermissionError`` or ``UnavailableError`` when the file can't be written.
    """
    handler: logging.Handler | None = None
    if file is not None:
        # Only here: a service logs to stderr and starts sooner without it.
        from appliance.log.file import open_log_file  # noqa: PLC0415  see above

        handler = open_log_file(file)
    log = Log(stream, handler, form, events)
    log.mask(*secrets)
    log.set_level(level)
    log._begin()  # noqa: SLF001  the two are one module
    return log


def start_for(
    data_dir: str,
    level: str,
    *,
    owns_terminal: bool,
    secrets: Iterable[Secret] = (),
    form: Literal["text", "json"] = "text",
    event_log: bool = False,
) -> Log:
    """Log to stderr, or to ``<data_dir>/logs/appliance.log`` while the UI has the terminal.

    With ``event_log``, start, stop and errors go to the Windows event log too.
    """
    events = open_event_log() if event_log else None
    if owns_terminal:
        file = str(Path(data_dir) / "logs" / "appliance.log")
        log = start(level, file=file, secrets=secrets, form=form, events=events)
    else:
        log = _start_on_stderr(level, secrets, form, events)
    if event_log and events is None:
        logging.getLogger(__name__).warning(
            "[service] event_log has no effect: this system has no Windows event log"
        )
    return log


def _start_on_stderr(
    level: str,
    secrets: Iterable[Secret],
    form: Literal["text", "json"],
    events: EventLog | None,
) -> Log:
    if form == "json":
        # A log collector reads UTF-8; redirected output is in an old code page on Windows.
        with contextlib.suppress(AttributeError, ValueError):  # a replaced stream may lack it
            sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # see above
    to_journal = form == "text" and _goes_to_the_journal(sys.stderr)
    shown: Form = "journal" if to_journal else form
    return start(level, stream=sys.stderr, secrets=secrets, form=shown, events=events)


def _goes_to_the_journal(stream: TextIO) -> bool:
    """Whether systemd reads the stream: ``$JOURNAL_STREAM`` names it, systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is closed, or none of the system's
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
