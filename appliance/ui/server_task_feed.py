"""The server's tasks for the screens: asked for in a worker thread, kept until the next answer.

Not for: their order and what a filter hides (task_list.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from appliance.engine_api import Engine, ServerTask, ServerTasks, Snapshot
from appliance.errors import ApplianceError
from appliance.ui import formats, task_list
from appliance.ui.background import Background

_ASK_NS, _ASK_REMOTE_NS = 10 * formats.SECOND_NS, 30 * formats.SECOND_NS
"""How often the list is asked for; the answer to an attached terminal crosses the network."""


_PAUSE = 10
"""Times as long as an answer took no other is asked for: it takes a tenth of a slow line."""
_LONGEST_PAUSE_NS = 300 * formats.SECOND_NS


class FeedHost(Protocol):
    """The parts of the app that the feed needs."""

    engine: Engine
    background: Background

    def show_now(self) -> None:
        """Bring the page up to date before the next poll."""


class ServerTaskFeed:
    """For the UI's thread."""

    def __init__(self, host: FeedHost) -> None:
        self._host = host
        self._asked_ns: int | None = None
        self._is_asking = False
        self._took_s = 0.0
        """How long the last answer took."""
        self.answer: ServerTasks | None = None
        """``None``: there was none yet."""
        self.trouble = ""
        """Why the last question was not answered."""
        self.names: Mapping[str, str] = {}
        """Of the tasks, by their ids."""
        self.followers: Mapping[str, Sequence[str]] = {}
        """The ids of the tasks that start after each task."""
        self.version = 0
        """It changes with each answer."""

    @property
    def problem(self) -> str:
        """What is to be said of the list, if anything."""
        return self.trouble or (self.answer.problem if self.answer is not None else "")

    @property
    def any_task(self) -> Sequence[str]:
        """The rules that start whatever task a message names."""
        return () if self.answer is None else self.answer.any_task

    def tasks(self, snapshot: Snapshot) -> Sequence[ServerTask]:
        """The tasks with what their newest executions are now."""
        if self.answer is None:
            return ()
        return task_list.with_news(self.answer.tasks, snapshot.executions)

    def ask(self, now_ns: int) -> None:
        """Ask for the list, unless the last answer is young."""
        every = _ASK_NS
        if self._host.engine.is_remote:
            pause_ns = int(_PAUSE * self._took_s * formats.SECOND_NS)
            every = min(max(_ASK_REMOTE_NS, pause_ns), _LONGEST_PAUSE_NS)
        is_young = self._asked_ns is not None and self._asked_ns <= now_ns < self._asked_ns + every
        if self._is_asking or is_young:
            return
        self._is_asking, self._asked_ns = True, now_ns
        engine = self._host.engine

        def get() -> ServerTasks | str:
            began = time.monotonic()
            try:
                return engine.server_tasks()
            except ApplianceError as error:
                return str(error)
            except Exception:
                self._is_asking = False
                raise
            finally:
                self._took_s = time.monotonic() - began

        self._host.background.fetch(get, self._found, group="server tasks")

    def _found(self, answer: ServerTasks | str) -> None:
        self._is_asking = False
        self.version += 1
        if isinstance(answer, str):
            self.trouble = answer
        else:
            self.answer, self.trouble = answer, ""
            self.followers = task_list.followers(answer.tasks)
            self.names = {one.task.id: one.task.name for one in answer.tasks}
        self._host.show_now()
