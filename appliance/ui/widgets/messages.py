"""A list of messages, each with its outcome.

Not for: where the messages come from: the live feed or the journal.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from msgspec.structs import replace

from appliance.engine_api import Engine, Mark
from appliance.model import Message
from appliance.ui import formats, symbols
from appliance.ui.lines import Line
from appliance.ui.settings import Remembered
from appliance.ui.views import message as view
from appliance.ui.widgets.rows import Rows


class MessageRows(Rows[Message]):
    """Messages with their outcomes."""

    def __init__(self, id: str | None = None, *, follow: bool = True) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(follow=follow, id=id)
        self.marks: dict[int, Mark] = {}
        self.sizes: dict[int, int] = {}
        self.names: dict[int, str] = {}
        """Names of the tasks of the executions in view, by execution."""
        self.show_age = False
        self.utc = False
        self.now_ns = 0

    def look_up(self, engine: Engine, remembered: Remembered, now_ns: int) -> None:
        """Ask for the outcomes of the messages in view, and for the full size of cut payloads."""
        seen = self.in_view
        marks = {
            seq: _timed(mark, engine, now_ns)
            for seq, mark in engine.marks([one.seq for one in seen]).items()
        }
        names = self._names_of(marks.values(), engine)
        sizes = {one.seq: size for one in seen if (size := engine.full_size(one.seq)) is not None}
        aging = remembered.show_age or self.show_age
        if (marks, sizes, names) != (self.marks, self.sizes, self.names) or (
            aging or remembered.utc != self.utc
        ):
            self.refresh()
        self.marks, self.sizes, self.names, self.now_ns = marks, sizes, names, now_ns
        self.utc, self.show_age = remembered.utc, remembered.show_age

    def _names_of(self, marks: Iterable[Mark], engine: Engine) -> dict[int, str]:
        names: dict[int, str] = {}
        for number in {mark.execution for mark in marks if mark.execution}:
            name = self.names.get(number)
            if not name:
                execution = engine.execution(number)
                name = "" if execution is None else execution.task_name
            names[number] = name
        return names

    def _task_of(self, item: Message) -> str:
        mark = self.marks.get(item.seq)
        return "" if mark is None else self.names.get(mark.execution, "")

    def key(self, item: Message) -> Hashable:
        return item.seq

    def version(self, item: Message) -> Hashable:
        seq = item.seq
        return (self.marks.get(seq), self.sizes.get(seq), self._task_of(item), self._when(item))

    def _when(self, item: Message) -> str:
        if self.show_age:
            return formats.age((self.now_ns - item.received_ns) / 1e9)
        return formats.time_with_ms(item.received_ns, utc=self.utc)

    def line(self, item: Message, cells: int) -> Line:
        mark = self.marks.get(item.seq)
        size = self.sizes.get(item.seq)
        return view.row(item, mark, self._when(item), size, cells, task=self._task_of(item))

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, show_age=self.show_age)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


def _timed(mark: Mark, engine: Engine, now_ns: int) -> Mark:
    """Label the mark of a running execution with its duration, if it has no label."""
    if mark.label or mark.state.is_final or not mark.execution:
        return mark
    execution = engine.execution(mark.execution)
    seconds = None if execution is None else symbols.seconds_running(execution, now_ns)
    label = symbols.word(mark.state) if seconds is None else formats.elapsed(seconds)
    return replace(mark, label=label)
