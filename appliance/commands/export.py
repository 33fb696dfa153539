"""``appliance export``: messages of the journal as a recorder would have written them.

The journal may be in use: SQLite's readers and its writer do not wait for each other (WAL).
Not for: the file, and how an export that did not end goes on (export_file.py).
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from appliance.commands import export_file
from appliance.commands.export_file import Note, Target, TextTarget
from appliance.commands.export_parts import PartTarget
from appliance.commands.journal_range import JournalRange, journal_of, range_of
from appliance.commands.meter import Meter
from appliance.config.reading import load_tables
from appliance.config.tables import RecorderConfig
from appliance.config.values import TopicFilter, WritePath
from appliance.engine import databases
from appliance.errors import EXIT_OK, UnavailableError, UsageError
from appliance.journal.search import History, Piece
from appliance.log.sanitize import escape
from appliance.message_filter import Name
from appliance.model import ExecutionState, Message
from appliance.recorders.formats import is_of_parts, make_format
from appliance.tasks import started_by
from appliance.ui.filters import GROUPS

_STDOUT = "-"
_DEFAULTS: dict[str, Any] = {
    "topic": [],
    "client": [],
    "text": [],
    "since": None,
    "until": None,
    "after": 0,
    "state": [],
    "task": [],
    "limit": None,
    "format": "jsonl",
    "payload": False,
}
"""The options that decide what is in the file."""
_SHORT = {**GROUPS, "done": frozenset({ExecutionState.SUCCEEDED})}
"""Words of the UI's filters that are no state's own name."""


def execute(options: argparse.Namespace) -> int:
    """Write the messages; returns the exit code."""
    path = None if options.output == _STDOUT else Path(options.output)
    if path is not None and not path.name:
        raise UsageError(f"-o {options.output!r}: this is no file; name one")
    if path is not None and not options.resume and not is_of_parts(options.format):
        ending = path.suffix.lower().removeprefix(".")
        if ending in {"parquet", "qvd"}:
            raise UsageError(
                f"-o {path}: {options.format} would be in it; write --format {ending} too, or"
                " another ending"
            )
    note: Note | None = None
    with contextlib.ExitStack() as stack:
        if options.resume:
            if path is None:
                raise UsageError("--resume goes on with a file; name it with -o")
            asked = {name: getattr(options, name) for name in _DEFAULTS}
            if (note := export_file.read_note(path, asked, _DEFAULTS)) is not None:
                vars(options).update(note.asked)
        wanted = _wanted(options, note)
        states = _states(options.state)
        history = stack.enter_context(journal_of(options.config))
        among = _among(options, states) if states or options.task else None
        begun = note or Note(
            {name: getattr(options, name) for name in _DEFAULTS},
            wanted.asked.since_ns,
            wanted.asked.until_ns,
            wanted.after_seq,
        )
        config = RecorderConfig(
            topic=TopicFilter("#"),
            path=WritePath(""),
            format=options.format,
            metadata=not options.payload,
        )
        target: Target
        learn: Callable[[Sequence[Message]], None] | None = None
        if is_of_parts(options.format):
            if path is None:
                raise UsageError(f"--format {options.format} makes a file; name it with -o")
            target = parts = PartTarget(path, config, begun)
            if options.format == "parquet" and note is None:
                learn = parts.learn
        elif path is None:
            target = TextTarget(sys.stdout.buffer, make_format(config))
        else:
            file = export_file.resume(path, note) if note else export_file.begin(path, begun)
            target = TextTarget(stack.enter_context(file), make_format(config), begun, path)
        return _Export(
            history,
            wanted,
            target,
            options.output,
            among=among,
            limit=options.limit,
            learn=learn,
        ).run()


def _wanted(options: argparse.Namespace, note: Note | None) -> JournalRange:
    """What to export from here on. Raises ``UsageError``."""
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: write a number above zero")
    wanted = range_of(options)
    asked = msgspec.structs.replace(wanted.asked, texts=tuple(options.text))
    if note is None:
        return JournalRange(asked, wanted.after_seq)
    asked = msgspec.structs.replace(asked, since_ns=note.since_ns, until_ns=note.until_ns)
    return JournalRange(asked, note.seq)


def _states(words: Sequence[str]) -> frozenset[ExecutionState]:
    states: set[ExecutionState] = set()
    for word in words:
        try:
            states |= _SHORT.get(word) or {ExecutionState(word)}
        except ValueError:
            known = ", ".join([*_SHORT, *ExecutionState])
            raise UsageError(
                f"--state {word}: there is no such state; write one of {known}"
            ) from None
    return frozenset(states)


def _among(options: argparse.Namespace, states: frozenset[ExecutionState]) -> list[int]:
    """The messages that started what the options name."""
    config = load_tables(options.config)
    path = Path(config.service.data_dir) / databases.TASKS
    try:
        return started_by.messages(path, states, [Name(each) for each in options.task])
    except sqlite3.Error as error:
        raise UnavailableError(f"{path}: the task database can't be read: {error}") from None


class _Export:
    """One export, from its first message to the line that says how it ended."""

    def __init__(
        self,
        history: History,
        wanted: JournalRange,
        target: Target,
        name: str,
        *,
        among: Sequence[int] | None,
        limit: int | None,
        learn: Callable[[Sequence[Message]], None] | None = None,
    ) -> None:
        """``learn`` is given all messages before the first one is written."""
        self._history = history
        self._wanted = wanted
        self._among = among
        self._limit = limit
        self._learn = learn
        self._target = target
        self._name = name
        self._seen = wanted.after_seq
        """Number of the last message that was looked at."""
        self._meter = Meter(sys.stderr)

    def run(self) -> int:
        """Write everything; returns the exit code."""
        try:
            self._write()
            self._target.finish()
        except BaseException as error:
            self._meter.clear()
            self._target.leave()
            if isinstance(error, BrokenPipeError):
                raise
            go_on = (
                f"--resume -o {self._name}" if self._name != _STDOUT else f"--after {self._seen}"
            )
            sys.stderr.write(f"not complete: appliance export {escape(go_on)} goes on\n")
            if isinstance(error, OSError) and error.filename is None:
                text = f"{self._name}: it can't be written: {error.strerror}"
                raise UnavailableError(text) from error
            raise
        self._meter.clear()
        count = self._target.count
        plural = "s" * (count != 1)
        sys.stderr.write(f"{count} message{plural}, looked through to number {self._seen}\n")
        return EXIT_OK

    def _write(self) -> None:
        first, last = self._history.bounds()
        first = max(first, self._wanted.after_seq + 1)
        if self._learn is not None:
            self._learn_all(self._learn, first, last)
        began, begun_at = self._target.count, time.monotonic()
        for piece in self._pieces(last):
            messages: Sequence[Message] = piece.messages
            self._seen = piece.last_seq
            if self._limit is not None and len(messages) >= self._limit - self._target.count:
                messages = messages[: self._limit - self._target.count]
                self._seen = messages[-1].seq if messages else self._seen
            self._target.write(messages, self._seen)
            if self._target.count == self._limit:
                return
            if self._meter.is_due:
                count = self._target.count
                rate = (count - began) / max(0.001, time.monotonic() - begun_at)
                share = (piece.last_seq - first + 1) / max(1, last - first + 1)
                self._meter.show(f"{count:,} messages, {rate:,.0f} a second", share)
        self._seen = max(self._seen, last)

    def _learn_all(self, learn: Callable[[Sequence[Message]], None], first: int, last: int) -> None:
        left = sys.maxsize if self._limit is None else self._limit
        for piece in self._pieces(last):
            if left <= 0:
                return
            if messages := piece.messages[:left]:
                learn(messages)
            left -= len(messages)
            if self._meter.is_due:
                share = (piece.last_seq - first + 1) / max(1, last - first + 1)
                self._meter.show("looking for columns", share)

    def _pieces(self, last: int) -> Iterator[Piece]:
        """What passes, up to the message that is the last one now."""
        asked, after = self._wanted.asked, self._wanted.after_seq
        if self._among is None:
            return self._history.forward(asked, after, last)
        begin, end = bisect_right(self._among, after), bisect_right(self._among, last)
        return self._history.among(asked, self._among[begin:end])
