"""The tables of the state: a reader at any pace ends with the same state."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.values import Duration, Size, TopicFilter, WritePath
from appliance.remote import protocol
from appliance.remote.tables import Table

VALUES = st.one_of(st.integers(0, 3), st.text(max_size=30))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 8), VALUES),
        st.tuples(st.just("keep"), st.sets(st.integers(0, 8))),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(0, 60)),
        st.tuples(st.just("forget")),
    ),
    max_size=60,
)


class Reader:
    """One terminal's copy."""

    def __init__(self):
        self.version = 0
        self.copy = {}

    def read(self, table, budget):
        changes, self.version, _ = table.since(self.version, budget)
        for key, raw in changes.items():
            value = msgspec.msgpack.decode(raw)
            if value is None:
                self.copy.pop(key, None)
            else:
                self.copy[key] = value
        return changes


@given(CHANGES)
def test_every_reader_ends_with_the_same_state(changes):
    """However slow a terminal is and however little fits into a frame, it catches up exactly."""
    table, state = Table(), {}
    readers = [Reader(), Reader()]
    for name, *arguments in changes:
        if name == "put":
            key, value = arguments
            table.put(key, value)
            state[key] = value
        elif name == "keep":
            table.keep_only(arguments[0])
            state = {key: value for key, value in state.items() if key in arguments[0]}
        elif name == "read":
            readers[arguments[0]].read(table, arguments[1])
        else:
            table.forget_gone(min(reader.version for reader in readers))
    for reader in readers:
        while reader.version < table.version:
            assert reader.read(table, 20)  # each read gets on, however small the budget
        assert reader.copy == state
    newcomer = Reader()
    newcomer.read(table, 10**6)
    assert newcomer.copy == state


def test_what_has_not_changed_is_not_sent_again():
    """A quiet appliance costs a terminal's line next to nothing."""
    table = Table()
    table.put("a", (1, 2))
    _, version, _ = table.since(0, 1000)
    table.put("a", (1, 2))
    assert table.since(version, 1000) == ({}, version, 0)


def test_values_of_the_configuration_travel():
    """Topic filters, paths and durations of the state arrive as plain text and numbers."""
    for value in (TopicFilter("a/#"), WritePath("x.json"), Duration(1.5), Size(7)):
        assert msgspec.msgpack.decode(protocol.encode((value,))) == [value]
    with pytest.raises(TypeError, match="object can't be sent to a terminal"):
        protocol.encode(object())


def test_notes_of_what_is_gone_do_not_pile_up():
    """Clients that come and go for months leave nothing in memory."""
    table = Table()
    for number in range(1000):
        table.put(number, "client")
        table.keep_only([number])
        table.forget_gone(table.version)
    assert len(table) == 1


def test_names_on_the_wire_stay():
    """A terminal of another build with the same protocol number is understood, and understands."""
    request = protocol.Request(7, protocol.StartTask("some id"))
    wire = b'{"number":7,"ask":{"ask":"start_task","task_id":"some id"}}'
    assert msgspec.json.encode(request) == wire
    assert msgspec.json.decode(wire, type=protocol.Request) == request
    tags = {kind.__struct_config__.tag for kind in get_args(protocol.AnyOperation)}
    assert tags == {
        "attach", "seen", "message", "tasks", "server_tasks", "history", "seq_at", "retained", "executions",
        "marks", "start_task", "repeat", "stop_execution", "publish", "clear_retained", "acknowledge",
        "acknowledge_problem", "unacknowledge_problem",
        "last_values", "end_session", "check_server", "connect_bridge", "explain", "explain_message", "find_executions", "request_starts",
        "search", "disconnect", "pause_timer", "fire_timer", "stop",
        "freshness", "freshness_day", "values", "holds", "hold", "release",
    }  # fmt: skip
