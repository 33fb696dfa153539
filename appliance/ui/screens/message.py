"""One message in full: facts, outcome, payload as pretty text, raw, hex or difference.

Not for: lists of messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace
from textual.containers import Container, Vertical
from textual.widget import Widget

from appliance import sparkplug
from appliance.engine_api import Mark, Snapshot
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.mqtt import topics
from appliance.ui import formats, hold_targets, journal_lookup, keys, payload
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import execution as execution_view
from appliance.ui.views import message as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer

_OUTCOME_ROWS, _OUTCOME_ROWS_TALL = 6, 16
_TALL = 36


class MessageScreen(Page):
    """Opened over a list; ← and → go to the messages beside it in that list."""

    SCOPES = (keys.DETAIL, keys.CONFIGURED, keys.ACTING, keys.REPEAT, keys.WHY)
    IS_TAB = False

    def __init__(
        self, host: PageHost, message: Message, among: Sequence[Message], tab: str
    ) -> None:
        super().__init__(host)
        self.tab = tab
        self._among = among
        self._message = message
        self._whole = False
        self._gone = ""
        self._places: dict[str, str] = {}
        self._retained: Line = []
        self._reasons: Sequence[str] = ()
        """Why it started nothing."""
        self._names: Mapping[int, str] = {}
        """Of the aliases of Sparkplug B."""
        self._asked: tuple[int, Mark | None] | None = None
        self._form = "pretty"
        self._wrapped = True
        self._difference: list[tuple[str, str]] = []
        self._drawn: tuple[object, ...] = ()

    def body(self) -> Iterable[Widget]:
        yield Pane(id="facts")
        with Container(id="message-main"):  # beside one another in a wide terminal
            with Vertical(id="message-left"):
                yield Pane(id="payload-title")
                yield Viewer(id="payload")
            yield Pane(id="outcome")

    def on_mount(self) -> None:
        self._fetch()

    def _fetch(self) -> None:
        seq = self._message.seq
        engine = self.host.engine

        def work() -> None:
            gone = ""
            whole = None
            try:
                whole = engine.message(seq)
            except ApplianceError as error:
                gone = str(error)
            self.host.background.call(self._fetched, seq, whole, gone)

        self.host.background.run(work, group="message")
        self._look_up()

    def _look_up(self) -> None:
        """Look up the retained message of the topic, then the place in each recording."""
        message, engine = self._message, self.host.engine
        recorders = [
            one for one in self.host.snapshot.recorders if topics.matches(one.topic, message.topic)
        ]

        def work() -> None:
            if sparkplug.birth_topic(message.topic):
                names = journal_lookup.birth_names(engine, message)
                self.host.background.call(self._found_names, message.seq, names)
            kept = view.retained_line(message, engine.retained(message.topic))
            self.host.background.call(self._looked_up, message.seq, {}, kept)
            for one in recorders:
                place = journal_lookup.place(engine, one, message.seq)
                self.host.background.call(
                    self._looked_up, message.seq, {one.name or one.path: place}, kept
                )

        self.host.background.run(work, group="lookup")

    def _looked_up(self, seq: int, places: dict[str, str], retained: Line) -> None:
        if seq == self._message.seq:
            self._places |= places
            self._retained = retained
            self.host.show_now()

    def _found_names(self, seq: int, names: Mapping[int, str]) -> None:
        if seq == self._message.seq:
            self._names = names
            self.host.show_now()

    def _fetched(self, seq: int, whole: Message | None, gone: str) -> None:
        if seq != self._message.seq:
            return
        if whole is not None:
            self._message = whole
        else:
            self._gone = gone or "the journal has removed it; this is what was in view"
        self._whole = True
        self.host.show_now()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        message, engine, cells = self._message, self.host.engine, self.size.width
        utc = self.host.remembered.utc
        size = engine.full_size(message.seq)
        size = size if size is not None and not self._whole else len(message.payload)
        title: Line = [("Message ", "head"), (formats.number(message.seq), "strong")]
        facts = view.facts(
            message,
            snapshot,
            size,
            utc=utc,
            now_ns=now_ns,
            places=self._places,
            retained=self._retained,
        )
        if self._gone:
            facts.append([(" ▲ ", "warn"), (self._gone, "warn")])
        right: Line = [("←→ beside   Esc back", "dim")]
        self.query_one("#facts", Pane).show([rule(title, cells, right), *facts])
        mark = engine.marks([message.seq]).get(message.seq)
        execution = engine.execution(mark.execution) if mark and mark.execution else None
        if execution is None:
            self._explain(mark)
        reasons = self._reasons or view.why_nothing(mark, message, snapshot)
        wait = None
        if execution is not None:
            wait = next((one for one in snapshot.waits if one.execution == execution.id), None)
        if wait is not None and execution is not None:
            execution = replace(execution, next_attempt_ns=wait.until_ns)
        pane = self.query_one("#outcome", Pane)
        wide = self.has_class("-wide")
        room = pane.size.width if wide else cells
        outcome = view.outcome(
            message,
            mark,
            execution,
            reasons,
            now_ns=now_ns,
            cells=room,
            utc=utc,
            key=keys.shown_for("explain", self.host.settings.keys),
        )
        if wait is not None:
            outcome[1:1] = execution_view.wait_lines(wait, now_ns, room, utc=utc)
        most = _OUTCOME_ROWS if self.size.height < _TALL else _OUTCOME_ROWS_TALL
        if wide:
            most = max(most, pane.size.height - 1)
        if len(outcome) > most:
            outcome = [*outcome[: most - 1], [("   … ⏎ has all", "dim")]]
        head: Line = [("What it led to", "head")]
        pane.show([rule(head, room), *outcome])
        self._show_payload(self.query_one("#message-left").size.width)

    def _explain(self, mark: Mark | None) -> None:
        """Ask once, and again when its outcome has changed, why it started nothing."""
        message, engine = self._message, self.host.engine
        asked = (message.seq, mark)
        if asked == self._asked:
            return
        self._asked = asked

        def work() -> None:
            with contextlib.suppress(ApplianceError):  # the snapshot's rules say less
                reasons = engine.explain(message.seq).reasons
                self.host.background.call(self._explained, message.seq, reasons)

        self.host.background.run(work, group="explain")

    def _explained(self, seq: int, reasons: Sequence[str]) -> None:
        if seq == self._message.seq:
            self._reasons = reasons
            self.host.show_now()

    def _show_payload(self, cells: int) -> None:
        drawn = (self._message, self._form, self._wrapped, cells, self._names)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        data = self._message.payload
        title: Line = [("Payload ", "head"), ("── ", "dim"), (self._form, "")]
        decoded: list[str] | None = None
        if sparkplug.is_topic(self._message.topic) and self._form == "pretty":
            decoded, said = payload.sparkplug_b(data, self._names)
            title.append((f" ── {said}", "dim" if decoded else "warn"))
        self.query_one("#payload-title", Pane).show([rule(title, cells)])
        if self._form == "difference":
            tones = {"+": "ok", "-": "bad", " ": ""}
            lines: list[Line] = [
                [(f" {sign} {text}", tones[sign])] for sign, text in self._difference
            ]
        else:
            forms = {"pretty": payload.pretty, "raw": payload.raw, "hex": payload.hexdump}
            wrapped = self._wrapped and self._form != "hex"
            text = forms[self._form](data) if decoded is None else decoded
            lines = view.payload_lines(text, cells, wrapped=wrapped)
        self.query_one(Viewer).show(lines)

    # --- what keys do --------------------------------------------------------------------------

    def _show_form(self, form: str) -> None:
        self._form = form
        self.query_one(Viewer).action_first()
        self.host.show_now()

    def hold_targets(self) -> Sequence[Target]:
        """What it started, and its client."""
        engine, message = self.host.engine, self._message
        mark = engine.marks([message.seq]).get(message.seq)
        execution = engine.execution(mark.execution) if mark is not None else None
        found = [] if execution is None else hold_targets.of_execution(execution)
        return [*found, *hold_targets.of_client(message.client_id)]

    def action_pretty(self) -> None:
        """Pretty or raw."""
        self._show_form("raw" if self._form == "pretty" else "pretty")

    def action_hex(self) -> None:
        self._show_form("pretty" if self._form == "hex" else "hex")

    def action_wrap(self) -> None:
        self._wrapped = not self._wrapped
        self.host.show_now()

    def action_difference(self) -> None:
        """Compare with the previous message on the topic, from the journal."""
        message, engine = self._message, self.host.engine

        def work() -> None:
            before = journal_lookup.previous(engine, message)
            if before is None:
                said = "No earlier message on this topic is in the journal, or not for long before."
                self.host.background.call(self.host.say, said)
            else:
                difference = payload.diff(before.payload, message.payload, message.topic)
                self.host.background.call(self._compared, message.seq, difference)

        self.host.background.run(work, group="difference")

    def _compared(self, seq: int, difference: list[tuple[str, str]]) -> None:
        if seq == self._message.seq:
            self._difference = difference
            self._show_form("difference")

    def _go(self, by: int) -> None:
        seqs = [one.seq for one in self._among]
        if self._message.seq not in seqs:
            return
        index = seqs.index(self._message.seq) + by
        if 0 <= index < len(seqs):
            self._message = self._among[index]
            self._whole = False
            self._gone = ""
            self._places, self._retained, self._reasons = {}, [], ()
            self._names = {}
            self._form = "pretty" if self._form == "difference" else self._form
            self.query_one(Viewer).action_first()
            self._fetch()
            self.host.show_now()

    def action_previous(self) -> None:
        self._go(-1)

    def action_next(self) -> None:
        self._go(1)

    def action_copy(self) -> None:
        self.host.copy_payload(self._message)

    def action_copy_topic(self) -> None:
        self.host.copy(self._message.topic, "the topic")

    def action_copy_block(self) -> None:
        """A table of the configuration for the topic and payload."""
        copy_menu.offer_blocks(self.host, self._message.topic, self._message)

    def action_execution(self) -> None:
        """The execution that the message started."""
        mark = self.host.engine.marks([self._message.seq]).get(self._message.seq)
        execution = self.host.engine.execution(mark.execution) if mark and mark.execution else None
        if execution is None:
            why = self._reasons or view.why_nothing(mark, self._message, self.host.snapshot)
            self.host.say(f"This message started nothing. {' '.join(why)}")
        else:
            self.host.navigation.show_execution(execution, self.tab)

    def action_fire_timer(self) -> None:
        """End the wait of what it asked for."""
        mark = self.host.engine.marks([self._message.seq]).get(self._message.seq)
        execution = self.host.engine.execution(mark.execution) if mark and mark.execution else None
        if execution is None:
            self.host.say("Nothing waits for this message.")
        else:
            self.host.actions.start_now(execution)

    def action_values(self) -> None:
        """Plot the numbers of the message's topic."""
        self.host.navigation.show_values(self._message.topic)

    def action_client(self) -> None:
        """Go to the client that sent the message."""
        self.host.navigation.show_client(self._message.client_id)

    def action_explain(self) -> None:
        """Why the message starts something or nothing, field by field."""
        self.host.navigation.explain_message(self._message.seq, self._message.topic, self.tab)

    def action_repeat(self) -> None:
        """Do again what the message caused."""
        self.host.actions.repeat(self._message)
