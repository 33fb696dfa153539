"""The numbers of one topic over a time: read step by step, kept in stretches, brought up to date.

Not for: drawing (views/values.py), or which numbers a message has (the engine says it).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from appliance.engine_api import AskedValues, Engine, Values
from appliance.plot import Series

POINTS = 150
"""Stretches in the width of a plot."""
SPANS_S = (300, 900, 3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400)
"""The times that can be looked at, in seconds."""
FIRST_SPAN_S = 3600
_NEWEST = 1 << 62
"""Before a number that no message has yet: a step begins at the newest message."""
_TURN_S = 2.0
"""Seconds of reading back in one go; then what came meanwhile is read first."""
_MOST_FOUND = 200
_GAP = 4
"""Times as long as usual without a message that make a gap in the curve."""


class Summary(msgspec.Struct, frozen=True):
    """What is known of one path within the time."""

    path: str
    last: float | None
    """Of the newest message; ``None`` if it is not known."""
    messages: int = 0
    low: float | None = None
    mean: float | None = None
    high: float | None = None


class ValueReader:
    """Blocks in ``read``, which belongs in a worker thread; everything else answers at once."""

    def __init__(self, topic: str, paths: Sequence[str], span_s: int) -> None:
        """Read the numbers at some paths of a topic; without any, only what there is.

        Args:
            topic: one topic.
            paths: in the order of their signs.
            span_s: seconds back from now.
        """
        self.topic = topic
        self.paths = tuple(paths)
        self.span_ns = span_s * 10**9
        self.width_ns = self.span_ns // POINTS
        self.cancelled = threading.Event()
        self.before_seq = _NEWEST
        """From here on everything has been read; 0: there is nothing older to read."""
        self.reached_ns = 0
        self.messages = 0
        self.without_number = 0
        self.found: dict[str, float] = {}
        """The last number at each path."""
        self.seconds = 0.0
        """How long it took to bring it up to date the last time."""
        self._newest = 0
        self._lock = threading.Lock()
        self._sums: dict[str, dict[int, tuple[int, float, float, float]]] = {
            path: {} for path in self.paths
        }

    @property
    def is_complete(self) -> bool:
        """Whether all of the time has been read once."""
        return not self.before_seq

    def read(self, engine: Engine, now_ns: int, changed: Callable[[], object]) -> None:
        """Read what came since the last time, and back for some seconds.

        Args:
            engine: reads.
            now_ns: the time of the right edge.
            changed: called after each step.
        """
        since_ns = max(0, now_ns - self.span_ns)
        began = time.monotonic()
        if self._newest:
            self._read_newer(engine, since_ns)
            self.seconds = time.monotonic() - began
            changed()
        while self.before_seq and not self.cancelled.is_set():
            self._read_older(engine, since_ns)
            changed()
            if time.monotonic() > began + _TURN_S:
                break

    def _read_older(self, engine: Engine, since_ns: int) -> None:
        before = self.before_seq
        if before == _NEWEST:
            before = engine.snapshot().journal.last_seq + 1
            self._newest = before - 1
        step = engine.values(self._asked(since_ns, 0), before)
        with self._lock:
            self._add(step)
        self.before_seq = step.before_seq if self.paths or not self.found else 0
        self.reached_ns = step.reached_ns or self.reached_ns

    def _read_newer(self, engine: Engine, since_ns: int) -> None:
        """All of it, or it is read again the next time."""
        last = engine.snapshot().journal.last_seq
        before = last + 1 if last > self._newest else 0
        steps: list[Values] = []
        while before and not self.cancelled.is_set():
            step = engine.values(self._asked(since_ns, self._newest), before)
            steps.append(step)
            before = step.before_seq
        if before:
            return
        with self._lock:
            for step in reversed(steps):
                self._add(step, is_newer=True)
        self._newest = max(last, self._newest)

    def _asked(self, since_ns: int, after_seq: int) -> AskedValues:
        return AskedValues(self.topic, self.width_ns, since_ns, self.paths, after_seq)

    def _add(self, step: Values, *, is_newer: bool = False) -> None:
        self.messages += step.messages
        self.without_number += step.without_number
        for one in step.found:
            if one.path in self.found:
                if is_newer:
                    self.found[one.path] = one.value
            elif len(self.found) < _MOST_FOUND:
                self.found[one.path] = one.value
        for buckets in step.buckets:
            sums = self._sums.get(buckets.path)
            if sums is None:
                continue
            rows = zip(
                buckets.stretches, buckets.counts, buckets.sums, buckets.lows, buckets.highs,
                strict=True,
            )  # fmt: skip
            for stretch, count, total, low, high in rows:
                known = sums.get(stretch, (0, 0.0, low, high))
                sums[stretch] = (
                    known[0] + count,
                    known[1] + total,
                    min(known[2], low),
                    max(known[3], high),
                )

    def series(self, now_ns: int) -> list[Series]:
        """The curves of the chosen paths: means with the lowest and highest of each stretch.

        There is a gap where no message came for some times as long as usual.
        """
        first = (now_ns - self.span_ns) // self.width_ns
        with self._lock:
            self._forget(first)
            return [self._curve(path) for path in self.paths]

    def _forget(self, first: int) -> None:
        for sums in self._sums.values():
            for stretch in [one for one in sums if one < first]:
                del sums[stretch]

    def _curve(self, path: str) -> Series:
        rows = sorted(self._sums[path].items())
        often = _usual_step([stretch for stretch, _ in rows])
        points: list[tuple[int, float | None, float | None, float | None]] = []
        before: int | None = None
        for stretch, (count, total, low, high) in rows:
            at_ns = stretch * self.width_ns + self.width_ns // 2
            if before is not None and stretch - before > _GAP * often:
                points.append((at_ns - self.width_ns, None, None, None))
            points.append((at_ns, total / count, low, high))
            before = stretch
        times, means, lows, highs = zip(*points, strict=True) if points else ((), (), (), ())
        return Series(path, times, means, lows, highs)

    def summaries(self) -> list[Summary]:
        """A row for each path that is known, in the order of the payload."""
        with self._lock:
            known = dict.fromkeys((*self.found, *self.paths))
            return [
                self._summary(path) if path in self._sums else Summary(path, self.found[path])
                for path in known
            ]

    def _summary(self, path: str) -> Summary:
        rows = list(self._sums[path].values())
        last = self.found.get(path)
        if not rows:
            return Summary(path, last)
        count = sum(row[0] for row in rows)
        mean = sum(row[1] for row in rows) / count
        return Summary(
            path, last, count, min(row[2] for row in rows), mean, max(row[3] for row in rows)
        )


def _usual_step(stretches: Sequence[int]) -> int:
    """How many stretches lie between two with messages, mostly."""
    steps = sorted(after - before for before, after in itertools.pairwise(stretches))
    return steps[len(steps) // 2] if steps else 1
