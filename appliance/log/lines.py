"""A log line, and the filter that counts repeated lines instead of writing them.

Not for: writing lines (log/logs.py).
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

_REPEATS = 30
_REPEAT_WINDOW_S = 10.0
_REPEAT_KEYS = 512
_LONGEST_EXAMPLE = 200
"""Characters of the example line in a report about left-out lines."""

Form = Literal["text", "json", "journal"]
"""The form of written lines; ``"journal"`` is for systemd's journal."""

_SEVERITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""syslog's, RFC 5424 section 6.2.1."""


class Line:
    """One log line. Its text is already escaped and masked."""

    __slots__ = ("at_ns", "level", "source", "text", "trace")

    def __init__(
        self, at_ns: int, level: int, source: str, text: str, trace: Sequence[str] = ()
    ) -> None:
        self.at_ns = at_ns
        self.level = level
        self.source = source
        self.text = text
        self.trace = trace

    def shown(self) -> str:
        seconds, rest = divmod(self.at_ns, 1_000_000_000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        name = logging.getLevelName(self.level)
        return f"{stamp}.{rest // 1_000_000:03d}Z {name:<7} {self.source}: {self.text}"

    def written(self, form: Form) -> str:
        """The line for a file or stream, with its traceback."""
        if form == "json":
            return self._as_json()
        trace = [f"    {each}" for each in self.trace]
        if form == "text":
            return "\n".join([self.shown(), *trace])
        # systemd knows the time, and the severity by this prefix, sd-daemon(3).
        prefix = f"<{_SEVERITIES.get(self.level, 6)}>"
        return "\n".join(prefix + each for each in (f"{self.source}: {self.text}", *trace))

    def _as_json(self) -> str:
        seconds, rest = divmod(self.at_ns, 1_000_000_000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        body = {
            "time": f"{stamp}.{rest // 1_000_000:03d}Z",
            "level": logging.getLevelName(self.level).lower(),
            "source": self.source,
            "message": self.text,
        }
        if self.trace:
            body["trace"] = "\n".join(self.trace)
        return json.dumps(body, ensure_ascii=False)


class RepeatFilter:
    """Limits lines of one kind: the same logger and the same text before formatting.

    Thirty lines in ten seconds pass. The others are counted and reported when the ten seconds
    are over.
    """

    def __init__(self, steady_s: Callable[[], float] = time.monotonic) -> None:
        """``steady_s`` is a time in seconds that is never set."""
        self._steady_s = steady_s
        self._kinds: OrderedDict[tuple[str, int, str], list[float]] = OrderedDict()
        self._over: dict[tuple[str, int, str], _Suppressed] = {}
        self._next_look = 0.0

    def admit(self, record: logging.LogRecord, text: str) -> tuple[list[Line], bool]:
        """Reports that are due, and whether the record itself is written.

        ``text`` is the formatted and escaped text of the record, for the example in the report.
        """
        key = (record.name, record.levelno, str(record.msg)[:200])
        now = self._steady_s()
        reports = list(self._due()) if self._over and now >= self._next_look else []
        entry = self._kinds.get(key)
        if entry is None or now - entry[0] >= _REPEAT_WINDOW_S:
            self._kinds[key] = [now, 1]
            self._kinds.move_to_end(key)
            if len(self._kinds) > _REPEAT_KEYS:
                self._kinds.popitem(last=False)
            return reports, True
        entry[1] += 1
        if entry[1] <= _REPEATS:
            return reports, True
        if not self._over:
            self._next_look = now + _REPEAT_WINDOW_S
        if key in self._over or len(self._over) < _REPEAT_KEYS:
            self._over.setdefault(key, _Suppressed(text)).count += 1
        return reports, False

    def finish(self) -> list[Line]:
        """The reports that are still due at the end."""
        return list(self._due())

    def _due(self) -> Iterator[Line]:
        now_ns = time.time_ns()
        for (name, level, _), left_out in self._over.items():
            yield Line(
                now_ns,
                level,
                name.removeprefix("appliance."),
                f'{left_out.count} further lines like "{left_out.example}" were left out',
            )
        self._over = {}


class _Suppressed:
    """The lines of one kind that were not written: their number, and the text of the first."""

    __slots__ = ("count", "example")

    def __init__(self, text: str) -> None:
        self.count = 0
        is_long = len(text) > _LONGEST_EXAMPLE
        self.example = f"{text[:_LONGEST_EXAMPLE]}..." if is_long else text
