"""``[[notify]]``: tell people by mail, chat or webhook what became of tasks.

Sends through Apprise, an optional extra, in threads of their own: a mail server that hangs delays
nothing else. The thread of a target imports Apprise for its first notice (notify_urls.py). Apprise
itself keeps some seconds between two mails. A notice that can't be sent is tried three times and
then left, with a line in the log; notices are not kept over a restart (what is on topics is).

Not for: machines, which read topics (outcomes.py); one table's notices (notice_target.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from appliance.config.tables import NotifyConfig
from appliance.counters import Count
from appliance.tasks import notify_urls
from appliance.tasks.catalog import TaskList
from appliance.tasks.notice import LogKnown, Notice
from appliance.tasks.notice_target import Surroundings, Target
from appliance.tasks.task_facts import TaskFacts

RETRY_S = 5.0


def _no_log(_: str) -> Path | None:
    return None


class Notices:
    """All targets. Each sends from a thread of its own, so one that hangs delays no other."""

    def __init__(
        self,
        configs: Sequence[NotifyConfig],
        count: Count,
        *,
        appliance: str = "appliance",
        facts: TaskFacts | None = None,
        log_path: Callable[[str], Path | None] = _no_log,
        monotonic: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
    ) -> None:
        """Prepare; raises ``ConfigError`` if Apprise is not installed or a URL has no scheme.

        Args:
            configs: the tables.
            count: counts.
            appliance: ``service.name``.
            facts: asks for what only the Qlik server knows; by default nothing is asked.
            log_path: the file of a script log that was kept, by its name.
            monotonic: seconds that only grow.
            retry_s: seconds between two tries.
        """
        facts = facts or TaskFacts(TaskList(None), None)
        self._shared = Surroundings(appliance, count, facts, log_path, monotonic, retry_s)
        self.targets = self.targets_for(configs)

    def targets_for(self, configs: Sequence[NotifyConfig]) -> tuple[Target, ...]:
        """The targets of these tables. Raises as making ``Notices`` does."""
        if not configs:
            return ()
        notify_urls.require_apprise()
        return tuple(
            Target(config, number, self._shared) for number, config in enumerate(configs, 1)
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

    def offer(self, news: Notice | LogKnown) -> None:
        """Take what is to be told; never waits.

        That a run was aborted is told as a failure, unless a table lists it for this task.
        """
        targets = self.targets
        if isinstance(news, Notice) and news.kind == "aborted":
            is_listed = any(target.lists(news) for target in targets)
            news = news if is_listed else msgspec.structs.replace(news, kind="failed")
        for target in targets:
            target.offer(news)
