"""How many notices one ``[[notify]]`` sends: in an hour, and of one kind for one task.

What is left out is counted by its title, and one notice sums it up as soon as there is room again:
not before ``every`` has passed, or the sums would be as many as what they stand for.
Not for: sending (notice_target.py).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from appliance.tasks.notice import Notice

HOUR_S = 3600.0
_MOST_TASKS = 10_000
"""Tasks of which the time of the last notice is remembered; beyond it the oldest are forgotten."""
_MOST_TITLES = 20


class NoticeLimits:
    """What one ``[[notify]]`` has sent lately. For one thread."""

    def __init__(self, at_most: int, every_s: float | None, monotonic: Callable[[], float]) -> None:
        self._at_most = at_most
        self._every_s = every_s or 0.0
        self._monotonic = monotonic
        self._sent: deque[float] = deque()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When a notice of a kind was told of a task, oldest first."""
        self._left_out: Counter[str] = Counter()
        self._others = 0
        self._sum_up_s = 0.0

    def admits(self, notice: Notice, title: str) -> bool:
        """Whether it may be sent now; otherwise it is counted for the summary."""
        now_s = self._monotonic()
        while self._told and now_s - next(iter(self._told.values())) >= self._every_s:
            self._told.popitem(last=False)
        execution = notice.execution
        key = (notice.kind, execution.task_id or execution.task_name)
        is_repeated = key in self._told
        if is_repeated or not self.has_room():
            if is_repeated and not self._left_out:
                self._sum_up_s = now_s + self._every_s
            self._leave_out(title)
            return False
        if self._every_s:
            self._told[key] = now_s
            if len(self._told) > _MOST_TASKS:
                self._told.popitem(last=False)
        return True

    def has_room(self) -> bool:
        """Whether one more notice may be sent in this hour."""
        now_s = self._monotonic()
        while self._sent and now_s - self._sent[0] > HOUR_S:
            self._sent.popleft()
        return len(self._sent) < self._at_most

    def note_sent(self) -> None:
        """One was sent, or tried to be."""
        self._sent.append(self._monotonic())

    def summary(self) -> tuple[str, str] | None:
        """Title and text of the notice that sums up, if it is time for it; once."""
        if not self._left_out or self._monotonic() < self._sum_up_s or not self.has_room():
            return None
        total = self._left_out.total() + self._others
        lines = [f"{total} notices were left out: more than at_most or every allow."]
        lines += [f"{count} x {title}" for title, count in self._left_out.most_common()]
        if self._others:
            lines.append(f"{self._others} others")
        self._left_out.clear()
        self._others = 0
        self._sum_up_s = 0.0
        return "Notices left out", "\n".join(lines)

    def _leave_out(self, title: str) -> None:
        if title in self._left_out or len(self._left_out) < _MOST_TITLES:
            self._left_out[title] += 1
        else:
            self._others += 1
