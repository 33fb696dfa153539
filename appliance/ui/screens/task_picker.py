"""The dialog in which a task of the server is picked: part of its name, then Enter.

Not for: starting the task (operator_actions.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from appliance.engine_api import Engine
from appliance.errors import ApplianceError
from appliance.model import Task, TaskKind
from appliance.ui import formats, symbols
from appliance.ui.background import Background
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.screens.base import BaseScreen
from appliance.ui.text import printable
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

TABLE = Table(
    Column("", 1),
    Column("TASK", 20, 40, 90),
    Column("USUALLY", 8, right=True),
    Column("", 8),
    Column("KIND", 8, 20),
    Column("TAGS", 8, 20, None),
)
"""The list of tasks."""


class TaskRows(Rows[Task]):
    """Tasks by name."""

    can_focus = False  # the input line has the keys

    def key(self, item: Task) -> Hashable:
        return item.id

    def version(self, item: Task) -> Hashable:  # noqa: ARG002 - a task does not change here
        return 0

    def line(self, item: Task, cells: int) -> Line:
        usual = "" if item.last_duration_s is None else f"~{formats.took(item.last_duration_s)}"
        tags = " ".join(item.tags)
        return TABLE.row(
            cells,
            (
                ("" if item.enabled else symbols.AWAY, "dim"),
                (printable(item.name), "" if item.enabled else "dim"),
                (usual, "dim"),
                ("" if item.enabled else "disabled", "warn"),
                ("" if item.kind is TaskKind.RELOAD else item.kind.text, ""),
                (printable(tags), "dim"),
            ),
        )

    def heading(self, cells: int) -> Line | None:
        return TABLE.heading(cells - 1)


def _searched(task: Task) -> str:
    """What typed words are looked for in."""
    return f"{task.name} {task.id} {task.kind.text} {' '.join(task.tags)}".casefold()


class TaskPicker(ModalScreen[Task], BaseScreen[Task]):
    """Its result is the task, or ``None``."""

    BINDINGS: ClassVar = [
        ("escape", "leave"),
        ("down", "down"),
        ("up", "up"),
        ("pagedown", "page_down"),
        ("pageup", "page_up"),
    ]

    def __init__(self, engine: Engine, background: Background) -> None:
        super().__init__()
        self._engine = engine
        self._background = background
        self._tasks: Sequence[Task] = ()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog list-dialog"):
            yield Pane(id="picker-title")
            yield Input(
                placeholder="part of the name, tag, kind or id", id="picker-input", compact=True
            )
            yield TaskRows(id="picker-rows")

    def on_mount(self) -> None:
        self._title([("asking the server …", "dim")])
        self.set_focus(self.query_one(Input))

        def work() -> None:
            try:
                self._background.call(self._found, self._engine.tasks())
            except ApplianceError as error:
                self._background.call(self._title, [(f"✗ {error}", "bad")])

        self._background.run(work, group="tasks")

    def _title(self, right: Line) -> None:
        self.query_one("#picker-title", Pane).show([[("Start a task  ", "accent"), *right]])

    def _found(self, tasks: Sequence[Task]) -> None:
        self._tasks = sorted(tasks, key=lambda one: one.name.casefold())
        self._title(
            [(f"{formats.counted(len(tasks), 'task')}   ⏎ starts it at once   Esc leaves", "dim")]
        )
        self._narrow(self.query_one(Input).value)

    def _narrow(self, typed: str) -> None:
        words = typed.casefold().split()
        rows = self.query_one(TaskRows)
        rows.empty_text = "No task has that in its name, tags, kind or id."
        rows.set_items(
            [one for one in self._tasks if all(word in _searched(one) for word in words)]
        )

    def on_input_changed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def on_input_submitted(self) -> None:
        self._pick()

    def on_rows_opened(self) -> None:
        self._pick()

    def _pick(self) -> None:
        task = self.query_one(TaskRows).current
        if task is not None:
            self.dismiss(task)

    def action_down(self) -> None:
        self.query_one(TaskRows).action_down()

    def action_up(self) -> None:
        self.query_one(TaskRows).action_up()

    def action_page_down(self) -> None:
        self.query_one(TaskRows).action_page_down()

    def action_page_up(self) -> None:
        self.query_one(TaskRows).action_page_up()
