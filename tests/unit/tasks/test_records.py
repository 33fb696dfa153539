"""What stands in ``tasks.db``: records keep their bytes when fields get other names in the code."""

from __future__ import annotations

import msgspec
import pytest

from appliance.model import Cause, ExecutionState, Step
from appliance.tasks.records import Record, Reply
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options

FULL = bytes.fromhex(
    "de0014a9657865637574696f6ede0010a2696407a77461736b5f6964d92430303030303030302d303030302d"
    "303030302d303030302d303030303030303030303031a97461736b5f6e616d65ac52656c6f61642073616c65"
    "73a57374617465a87265747279696e67a5636175736585a46b696e64a76d657373616765a373657105a5746f"
    "706963a973746172742f6e6f77a9636c69656e745f6964a3706c63a472756c65a573616c6573ac7265717565"
    "737465645f6e73cf0de0b6b3a7640000ac657865637574696f6e5f6964a0aa737461727465645f6e73c0a865"
    "6e6465645f6e73c0a8617474656d70747302af6e6578745f617474656d70745f6e73cf0de0b6baa387ac00a7"
    "757375616c5f73cb401e000000000000a6726561736f6eaa3530333a206c61746572a66d657267656403a573"
    "746570739282a561745f6e73cf0de0b6b3a7640001a474657874d92c41736b656420666f72206279206d6573"
    "736167652035206f6e2073746172742f6e6f772066726f6d20706c6382a561745f6e73cf0de0b6b3a7640009"
    "a474657874aa53746172742063616c6ca86c6f675f7461696c90a477616e7493a870726f7065727479a56e6f"
    "727468a5706c616e74a76f7074696f6e7396cb4014000000000000cb0000000000000000cb00000000000000"
    "00a57374617274cb40f5180000000000cb40f5180000000000aa657870697265735f6e73cf0de0b73f5a2d70"
    "00ad6c6173745f61736b65645f6e73cf0de0b6b3a7640000a9706f737465645f6e73cf0de0b6b3e2feca00ad"
    "6c6f6f6b5f73696e63655f6e73cf0de0b6b36bc93600b066697273745f617474656d70745f6e73cf0de0b6b3"
    "c5316500a5747269657304a87265706c795f746f9193ab616e73776572732f706c63c402010205a56c616265"
    "6ca3353033a468656c64c3a768757272696564c3a97265636f7665726564c3a769735f736c6f77c3aa6c6f67"
    "5f77616e746564c3a97265706f72745f6964a3726573ae66696c655f7265666572656e6365a3726566a86c61"
    "73745f73657106a77365656e5f6e73cf0de0b6b41e999400"
)
"""A record with a value in every field, as version 1 of the layout stored it."""
PLAIN = bytes.fromhex(
    "de0014a9657865637574696f6ede0010a2696407a77461736b5f6964d92430303030303030302d303030302d"
    "303030302d303030302d303030303030303030303031a97461736b5f6e616d65ac52656c6f61642073616c65"
    "73a57374617465a9726571756573746564a5636175736585a46b696e64a76d657373616765a373657105a574"
    "6f706963a973746172742f6e6f77a9636c69656e745f6964a3706c63a472756c65a573616c6573ac72657175"
    "65737465645f6e73cf0de0b6b3a7640000ac657865637574696f6e5f6964a0aa737461727465645f6e73c0a8"
    "656e6465645f6e73c0a8617474656d70747302af6e6578745f617474656d70745f6e73cf0de0b6baa387ac00"
    "a7757375616c5f73cb401e000000000000a6726561736f6eaa3530333a206c61746572a66d657267656403a5"
    "737465707390a86c6f675f7461696c90a477616e7493a26964d92430303030303030302d303030302d303030"
    "302d303030302d303030303030303030303031a0a76f7074696f6e7396cb0000000000000000cb0000000000"
    "000000cb0000000000000000a971756575655f6f6e65cb40f5180000000000cb40f5180000000000aa657870"
    "697265735f6e7301ad6c6173745f61736b65645f6e7302a9706f737465645f6e73c0ad6c6f6f6b5f73696e63"
    "655f6e73c0b066697273745f617474656d70745f6e73c0a5747269657300a87265706c795f746f90a56c6162"
    "656ca0a468656c64c2a768757272696564c2a97265636f7665726564c2a769735f736c6f77c2aa6c6f675f77"
    "616e746564c2a97265706f72745f6964a0ae66696c655f7265666572656e6365a0a86c6173745f73657100a7"
    "7365656e5f6e73c0"
)
"""A record as a message that names a task makes it."""


def has(new: object, old: object) -> bool:
    """Whether a value has all that an earlier one had; further fields come behind them."""
    if isinstance(old, dict):
        assert isinstance(new, dict)
        return list(new)[: len(old)] == list(old) and all(has(new[key], old[key]) for key in old)
    if isinstance(old, list):
        assert isinstance(new, list)
        return all(map(has, new[: len(old)], old))
    return new == old


@pytest.mark.parametrize("stored", [FULL, PLAIN])
def test_a_stored_record_is_read_and_written_unchanged(stored: bytes) -> None:
    """An existing database opens, and an earlier version can read what this one writes."""
    record = msgspec.msgpack.decode(stored, type=Record)
    written = msgspec.msgpack.encode(record)
    assert has(msgspec.msgpack.decode(written), msgspec.msgpack.decode(stored))
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(written, type=Record)) == written


def test_every_stored_field_is_found_under_its_name_here() -> None:
    """A field that was renamed still takes its value from its stored name."""
    record = msgspec.msgpack.decode(FULL, type=Record)
    execution = record.execution
    assert execution.state is ExecutionState.RETRYING
    assert execution.cause == Cause("message", 5, "start/now", "plc", "sales")
    assert execution.steps[1] == Step(1_000_000_000_000_000_009, "Start call")
    assert record.selector == TaskSelector("property", "north", "plant")
    assert record.options == Options(debounce_s=5.0, if_running="start")
    assert record.reply_to == (Reply("answers/plc", b"\x01\x02", 5),)
    assert record.posted_ns == 1_000_000_001_000_000_000
    assert record.look_since_ns == 999_999_999_000_000_000
    assert record.tries == 4
    assert (record.label, record.report_id, record.file_reference) == ("503", "res", "ref")
    assert record.paused
    assert record.expedited
    assert record.recovered
    assert record.is_slow
    assert record.log_wanted
