"""When the end of a failed run's script log is asked for: at once, then again while it is late.

The outcome of the run is published before. A log that can't be had must keep nothing else waiting,
so it has threads (log_fetcher.py) and waits of its own. Each try is noted: a restart asks at once,
and goes on with the tries that are left. Not for: asking the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.counters import Counter
from appliance.tasks.alarms import Alarms
from appliance.tasks.records import Record
from appliance.tasks.request_book import RequestBook, to_ns
from appliance.tasks.states import RequestState

MAX_WANTED = 1000
"""Logs that are wanted at a time."""


class ScriptLogs:
    """The runs whose log is wanted. Not thread-safe: the state store's lock guards it.

    ``waits_s`` are the seconds before each further try; ``give_up_s`` after the first one there is
    no further try.
    """

    def __init__(self, book: RequestBook, waits_s: Sequence[float], give_up_s: float) -> None:
        self.has_news = False
        """Whether something may be due earlier than before; the state store takes it away."""
        self._book = book
        self._waits_s = waits_s
        self._give_up_ns = to_ns(give_up_s)
        self._alarms = Alarms()
        self._wanted: dict[int, tuple[Record, int]] = {}
        """Each run, and since when its log is wanted."""

    def want(self, record: Record, now: int) -> None:
        """Ask for the log of a run that failed (``LOG_WANTED``) as soon as a thread is free."""
        if len(self._wanted) >= MAX_WANTED:
            self._book.move_unseen(record, RequestState.FETCHING_LOG)
            self._end(record, (), f"{MAX_WANTED} other script logs are wanted at present.")
            return
        self._wanted[record.id] = (record, now)
        self._set(record, now)

    def begin(self, now: int) -> Record | None:
        """Hand out a run whose log is to be asked for now, if there is one."""
        for number in self._alarms.take_due(now):
            record, _ = self._wanted[number]
            self._book.move_unseen(record, RequestState.FETCHING_LOG)
            return record
        return None

    def next_due(self) -> int | None:
        """When ``begin`` hands something out at the earliest; ``None``: nothing is wanted."""
        return self._alarms.next_due()

    def shift(self, step_ns: int) -> None:
        """The clock was set by this."""
        self._alarms.shift(step_ns)
        for number, (record, since_ns) in self._wanted.items():
            self._wanted[number] = (record, since_ns + step_ns)

    def fetched(self, record: Record, lines: Sequence[str], file: str = "") -> None:
        """The log's last lines came, or runs of this kind have no log: no lines.

        ``file`` is the name of the file that the whole log was kept in, if it was.
        """
        if self._is_under_way(record):
            self._end(record, lines, "", file)

    def failed(self, record: Record, problem: str, now: int, *, is_final: bool = False) -> None:
        """The log could not be had: it is asked for again, unless that was the last try."""
        if not self._is_under_way(record):
            return
        record.tries += 1
        since_ns = self._wanted[record.id][1] if record.id in self._wanted else now
        is_late = now - since_ns >= self._give_up_ns
        if is_final or is_late or record.tries > len(self._waits_s):
            self._end(record, (), problem)
            return
        self._book.move_unseen(record, RequestState.LOG_WANTED)
        self._book.change(record)
        self._set(record, now + to_ns(self._waits_s[record.tries - 1]))

    def given_back(self, record: Record, now: int) -> None:
        """The log was not asked for, because the appliance stops."""
        if self._is_under_way(record):
            self._book.move_unseen(record, RequestState.LOG_WANTED)
            self._set(record, now)

    def _is_under_way(self, record: Record) -> bool:
        return self._book.state_of(record) is RequestState.FETCHING_LOG

    def _set(self, record: Record, due_ns: int) -> None:
        self._alarms.set(record.id, due_ns)
        self.has_news = True

    def _end(self, record: Record, lines: Sequence[str], problem: str, file: str = "") -> None:
        """Tell the outcome once more: with the log's last lines, or why they are missing."""
        book = self._book
        self._wanted.pop(record.id, None)
        book.move_unseen(record, RequestState.FAILED)
        record.log_wanted = False
        book.change(record, log_tail=tuple(lines), log_problem=problem, log_file=file)
        if problem:
            book.count(Counter.SCRIPT_LOGS_MISSED)
        if lines or problem:
            book.told.append((record, record.execution))
