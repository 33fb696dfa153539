"""One ``[[notify]]`` at work: its notices wait here and are sent from a thread of its own.

A notice of a failure waits for the script log, if that is asked for and the table wants it:
``LOG_WAIT_S`` at most, because people should hear of a failure soon. What only the Qlik server
knows (tags, owners) is asked by this thread, so neither that server nor a mail server that hangs
delays anything but its notices.
Not for: which notices there are (notice.py), their words (notice_texts.py).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from appliance.config.tables import NotifyConfig
from appliance.counters import Count, Counter
from appliance.errors import ConfigError
from appliance.model import Execution, Task, TaskKind
from appliance.secret import Secret
from appliance.tasks import notify_urls
from appliance.tasks.notice import LogKnown, Notice
from appliance.tasks.notice_limits import NoticeLimits
from appliance.tasks.notice_texts import NoticeTexts
from appliance.tasks.receivers import Receivers
from appliance.tasks.task_facts import TaskFacts

_log = logging.getLogger(__name__)
MAX_WAITING = 500
TRIES = 3
LOG_WAIT_S = 30.0
"""The first tries to have the log come within this (jobs.py, ``log_waits_s``)."""
_TICK_S = 1.0
_LAST_S = 3.0
"""How long the stop may take for notices that wait for a script log."""


class Surroundings(msgspec.Struct, frozen=True):
    """What all targets share."""

    appliance: str
    """``service.name``."""
    count: Count
    facts: TaskFacts
    log_path: Callable[[str], Path | None]
    """The file of a script log, by the name that its execution has for it."""
    monotonic: Callable[[], float]
    retry_s: float


class Target:
    """One ``[[notify]]``: its kinds and tasks, how much it may send, and the notices that wait."""

    def __init__(self, config: NotifyConfig, number: int, shared: Surroundings) -> None:
        """Raises ``ConfigError`` if the table has no URL, or one that does not go with its keys."""
        self._where = notify_urls.name_of(number)
        url = notify_urls.url_of(config, self._where)
        self.name = f"{self._where} ({url.partition(':')[0]})"
        self.identity = (config, Secret(url))
        """What makes it the same target: its table, and the URL where that stands in a file."""
        self.attaches_logs = config.log == "attach"
        self._shared = shared
        self._is_retired = False
        self._sender: Any = None
        self._kinds = frozenset(config.on)
        self._patterns = tuple(pattern.casefold() for pattern in config.tasks)
        self._tags = frozenset(config.tags)
        self._properties = frozenset((one.property, one.value) for one in config.properties)
        self._to_url = config.to_url
        self._wants_log = config.log != "none"
        self._texts = NoticeTexts(config, shared.appliance)
        self._receivers = Receivers(config, shared.facts, shared.count, self._where)
        self._limits = NoticeLimits(config.at_most, config.every, shared.monotonic)
        self._waiting: queue.Queue[Notice | LogKnown] = queue.Queue(MAX_WAITING)
        self._held: dict[int, tuple[Notice, float]] = {}
        """Notices that wait for a script log, by the number of the execution; and until when."""

    def connect(self) -> None:
        """Make the sender if there is none yet.

        Imports Apprise, so not for the engine's loop. Raises ``ConfigError`` if Apprise does not
        understand the URL.
        """
        if self._sender is None:
            _, url = self.identity
            self._sender = notify_urls.sender_of(url.reveal(), self._where)

    def lists(self, notice: Notice) -> bool:
        """Whether it has the notice's kind, and as far as is known the task; never waits."""
        return notice.kind in self._kinds and self._may_concern(
            notice.execution, self._shared.facts.known(notice.execution.task_id)
        )

    def offer(self, news: Notice | LogKnown) -> None:
        """Take what concerns this target; never waits."""
        if isinstance(news, LogKnown):
            if self._wants_log and "failed" in self._kinds:
                # Without it the notice goes a little later, and says so.
                with contextlib.suppress(queue.Full):
                    self._waiting.put_nowait(news)
            return
        kind = news.kind_for(self._kinds)
        if kind is None or not self._fits_name(news.execution):
            return
        try:
            self._waiting.put_nowait(msgspec.structs.replace(news, kind=kind))
        except queue.Full:
            self._shared.count(Counter.NOTICES_DROPPED)

    def _fits_name(self, execution: Execution) -> bool:
        names = (execution.task_name.casefold(), execution.task_id)
        return not self._patterns or any(
            fnmatchcase(name, pattern) for name in names for pattern in self._patterns
        )

    def _may_concern(self, execution: Execution, task: Task | None) -> bool:
        """Whether the table is meant for a task. One that the server does not list has no tags."""
        if not self._fits_name(execution):
            return False
        if not self._tags and not self._properties:
            return True
        return task is not None and not (
            self._tags.isdisjoint(task.tags) and self._properties.isdisjoint(task.properties)
        )

    def retire(self) -> None:
        """The configuration has the target no more: the notices that wait are dropped."""
        self._is_retired = True
        while not self._waiting.empty():
            with contextlib.suppress(queue.Empty):
                if isinstance(self._waiting.get_nowait(), Notice):
                    self._shared.count(Counter.NOTICES_DROPPED)

    def run(self, stopped: threading.Event) -> None:
        """A thread: send until the stop. What waits for a script log then is sent without it."""
        while not (stopped.is_set() or self._is_retired):
            try:
                news = self._waiting.get(timeout=_TICK_S)
            except queue.Empty:
                self._tell_held(stopped)
                self._sum_up(stopped)
            else:
                self._take(news, stopped)
                self._tell_held(stopped)
        until_s = time.monotonic() + _LAST_S
        for notice, _ in self._held.values():
            if self._is_retired or time.monotonic() > until_s:
                self._shared.count(Counter.NOTICES_DROPPED)
            else:
                self._tell(notice, stopped)
        self._held.clear()

    def _take(self, news: Notice | LogKnown, stopped: threading.Event) -> None:
        execution = news.execution
        if isinstance(news, LogKnown):
            if held := self._held.pop(execution.id, None):
                self._tell(msgspec.structs.replace(held[0], execution=execution), stopped)
        elif self._is_log_worth_waiting(news):
            self._held[execution.id] = (news, self._shared.monotonic() + LOG_WAIT_S)
        else:
            self._tell(news, stopped)

    def _is_log_worth_waiting(self, notice: Notice) -> bool:
        if not (self._wants_log and notice.awaits_log) or len(self._held) >= MAX_WAITING:
            return False
        task = self._shared.facts.known(notice.execution.task_id)
        return task is None or task.kind is TaskKind.RELOAD

    def _tell_held(self, stopped: threading.Event) -> None:
        now_s = self._shared.monotonic()
        for number in [one for one, (_, until_s) in self._held.items() if until_s <= now_s]:
            notice, _ = self._held.pop(number)
            self._tell(notice, stopped)

    def _tell(self, notice: Notice, stopped: threading.Event) -> None:
        execution, facts = notice.execution, self._shared.facts
        asks = self._tags or self._properties or self._receivers or self._texts.need_app
        task = (facts.details if asks else facts.known)(execution.task_id)
        if not self._may_concern(execution, task):
            return
        title = self._texts.title(notice, task)
        if not self._limits.admits(notice, title):
            self._shared.count(Counter.NOTICES_LEFT_OUT)
            return
        if not self._is_connected(title):
            return
        path = self._shared.log_path(execution.log_file) if self.attaches_logs else None
        if path is not None and not notify_urls.takes_attachments(self._sender):
            path = None
        plain = self._texts.text(notice, task)
        text = plain if path is None else self._texts.text(notice, task, is_log_attached=True)
        self._limits.note_sent()
        for sender in self._senders(task):
            self._send(sender, title, text, stopped, path=path, plain=plain)

    def _senders(self, task: Task | None) -> Iterator[Any]:
        """One for the receivers of the URL, and one for each further receiver."""
        own = notify_urls.own_receivers(self._sender) if self._to_url else frozenset[str]()
        if self._to_url:
            yield self._sender
        for address in self._receivers.of(task) if self._receivers else ():
            if address.casefold() not in own:
                yield notify_urls.sender_to(self.identity[1].reveal(), address)

    def _is_connected(self, title: str) -> bool:
        try:
            self.connect()
        except ConfigError as error:
            self._shared.count(Counter.NOTICES_FAILED)
            _log.error("%s This notice is not sent: %s", error, title)
            return False
        return True

    def _send(
        self,
        sender: Any,
        title: str,
        text: str,
        stopped: threading.Event,
        *,
        path: Path | None = None,
        plain: str = "",
    ) -> None:
        """Send, with a few tries; the last one goes without the attached log (``plain``)."""
        attached = None if path is None else notify_urls.attachment_of(path)
        for attempt in range(1, TRIES + 1):
            if attached is None or attempt == TRIES:
                text, attached = plain or text, None
            # As text: a service that takes HTML or Markdown gets it escaped.
            if sender.notify(title=title, body=text, body_format="text", attach=attached):
                self._shared.count(Counter.NOTICES_SENT)
                return
            if attempt < TRIES and stopped.wait(self._shared.retry_s):
                break
        self._shared.count(Counter.NOTICES_FAILED)
        _log.warning("%s could not be told: %s", self.name, title)

    def _sum_up(self, stopped: threading.Event) -> None:
        if (summary := self._limits.summary()) is None or not self._is_connected(summary[0]):
            return
        if not self._to_url:
            # Each receiver is told of some tasks only, so none is told of all.
            _log.warning("%s: %s", self.name, "; ".join(summary[1].splitlines()))
        else:
            self._limits.note_sent()
            self._send(self._sender, *summary, stopped)


def attach_logs(targets: Sequence[Target]) -> bool:
    """Whether one of them attaches script logs."""
    return any(target.attaches_logs for target in targets)
