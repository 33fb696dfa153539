"""What an operator can do from the terminal.

An action that can't be taken back asks first. The engine does it under its own rules and logs it
with the operator's name.
Not for: screens; they call these.
"""

from __future__ import annotations

import contextlib
import getpass
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from textual.screen import Screen, ScreenResultType

from appliance.engine_api import (
    PAUSED,
    Acknowledgement,
    BridgeState,
    ClientState,
    Engine,
    HoldState,
    TimerState,
    wait_name,
)
from appliance.model import APP, Execution, Message, Task
from appliance.problems import Problem, held_text
from appliance.ui.background import Background
from appliance.ui.hold_targets import Target
from appliance.ui.settings import Remembered, used
from appliance.ui.text import cut, printable

if TYPE_CHECKING:
    from appliance.ui.screens.publish_dialog import Draft

_DRAFTS = 20


class Explains(Protocol):
    """Who shows what a message would start."""

    def explain_draft(self, topic: str, payload: bytes, retain: bool) -> None:
        """Show what a message would start that is not published."""


class ActionHost(Protocol):
    """The parts of the app that the actions need."""

    engine: Engine
    remembered: Remembered
    clock_ns: Callable[[], int]
    background: Background

    @property
    def navigation(self) -> Explains:
        """Leads to other pages."""

    def say(self, text: str, *, bad: bool = False) -> None:
        """Show a short notice; foreign text in it is made safe."""

    def remember(self, **changes: Any) -> None:
        """Change remembered settings and write them."""

    def push_screen(
        self,
        screen: Screen[ScreenResultType],
        callback: Callable[[ScreenResultType | None], None],
    ) -> object:
        """Show a dialog; ``callback`` gets its result."""


def operator() -> str:
    """The person at the terminal, as the log names them."""
    name = "somebody"
    with contextlib.suppress(OSError, KeyError, ImportError):  # no such user, no pwd module
        name = getpass.getuser()
    return f"{name} at the terminal"


class OperatorActions:
    """The actions of one operator on one engine."""

    def __init__(self, host: ActionHost) -> None:
        self._host = host
        self.by = operator()
        """The operator, for the engine and its log."""
        self._drafts: deque[Draft] = deque(maxlen=_DRAFTS)
        """Published messages, the newest first; never on the disk, since payloads may be secret."""

    def _ask(self, question: str, yes: str, action: Callable[[], str]) -> None:
        """Ask; on yes, run ``action`` in a worker and say what it returned."""
        from appliance.ui.screens.dialogs import ConfirmDialog  # noqa: PLC0415 - see run_task

        def answered(sure: bool | None) -> None:
            if sure:
                self._do(action)

        self._host.push_screen(ConfirmDialog(question, yes), answered)

    def _do(self, action: Callable[[], str]) -> None:
        self._host.background.fetch(action, self._host.say, group="action")

    # --- tasks ---------------------------------------------------------------------------------

    def run_task(self) -> None:
        """Pick a task of the server and start it."""
        from appliance.ui.screens.task_picker import TaskPicker  # noqa: PLC0415 - imported late: the first page comes sooner

        def picked(task: Task | None) -> None:
            if task is not None:
                self._do(self._start(task.id, task.name))

        self._host.push_screen(TaskPicker(self._host.engine, self._host.background), picked)

    def start_task(self, task: Task) -> None:
        """Start a task that was chosen in a list."""
        question = f"Start {cut(printable(task.name), 60)} now?"
        self._ask(question, "Start it", self._start(task.id, task.name))

    def _start(self, task_id: str, name: str) -> Callable[[], str]:
        def action() -> str:
            number = self._host.engine.start_task(task_id, self.by)
            return f"Asked for {name}: execution {number}."

        return action

    def run_again(self, execution: Execution) -> None:
        """Start the task of an execution once more."""
        name = execution.task_name or execution.task_id
        start = self._start(execution.task_id, name)
        reload = execution.reload
        if reload or execution.task_id.startswith(APP):
            start = self._start_as(execution, name)
        text = f"Start {cut(printable(name), 60)} again?"
        if reload:
            text = f"{text[:-1]} ({cut(printable(reload.text), 60)})?"
        self._ask(text, "Start it", start)

    def _start_as(self, execution: Execution, name: str) -> Callable[[], str]:
        """A start with the same options; an app that has no task is named as an app."""
        task, reload = execution.task_id, execution.reload
        named = {"appId": task.removeprefix(APP)} if task.startswith(APP) else {"taskId": task}
        wanted = {**named, "partial": reload.partial, "variables": dict(reload.variables)}

        def action() -> str:
            payload = msgspec.json.encode(wanted).decode()
            numbers = self._host.engine.request_starts(payload, self.by)
            return f"Asked for {name}: execution {', '.join(map(str, numbers))}."

        return action

    def repeat(self, message: Message) -> None:
        """Do again what a message caused."""
        if message.seq not in self._host.engine.marks([message.seq]):
            self._host.say("This message started nothing, so there is nothing to repeat.")
            return

        def action() -> str:
            count = self._host.engine.repeat(message.seq, self.by)
            return f"Asked again for {count} start{'s' * (count != 1)}."

        topic = cut(printable(message.topic), 60)
        self._ask(f"Do again what message {message.seq} on {topic} caused?", "Repeat", action)

    def stop_run(self, execution: Execution) -> None:
        """Stop a running execution, or take back one that waits."""
        if execution.state.is_final:
            self._host.say(f"It is over: {execution.state.value}.")
            return

        def action() -> str:
            self._host.engine.stop_execution(execution.id, self.by)
            return "Asked for the end of the run."

        name = cut(printable(execution.task_name or execution.task_id), 60)
        self._ask(f"Stop {name}? What it has done so far is lost.", "Stop it", action)

    # --- holds ---------------------------------------------------------------------------------

    def hold(self, targets: Sequence[Target], holds: Sequence[HoldState]) -> None:
        """Ask what is to be held, until when and why, or released; ``holds``: what is held now."""
        from appliance.ui.screens.hold_dialog import HoldDialog, Wish  # noqa: PLC0415 - see run_task

        host = self._host

        def written(wish: Wish | None) -> None:
            if wish is None:
                return
            target = wish.target

            def hold() -> str:
                engine = host.engine
                held = engine.hold(
                    target.kind, target.name, wish.until_ns, wish.reason, wish.drop, self.by
                )
                return f"{held.shown} is held {held_text(held, host.clock_ns())}."

            def release() -> str:
                held = host.engine.release(target.kind, target.name, self.by)
                waited = held.waiting
                goes_on = (
                    f"{waited} start{'s' * (waited != 1)} that waited go{'es' * (waited == 1)} on"
                )
                return f"{held.shown} is released; {goes_on if waited else 'nothing waited'}."

            self._do(release if wish.is_release else hold)

        utc = host.remembered.utc
        host.push_screen(HoldDialog(targets, holds, host.clock_ns, utc=utc), written)

    # --- timers --------------------------------------------------------------------------------

    def pause_timer(self, timer: TimerState) -> None:
        """Pause a timer, or let it go on."""

        def action() -> str:
            self._host.engine.pause_timer(timer.name, not timer.paused, self.by)
            return f"{timer.name} {'goes on' if timer.paused else 'is paused'}."

        self._do(action)

    def fire_timer(self, timer: TimerState) -> None:
        """Do now what a timer would do later."""

        def action() -> str:
            self._host.engine.fire_timer(timer.name, self.by)
            return f"{timer.name} was fired."

        self._ask(
            f"Do now what {cut(printable(timer.name), 40)} does at its time?", "Fire it", action
        )

    def start_now(self, execution: Execution) -> None:
        """End the wait of a request: it is started now."""
        if execution.state.is_final or execution.execution_id:
            self._host.say(f"It does not wait: {execution.state.value}. r starts it again.")
            return

        def action() -> str:
            self._host.engine.fire_timer(wait_name(execution), self.by)
            return "Its wait was ended."

        self._do(action)

    def check_server(self) -> None:
        """Ask the Qlik server now whether it answers."""

        def action() -> str:
            self._host.engine.check_server(self.by)
            return "The Qlik server is asked whether it answers."

        self._do(action)

    def pause_wait(self, execution: Execution) -> None:
        """Pause the wait of a request, or let it go on."""
        if execution.state.is_final or execution.execution_id:
            self._host.say(f"It does not wait: {execution.state.value}.")
            return
        paused = execution.reason != PAUSED

        def action() -> str:
            self._host.engine.pause_timer(wait_name(execution), paused, self.by)
            return "Its start is paused." if paused else "Its start goes on."

        self._do(action)

    # --- broker --------------------------------------------------------------------------------

    def disconnect(self, client: ClientState) -> None:
        """Close a client's connection."""

        def action() -> str:
            self._host.engine.disconnect(client.client_id, self.by)
            return f"{client.client_id} was disconnected."

        name = cut(printable(client.client_id), 60)
        self._ask(f"Disconnect {name}? It may come back at once.", "Disconnect", action)

    def end_session(self, client: ClientState) -> None:
        """End a client's session, and its connection if there is one."""

        def action() -> str:
            dropped = self._host.engine.end_session(client.client_id, self.by)
            lost = f"; {dropped} waiting message{'s' * (dropped != 1)} dropped" if dropped else ""
            return f"The session of {client.client_id} was ended{lost}."

        name = cut(printable(client.client_id), 60)
        count = client.queued
        waiting = f" {count} message{'s wait' if count != 1 else ' waits'} in it." if count else ""
        self._ask(
            f"End the session of {name}?{waiting} Its subscriptions and waiting messages are lost.",
            "End it",
            action,
        )

    def connect_bridge(self, bridge: BridgeState) -> None:
        """Let a bridge connect now instead of at the end of its wait."""
        if bridge.connected:
            self._host.say(f"Bridge {bridge.name} is connected.")
            return

        def action() -> str:
            self._host.engine.connect_bridge(bridge.name, self.by)
            return f"Bridge {bridge.name} connects now."

        self._do(action)

    def clear_retained(self, topic: str) -> None:
        """Remove a topic's retained message."""

        def action() -> str:
            self._host.engine.clear_retained(topic, self.by)
            return f"The retained message on {topic} was removed."

        shown = cut(printable(topic), 100)
        self._ask(f"Remove the retained message on {shown}?", "Remove it", action)

    def acknowledge(self, losses: str) -> None:
        """Say that the losses are known, so that they are no problem any more."""

        def action() -> str:
            count = len(self._host.engine.acknowledge(self.by))
            return f"{count} loss{'es' * (count != 1)} acknowledged; the log has each."

        shown = cut(printable(losses), 300)
        self._ask(f"Acknowledge this? {shown}", "Acknowledge", action)

    def acknowledge_problem(self, problem: Problem) -> None:
        """Ask for a note, and say that the problem is known."""
        from appliance.ui.screens.acknowledge_dialog import AcknowledgeDialog  # noqa: PLC0415 - see run_task

        def written(note: str | None) -> None:
            if note is None:
                return

            def action() -> str:
                self._host.engine.acknowledge_problem(
                    problem.kind, problem.name, problem.occurrence, note, self.by
                )
                return f"Acknowledged until it happens again: {problem.headline}."

            self._do(action)

        self._host.push_screen(AcknowledgeDialog(problem.text), written)

    def unacknowledge_problem(self, known: Acknowledgement) -> None:
        """Let a problem be one again."""

        def action() -> str:
            self._host.engine.unacknowledge_problem(known.kind, known.name, self.by)
            return f"{known.title or known.name} is a problem again."

        self._do(action)

    def _try(self, draft: Draft) -> None:
        """Show what a message would start, before it is published."""
        self._host.navigation.explain_draft(draft.topic, draft.payload.encode(), draft.retain)

    def publish(self, topic: str = "", qos: int = 0) -> None:
        """Write a message and publish it; the dialog begins with ``topic`` and ``qos``."""
        from appliance.ui.screens.publish_dialog import PublishDialog  # noqa: PLC0415 - see run_task

        def written(draft: Draft | None) -> None:
            if draft is None:
                return
            host = self._host
            self._drafts.appendleft(draft)
            host.remember(publish_topics=used(host.remembered.publish_topics, draft.topic))

            def action() -> str:
                seq = host.engine.publish(
                    draft.topic, draft.payload.encode(), draft.qos, draft.retain, self.by
                )
                return f"Published as message {seq}."

            self._do(action)

        history = self._host.remembered.publish_topics
        dialog = PublishDialog(topic, history, tuple(self._drafts), self._try, qos=qos)
        self._host.push_screen(dialog, written)
