"""The messages that the Live screen holds: polled, bounded, filtered, paused.

A poll asks the engine for the messages since the last poll; the engine pushes nothing. Memory is
bounded by ``capacity``. ``missed`` counts messages that came and went between two polls; they are
in the journal. Not for: drawing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from appliance.engine_api import Engine
from appliance.matching import is_own_news
from appliance.model import Execution, Message
from appliance.ui import filters
from appliance.ui.frame_rate import FRAME_S

CAPACITY = 10_000
_PER_SECOND = 20_000
"""Up to this many messages a second, every message passes through the filter."""

_UNFILTERED = 500
"""Messages taken per poll without a filter while polls are far apart: more would only scroll by."""

_MARK_POLLS = 5
"""A filter on outcomes looks at all held messages again, at every fifth poll."""


def with_outcome(
    engine: Engine, wanted: filters.Filter, messages: Sequence[Message]
) -> list[Message]:
    """The messages that led to something that passes task: and state:."""
    marks = engine.marks([message.seq for message in messages])
    executions: dict[int, Execution | None] = {0: None}
    for mark in marks.values():
        if mark.execution not in executions:
            executions[mark.execution] = engine.execution(mark.execution)
    return [
        message
        for message in messages
        if (found := marks.get(message.seq)) is not None
        and wanted.takes_mark(found, executions[found.execution])
    ]


class LiveFeed:
    """Holds the newest ``capacity`` messages and the view that the filter leaves."""

    def __init__(self, capacity: int = CAPACITY, *, show_own: bool = True) -> None:
        """``show_own``: whether the unfiltered view has the appliance's own messages."""
        self._show_own = show_own
        self._service = self._own = ""
        self._capacity = capacity
        self._kept: deque[Message] = deque(maxlen=capacity)
        self._passed: deque[Message] = deque(maxlen=capacity)
        self._frozen: list[Message] | None = None
        self._use(filters.EMPTY)
        self._last_seq = 0
        self._first_poll = True
        self._polls = 0
        self.frame_s = FRAME_S
        """Seconds between two polls at present."""
        self.missed = 0
        """Messages that came and went between two polls."""
        self.waiting = 0
        """Messages that passed the filter since the view was paused."""

    @property
    def paused(self) -> bool:
        return self._frozen is not None

    @property
    def view(self) -> Sequence[Message]:
        """What to show, oldest first; it stands still while paused."""
        if self._frozen is not None:
            return self._frozen
        return self._kept if self._shows_all else self._passed

    @property
    def _shows_all(self) -> bool:
        return self._filter.is_empty and not self._hides_own

    def _takes(self, message: Message) -> bool:
        """Whether a message is in view, outcomes aside."""
        if self._hides_own and is_own_news(message, self._own):
            return False
        return self._filter.is_empty or self._filter.takes(message)

    def _use(self, wanted: filters.Filter) -> None:
        self._filter = wanted
        self._hides_own = not (self._show_own or wanted.names_own(self._service))

    def show_own(self, shown: bool, engine: Engine) -> None:
        """Show the appliance's own messages in the list, or leave them out."""
        self._show_own = shown
        self.set_filter(self._filter, engine)

    @property
    def kept(self) -> int:
        """How many messages are held, filter or not."""
        return len(self._kept)

    @property
    def newest(self) -> Sequence[Message]:
        """All messages that are held, oldest first, without the filter."""
        return self._kept

    def by_seq(self, seqs: Iterable[int]) -> dict[int, Message]:
        """The held messages among these."""
        kept = self._kept
        found: dict[int, Message] = {}
        for seq in seqs:
            index = bisect_left(kept, seq, key=lambda message: message.seq)
            if index < len(kept) and kept[index].seq == seq:
                found[seq] = kept[index]
        return found

    @property
    def _limit(self) -> int:
        wanted = int(_PER_SECOND * self.frame_s)
        if self._filter.is_empty and self.frame_s > 2 * FRAME_S:
            wanted = _UNFILTERED
        return min(wanted, self._capacity)

    def poll(self, engine: Engine) -> bool:
        """Take the new messages from the engine; returns whether ``view`` changed."""
        if not self._own:
            self._service = engine.snapshot().name
            self._own = f"{self._service}/"
            self._use(self._filter)
        limit = self._capacity if self._first_poll else self._limit
        new = engine.live(self._last_seq, limit)
        self._polls += 1
        if not new:
            return self._recheck_outcomes(engine)
        if not self._first_poll:
            self.missed += max(0, new[-1].seq - self._last_seq - len(new))
        self._first_poll = False
        self._last_seq = new[-1].seq
        self._kept.extend(new)
        if self._shows_all:
            passed: Sequence[Message] = new
        elif self._filter.needs_marks:
            return self._recheck_outcomes(engine)
        else:
            passed = [message for message in new if self._takes(message)]
            self._passed.extend(passed)
        if self.paused:
            self.waiting += len(passed)
            return False
        return bool(passed)

    def _recheck_outcomes(self, engine: Engine) -> bool:
        if not self._filter.needs_marks or self._polls % _MARK_POLLS:
            return False
        return self._refilter(engine)

    def _refilter(self, engine: Engine) -> bool:
        """Run the whole filter over everything that is kept."""
        before = self._passed[-1].seq if self._passed else 0
        count = len(self._passed)
        passed = [message for message in self._kept if self._takes(message)]
        if self._filter.needs_marks:
            passed = with_outcome(engine, self._filter, passed)
        self._passed = deque(passed, maxlen=self._capacity)
        if self.paused:
            self.waiting = sum(1 for message in passed if message.seq > self._frozen_seq)
            return False
        return len(passed) != count or (bool(passed) and passed[-1].seq != before)

    @property
    def _frozen_seq(self) -> int:
        return self._frozen[-1].seq if self._frozen else 0

    def set_filter(self, wanted: filters.Filter, engine: Engine) -> None:
        """Filter the held messages anew; a paused view stays paused, with its new content."""
        was_paused = self.paused
        self._frozen = None
        self._use(wanted)
        self._passed.clear()
        if not self._shows_all:
            self._refilter(engine)
        if was_paused:
            self.pause()

    def pause(self) -> None:
        """Freeze the view; further messages are counted in ``waiting``."""
        if self._frozen is None:
            self._frozen = list(self.view)
            self.waiting = 0

    def follow(self) -> None:
        """Show the newest again."""
        self._frozen = None
        self.waiting = 0
