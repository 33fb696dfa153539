"""What an operator may do from the terminal.

Each act asks first if it can't be taken back, is done by the engine under its own rules, and is
logged there with who asked.
Not for: screens; they call these.
"""

from __future__ import annotations

import contextlib
import getpass
from collections import deque
from typing import TYPE_CHECKING

from appliance.engine_api import ClientState, Mark, TimerState
from appliance.model import Execution, Message, Task
from appliance.ui.settings import used
from appliance.ui.text import cut, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.ui.app import ApplianceApp
    from appliance.ui.screens.publish import Draft


_DRAFTS = 20


def operator() -> str:
    """Who sits at the terminal, as the log names them."""
    name = "somebody"
    with contextlib.suppress(OSError, KeyError, ImportError):  # no such user, no pwd module
        name = getpass.getuser()
    return f"{name} at the terminal"


class Acts:
    """The acts of one operator on one engine."""

    def __init__(self, app: ApplianceApp) -> None:
        self._app = app
        self.by = operator()
        """Who acts, for the engine and its log."""
        self._drafts: deque[Draft] = deque(maxlen=_DRAFTS)
        """What was published, the newest first; never on the disk, since payloads may be secret."""

    def _ask(self, question: str, yes: str, act: Callable[[], str]) -> None:
        """Ask; on yes, run ``act`` in a worker and say what it returned."""
        from appliance.ui.screens.dialogs import Ask  # noqa: PLC0415 - not before it is shown

        def answered(sure: bool | None) -> None:
            if sure:
                self._do(act)

        self._app.push_screen(Ask(question, yes), answered)

    def _do(self, act: Callable[[], str]) -> None:
        def work() -> None:
            said = act()
            self._app.from_worker(self._app.say, said)

        self._app.in_worker(work, group="act")

    # --- tasks ---------------------------------------------------------------------------------

    def run_task(self) -> None:
        """Pick a task of the server and start it."""
        from appliance.ui.screens.picker import TaskPicker  # noqa: PLC0415 - not before it is needed: the first screen comes sooner

        def picked(task: Task | None) -> None:
            if task is not None:
                self._start(task.id, task.name)

        self._app.push_screen(TaskPicker(), picked)

    def _start(self, task_id: str, name: str) -> None:
        def act() -> str:
            number = self._app.engine.start_task(task_id, self.by)
            return f"Asked for {name}: execution {number}."

        self._do(act)

    def run_again(self, execution: Execution) -> None:
        """Start the task of an execution once more."""
        name = execution.task_name or execution.task_id

        def act() -> str:
            number = self._app.engine.start_task(execution.task_id, self.by)
            return f"Asked for {name}: execution {number}."

        self._ask(f"Start {cut(printable(name), 60)} again?", "Start it", act)

    def repeat(self, message: Message, mark: Mark | None) -> None:
        """Do again what a message caused."""
        if mark is None:
            self._app.say("This message started nothing, so there is nothing to repeat.")
            return

        def act() -> str:
            count = self._app.engine.repeat(message.seq, self.by)
            return f"Asked again for {count} start{'s' * (count != 1)}."

        topic = cut(printable(message.topic), 60)
        self._ask(f"Do again what message {message.seq} on {topic} caused?", "Repeat", act)

    def stop_run(self, execution: Execution) -> None:
        """Stop a running execution, or take back one that waits."""
        if execution.state.is_final:
            self._app.say(f"It is over: {execution.state.value}.")
            return

        def act() -> str:
            self._app.engine.stop_execution(execution.id, self.by)
            return "Asked for the end of the run."

        name = cut(printable(execution.task_name or execution.task_id), 60)
        self._ask(f"Stop {name}? What it has done so far is lost.", "Stop it", act)

    # --- timers --------------------------------------------------------------------------------

    def pause_timer(self, timer: TimerState) -> None:
        """Pause a timer, or let it go on."""

        def act() -> str:
            self._app.engine.pause_timer(timer.name, not timer.paused, self.by)
            return f"{timer.name} {'goes on' if timer.paused else 'is paused'}."

        self._do(act)

    def fire_timer(self, timer: TimerState) -> None:
        """Do now what a timer would do later."""

        def act() -> str:
            self._app.engine.fire_timer(timer.name, self.by)
            return f"{timer.name} was fired."

        self._ask(f"Do now what {cut(printable(timer.name), 40)} does at its time?", "Fire it", act)

    # --- broker --------------------------------------------------------------------------------

    def disconnect(self, client: ClientState) -> None:
        """Close a client's connection."""

        def act() -> str:
            self._app.engine.disconnect(client.client_id, self.by)
            return f"{client.client_id} was disconnected."

        name = cut(printable(client.client_id), 60)
        self._ask(f"Disconnect {name}? It may come back at once.", "Disconnect", act)

    def clear_retained(self, topic: str) -> None:
        """Remove a topic's retained message."""

        def act() -> str:
            self._app.engine.clear_retained(topic, self.by)
            return f"The retained message on {topic} was removed."

        shown = cut(printable(topic), 100)
        self._ask(f"Remove the retained message on {shown}?", "Remove it", act)

    def publish(self, topic: str = "") -> None:
        """Write a message and publish it."""
        from appliance.ui.screens.publish import PublishDialog  # noqa: PLC0415 - as in run_task

        def written(draft: Draft | None) -> None:
            if draft is None:
                return
            app = self._app
            self._drafts.appendleft(draft)
            app.remember(publish_topics=used(app.remembered.publish_topics, draft.topic))

            def act() -> str:
                seq = app.engine.publish(
                    draft.topic, draft.payload.encode(), draft.qos, draft.retain, self.by
                )
                return f"Published as message {seq}."

            self._do(act)

        history = self._app.remembered.publish_topics
        self._app.push_screen(PublishDialog(topic, history, tuple(self._drafts)), written)
