"""The Topics screen: the tree of topics with rates, last payloads and a curve of the chosen one.

Not for: the messages of a topic (Enter shows them on the Live screen).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from textual.widget import Widget

from appliance.engine_api import Engine, Snapshot, TopicState
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.ui import filters, formats, keys, topic_tree
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.task_names import TaskNames
from appliance.ui.views import topic as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_LIMIT = 60_000
_EVERY_NS = 1_000_000_000
"""The tree is built once a second: a row that jumps at every frame can't be read."""
_AT_ONCE = 2_000
"""Topics whose tree is built at once, in some 10 ms. More of them are left to a thread."""
_LEAST_PAUSE = 12
"""Times the thread's time between two trees: it takes a twelfth of a core at most."""

_FOOT_ROWS = 4
_OPEN_AT_FIRST = 30
_NONE_TAKEN = "The filter takes none of the topics that are known."


class TopicRows(Rows[topic_tree.TopicNode]):
    """The nodes in view."""

    opened: set[str]
    last: dict[int, Message]
    sizes: dict[int, int | None]
    sort = "rate"
    now_ns = 0
    root: topic_tree.TopicNode = topic_tree.build(())
    """Of the rows."""

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.opened = set()
        self.last = {}
        self.sizes = {}

    def key(self, item: topic_tree.TopicNode) -> Hashable:
        return item.path

    def line(self, item: topic_tree.TopicNode, cells: int) -> Line:
        message = self.last.get(item.leaf.last_seq) if item.leaf is not None else None
        opened = item.path in self.opened
        size = self.sizes.get(message.seq) if message is not None else None
        part = view.share(item, self.root, self.sort)
        return view.row(item, message, size, self.now_ns, cells, opened=opened, part=part)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, self.sort)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


class _Tree(NamedTuple):
    """What was built of the engine's topics."""

    root: topic_tree.TopicNode
    rows: list[topic_tree.TopicNode]
    opened: set[str]
    sort: str
    known: int
    """Topics, with those that the filter leaves out."""
    filter: filters.Filter
    seconds: float


class TopicsScreen(Page):
    """Folded and sorted as the operator likes; the filter is a text or a topic filter."""

    SCOPES = (keys.MOVE, keys.LISTS, keys.TOPICS, keys.SORTED, keys.CONFIGURED, keys.ACTING)
    TAB = "topics"
    FILTER_WORDS = ("topic", "text")
    FILTERED = "of the topics"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._root = topic_tree.build([])
        self._names = TaskNames()
        self._wanted = ""
        """The topic that is chosen when the tree has been built."""
        self._built_ns = 0
        self._every_ns = _EVERY_NS
        self._is_building = False
        self._seen_any = False
        self._left_out = ""
        self._asked: tuple[str, int] = ("", 0)
        """Of which topic, and which of its messages, the retained one was asked for last."""
        self._retained: Message | None = None
        self._values: dict[str, Message] = {}
        """Last messages that are not among the newest any more, by topic."""
        self._asked_values: dict[str, int] = {}
        """The topics that they were asked for, with the numbers of their last messages."""

    def body(self) -> Iterable[Widget]:
        yield Pane(id="topics-title")
        rows = TopicRows(id="topics")
        rows.empty_text = "No topic yet."
        yield rows
        yield Pane(id="topic-foot")

    @property
    def rows(self) -> TopicRows:
        return self.query_one(TopicRows)

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        is_due = not self._built_ns <= now_ns < self._built_ns + self._every_ns
        if is_due or (not self._seen_any and snapshot.topics_known <= _AT_ONCE):
            self._build(snapshot, now_ns)
        self._show(now_ns)

    def _build(self, snapshot: Snapshot, now_ns: int) -> None:
        if self._is_building:
            return
        self._built_ns = now_ns
        self._names.learn(snapshot.executions)
        self._names.refresh(self.host.engine, self.host.background, now_ns)
        rows = self.rows
        make = partial(
            self._make, self.host.engine, self.filter, now_ns, set(rows.opened), rows.sort
        )
        if snapshot.topics_known <= _AT_ONCE:
            self._made(make())
            return
        self._is_building = True
        if not rows.items:
            rows.empty_text = "Reading …"

        def work() -> None:
            made = None
            try:
                made = make()
            finally:
                self.host.background.call(self._made_elsewhere, made)

        self.host.background.run(work, group="topics")

    def _make(
        self, engine: Engine, wanted: filters.Filter, now_ns: int, opened: set[str], sort: str
    ) -> _Tree:
        """Build the tree; in any thread."""
        began = time.monotonic()
        try:
            states = engine.topics(_LIMIT)
        except ApplianceError:
            states = topic_tree.from_messages(self.host.feed.newest, now_ns)
        known = len(states)
        if not wanted.is_empty:
            plain = not wanted.texts and not wanted.not_texts
            states = [
                one
                for one in states
                if wanted.takes_topic(one.topic)
                and (plain or wanted.takes_text(one.topic, self._names.in_topic(one.topic)))
            ]
        root = topic_tree.build(states, self._names.by_id)
        if not self._seen_any and len(states) <= _OPEN_AT_FIRST:
            opened = set(topic_tree.folders(root))
        found = topic_tree.rows(root, opened, sort)
        seconds = time.monotonic() - began
        return _Tree(root, found, opened, sort, known, wanted, seconds)

    def _made_elsewhere(self, tree: _Tree | None) -> None:
        self._is_building = False
        if tree is not None:
            self._made(tree)
            self.host.show_now()

    def _made(self, tree: _Tree) -> None:
        if tree.filter is not self.filter:  # it is another one by now
            self._built_ns = 0
            return
        self._every_ns = max(_EVERY_NS, round(_LEAST_PAUSE * tree.seconds * 1e9))
        self._left_out = view.left_out(tree.known, self.host.snapshot)
        rows = self.rows
        rows.empty_text = "No topic yet." if self.filter.is_empty else _NONE_TAKEN
        self._root = rows.root = tree.root
        if tree.root.topics and not self._seen_any:
            self._seen_any = True
            rows.opened = set(tree.opened)
        topic, self._wanted = self._wanted, ""
        if topic:
            levels = topic.split("/")
            rows.opened |= {"/".join(levels[:count]) for count in range(1, len(levels))}
        rows.now_ns = self.host.clock_ns()
        if (tree.opened, tree.sort) == (rows.opened, rows.sort):
            rows.set_items(tree.rows)
        else:
            rows.set_items(topic_tree.rows(tree.root, rows.opened, rows.sort))
        if topic:
            rows.select(topic)

    def _walk_again(self) -> None:
        """Show other rows of the same tree."""
        rows = self.rows
        rows.set_items(topic_tree.rows(self._root, rows.opened, rows.sort))
        self.host.show_now()

    def _show(self, now_ns: int) -> None:
        rows = self.rows
        leaves = [node.leaf for node in rows.in_view if node.leaf is not None]
        last = self.host.feed.by_seq(one.last_seq for one in leaves)
        missing = [one for one in leaves if one.last_seq not in last]
        last |= {
            one.last_seq: self._values[one.topic] for one in missing if one.topic in self._values
        }
        self._ask_values(missing)
        if last != rows.last:
            rows.last = last
            rows.sizes = {seq: self.host.engine.full_size(seq) for seq in last}
            rows.refresh()
        cells = self.size.width
        title: Line = [
            (formats.counted(self._root.topics, "topic"), "head"),
            (f" ── {formats.short_count(self._root.count)} ", "dim"),
            ("message" if self._root.count == 1 else "messages", "dim"),
            (f" ── {self._root.rate:.1f}/s", "dim"),
            (f" ── {formats.size(round(self._root.byte_rate))}/s", "dim"),
        ]
        if self._left_out:
            title.insert(1, (f" ▲ {self._left_out}", "warn"))
        right: Line = [(f"sorted by {view.SORTED_BY[rows.sort]}", "dim")]
        self.query_one("#topics-title", Pane).show([rule(title, cells, right)])
        self._show_foot(now_ns, cells)

    def _ask_values(self, leaves: Sequence[TopicState]) -> None:
        """Ask for the last messages of topics that are not among the newest any more, once each."""
        wanted = {one.topic: one.last_seq for one in leaves}
        if not wanted or wanted.items() <= self._asked_values.items():
            return
        self._asked_values = wanted
        engine = self.host.engine

        def get() -> tuple[dict[str, int], dict[str, Message]]:
            try:
                return wanted, engine.last_values(tuple(wanted))
            except ApplianceError:  # an older appliance has no answer
                return wanted, {}

        self.host.background.fetch(get, self._found_values, group="values")

    def _found_values(self, answer: tuple[dict[str, int], dict[str, Message]]) -> None:
        wanted, values = answer
        # An earlier question may be answered later than the present one.
        if wanted is self._asked_values:
            self._values = values
            self.host.show_now()

    def _show_foot(self, now_ns: int, cells: int) -> None:  # noqa: ARG002 - the same shape as its siblings
        node = self.rows.current
        pane = self.query_one("#topic-foot", Pane)
        if node is None:
            pane.show([])
            return
        count = _FOOT_ROWS if self.size.height < 36 else 3 * _FOOT_ROWS
        below = f"{node.path}/"
        found = [
            one
            for one in self.host.feed.newest
            if one.topic == node.path or (node.children and one.topic.startswith(below))
        ][-200:]
        if not found and node.path in self._values:
            found = [self._values[node.path]]
        utc = self.host.remembered.utc
        head: list[Line] = [rule([(node.path, "head")], cells, view.sizes(node))]
        if node.leaf is not None and node.leaf.retained:
            self._ask_retained(node.leaf)
            if self._retained is not None and self._retained.topic == node.path:
                head.append(view.retained_line(self._retained, utc=utc))
        pane.show([*head, *view.foot(node.path, found, cells, count, utc=utc)])

    def _ask_retained(self, leaf: TopicState) -> None:
        wanted = (leaf.topic, leaf.last_seq)
        if wanted == self._asked:
            return
        self._asked = wanted
        engine = self.host.engine
        self.host.background.fetch(
            lambda: engine.retained(leaf.topic), self._found_retained, group="retained"
        )

    def _found_retained(self, message: Message | None) -> None:
        if message is not None and message.topic == self._asked[0]:
            self._retained = message
            self.host.show_now()

    def choose(self, name: str) -> None:
        """Choose a topic and open the levels above it, whatever the filter was."""
        self._wanted = name
        self.use_filter(filters.EMPTY)

    def filter_changed(self) -> None:
        self._built_ns = 0
        self._seen_any = False

    # --- what keys do --------------------------------------------------------------------------

    def action_unfold(self) -> None:
        node = self.rows.current
        if node is not None and node.children:
            self.rows.opened.add(node.path)
            self._walk_again()

    def action_fold(self) -> None:
        """Fold the level, or go to the one above it."""
        node = self.rows.current
        if node is None:
            return
        if node.path in self.rows.opened:
            self.rows.opened.discard(node.path)
        else:
            self._select_above(node)
        self._walk_again()

    def _select_above(self, node: topic_tree.TopicNode) -> None:
        path = node.path
        while "/" in path:
            path = path.rpartition("/")[0]
            if self.rows.select(path):
                return

    def action_open_all(self) -> None:
        self.rows.opened = set(topic_tree.folders(self._root))
        self._walk_again()

    def action_close_all(self) -> None:
        self.rows.opened = set()
        self._walk_again()

    def action_sort(self) -> None:
        """By messages or bytes a second, name, messages, bytes, or the time of the last one."""
        at = topic_tree.SORTS.index(self.rows.sort)
        self.rows.sort = topic_tree.SORTS[(at + 1) % len(topic_tree.SORTS)]
        self._walk_again()

    def choose_title(self, key: str) -> None:
        if key in topic_tree.SORTS:
            self.rows.sort = key
            self._walk_again()

    def action_open(self) -> None:
        """The messages of the topic, or of everything below it, on the Live screen."""
        node = self.rows.current
        if node is not None:
            self.host.navigation.show_live(filters.for_topic(node.path, below=bool(node.children)))

    def action_values(self) -> None:
        """Plot the numbers of the topic."""
        node = self.rows.current
        if node is None or node.leaf is None:
            self.host.say("This is a level of topics; choose a topic in it.")
        else:
            self.host.navigation.show_values(node.path)

    def action_clear_retained(self) -> None:
        node = self.rows.current
        if node is None or node.leaf is None or not node.leaf.retained:
            self.host.say("This topic has no retained message.")
        else:
            self.host.actions.clear_retained(node.leaf.topic)

    def action_publish(self) -> None:
        node = self.rows.current
        self.host.actions.publish(node.path if node is not None else "")

    def action_copy(self) -> None:
        """The last payload."""
        node = self.rows.current
        message = self.rows.last.get(node.leaf.last_seq) if node and node.leaf else None
        if message is not None:
            self.host.copy_payload(message)

    def action_copy_topic(self) -> None:
        node = self.rows.current
        if node is not None:
            self.host.copy(node.path, "the topic")

    def action_copy_block(self) -> None:
        """A table of the configuration for the topic, or for everything below it."""
        node = self.rows.current
        if node is not None:
            leaf, below = node.leaf, bool(node.children)
            message = None if leaf is None else self.rows.last.get(leaf.last_seq)
            copy_menu.offer_blocks(
                self.host, node.path, message, itself=leaf is not None, below=below
            )

    def action_export(self) -> None:
        wanted = [node.leaf for node in self.rows.items if node.leaf is not None]
        self.host.export("topics", wanted)
