"""``[[notify]]``: tell people by mail, chat or webhook what became of tasks.

Sends through Apprise, an optional extra, in threads of their own: a mail server that hangs delays
nothing else. The thread of a target imports Apprise for its first notice (notify_urls.py). Apprise
itself keeps some seconds between two mails. A notice that can't be sent is tried three times and
then left, with a line in the log; notices are not kept over a restart (what is on topics is).

Not for: machines, which read topics (outcomes.py).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from appliance.config.tables import NoticeKind, NotifyConfig
from appliance.counters import Count, Counter
from appliance.errors import ConfigError
from appliance.log.sanitize import escape
from appliance.model import Execution, ExecutionState, sender
from appliance.secret import Secret
from appliance.tasks import notify_urls
from appliance.tasks.records import Record

_log = logging.getLogger(__name__)
MAX_WAITING = 500
TRIES = 3
RETRY_S = 5.0
HOUR_S = 3600.0
LOG_LINES = 10


class Notice(msgspec.Struct, frozen=True):
    """One thing that people are told."""

    kind: NoticeKind
    execution: Execution

    @property
    def title(self) -> str:
        name = escape(self.execution.task_name or self.execution.task_id or "A task")
        match self.kind:
            case "recovered":
                return f"{name} succeeds again"
            case "slow":
                return f"{name} takes longer than usual"
            case "lost":
                return f"{name}: outcome lost"
            case _:
                return f"{name} {self.execution.state.value}"

    @property
    def body(self) -> str:
        execution, cause = self.execution, self.execution.cause
        lines = [execution.reason] if execution.reason else []
        if self.kind == "slow" and execution.usual_s is not None:
            lines.append(f"It usually takes {execution.usual_s:.0f} s.")
        asked = f"Asked for by {cause.kind}"
        if cause.seq:
            client = escape(sender(cause.client_id)) or "an unknown client"
            asked += f" {cause.seq} on {escape(cause.topic)} from {client}"
        elif cause.kind == "http":
            asked = f"Asked for over HTTP by {escape(cause.rule)}"
        elif cause.rule:
            asked += f" {escape(cause.rule)}"
        lines += [asked, f"Task {execution.task_id}, execution {execution.id}"]
        lines += execution.log_tail[-LOG_LINES:]
        # The reason and the script log may have several lines.
        return "\n".join(escape(line) for text in lines for line in text.splitlines())


def notice_of(record: Record, execution: Execution) -> Notice | None:
    """The notice that a state change is worth, if any."""
    if execution.log_tail or execution.log_problem:
        return None  # Told already, when it failed.
    if execution.state is ExecutionState.LOST:
        return Notice("lost", execution)
    if execution.state.is_bad:
        return Notice("failed", execution)
    if execution.state is ExecutionState.SUCCEEDED and record.recovered:
        return Notice("recovered", execution)
    return None


class Target:
    """One ``[[notify]]``: its kinds and tasks, how much it may send, and the notices that wait."""

    def __init__(
        self,
        config: NotifyConfig,
        number: int,
        *,
        count: Count,
        monotonic: Callable[[], float],
        retry_s: float,
    ) -> None:
        self._where = notify_urls.name_of(number)
        url = notify_urls.url_of(config, self._where)
        self.name = f"{self._where} ({url.partition(':')[0]})"
        self.identity = (config, Secret(url))
        """What makes it the same target: its table, and the URL where that stands in a file."""
        self._is_retired = False
        self._sender: Any = None
        self._kinds = frozenset(config.on)
        self._patterns = tuple(pattern.casefold() for pattern in config.tasks)
        self._at_most = config.at_most
        self._count = count
        self._monotonic = monotonic
        self._retry_s = retry_s
        self._waiting: queue.Queue[Notice] = queue.Queue(MAX_WAITING)
        self._sent: deque[float] = deque()
        self._left_out = 0

    def connect(self) -> None:
        """Make the sender if there is none yet.

        Imports Apprise, so not for the engine's loop. Raises ``ConfigError`` if Apprise does not
        understand the URL.
        """
        if self._sender is None:
            _, url = self.identity
            self._sender = notify_urls.sender_of(url.reveal(), self._where)

    def offer(self, notice: Notice) -> None:
        """Take a notice if it concerns this target; never waits."""
        if self._concerns(notice):
            try:
                self._waiting.put_nowait(notice)
            except queue.Full:
                self._count(Counter.NOTICES_DROPPED)

    def _concerns(self, notice: Notice) -> bool:
        execution = notice.execution
        names = (execution.task_name.casefold(), execution.task_id)
        return notice.kind in self._kinds and (
            not self._patterns
            or any(fnmatchcase(name, pattern) for name in names for pattern in self._patterns)
        )

    def retire(self) -> None:
        """The configuration has the target no more: the notices that wait are dropped."""
        self._is_retired = True
        while not self._waiting.empty():
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
                self._count(Counter.NOTICES_DROPPED)

    def run(self, stopped: threading.Event) -> None:
        """A thread: send until the stop."""
        while not (stopped.is_set() or self._is_retired):
            try:
                notice = self._waiting.get(timeout=1.0)
            except queue.Empty:
                self._sum_up(stopped)
                continue
            self._tell(notice.title, notice.body, stopped)

    def _tell(self, title: str, body: str, stopped: threading.Event) -> None:
        if not self._has_room():
            self._left_out += 1
            self._count(Counter.NOTICES_LEFT_OUT)
            return
        try:
            self.connect()
        except ConfigError as error:
            self._count(Counter.NOTICES_FAILED)
            _log.error("%s This notice is not sent: %s", error, title)
            return
        for attempt in range(1, TRIES + 1):
            self._sent.append(self._monotonic())
            # As text: a service that takes HTML or Markdown gets it escaped.
            if self._sender.notify(title=title, body=body, body_format="text"):
                self._count(Counter.NOTICES_SENT)
                return
            if attempt < TRIES and stopped.wait(self._retry_s):
                break
        self._count(Counter.NOTICES_FAILED)
        _log.warning("%s could not be told: %s", self.name, title)

    def _has_room(self) -> bool:
        """Whether one more notice may be sent in this hour."""
        now_s = self._monotonic()
        while self._sent and now_s - self._sent[0] > HOUR_S:
            self._sent.popleft()
        return len(self._sent) < self._at_most

    def _sum_up(self, stopped: threading.Event) -> None:
        if self._left_out and self._has_room():
            left_out, self._left_out = self._left_out, 0
            text = f"{left_out} notices were left out: more than allowed in an hour."
            self._tell("Notices left out", text, stopped)


class Notices:
    """All targets. Each sends from a thread of its own, so one that hangs delays no other."""

    def __init__(
        self,
        configs: Sequence[NotifyConfig],
        count: Count,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
    ) -> None:
        """Prepare; raises ``ConfigError`` if Apprise is not installed or a URL has no scheme."""
        self._count = count
        self._monotonic = monotonic
        self._retry_s = retry_s
        self.targets = self.targets_for(configs)

    def targets_for(self, configs: Sequence[NotifyConfig]) -> tuple[Target, ...]:
        """The targets of these tables. Raises as making ``Notices`` does."""
        if not configs:
            return ()
        notify_urls.require_apprise()
        return tuple(
            Target(
                config,
                number,
                count=self._count,
                monotonic=self._monotonic,
                retry_s=self._retry_s,
            )
            for number, config in enumerate(configs, 1)
        )

    def targets_for_reload(self, configs: Sequence[NotifyConfig]) -> tuple[Target, ...]:
        """The targets of these tables, made for ``take``; the new ones have made their sender.

        Raises ``ConfigError`` as making ``Notices`` does, and if Apprise does not understand a URL.
        Not for the engine's loop.
        """
        targets = self.targets_for(configs)
        present = {one.identity for one in self.targets}
        for target in targets:
            if target.identity not in present:
                target.connect()
        return targets

    def take(self, targets: Sequence[Target]) -> list[Target]:
        """Replace the targets; a target that stays keeps its waiting notices and its count.

        Returns the new ones, whose threads are to be begun.
        """
        before, present = self.targets, {one.identity: one for one in self.targets}
        self.targets = tuple(present.pop(one.identity, one) for one in targets)
        for target in before:
            if target not in self.targets:
                target.retire()
        return [one for one in targets if one in self.targets]

    def offer(self, notice: Notice) -> None:
        """Take a notice; never waits."""
        for target in self.targets:
            target.offer(notice)
