"""Blocks that the UI copies: the real check accepts each one, and they mean what is on the screen."""

import argparse
import contextlib
import io
from pathlib import Path

import msgspec
import pytest
import tomli
from hypothesis import example, given, settings, strategies as st

from appliance.commands import check
from appliance.config.reading import load
from appliance.engine_api import Health, JournalState, QlikState, RecorderState, RuleState, Snapshot
from appliance.mqtt.topics import matches
from appliance.tasks.conditions import Condition
from appliance.tasks.payloads import Request, read_payload
from appliance.ui import copy_blocks
from appliance.ui.text import for_clipboard

GUID = "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10"
CONFIG = """\
[service]
name = "appliance"
data_dir = "data"
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "simulated"
[[trigger]]
topic = "taken/rule"
task = "payload"
name = "taken/rule"
[[recorder]]
topic = "taken/#"
path = "recordings/taken.jsonl"
format = "jsonl"
"""
ODD = "a\"\\'{}\x7f\u202e\u2028\ufeff\x01\n\t=#[]é扉👩 ."
LEVEL = st.text(
    st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=12
).map(lambda text: text.replace("+", "").replace("#", "").replace("\0", "").replace("/", ""))
TOPICS = st.one_of(
    st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool),
    st.sampled_from(
        ["$SYS/broker/uptime", "appliance/status", "appliance/tasks/x/last", "con", "/", "a" * 3000]
    ),
)
SCALARS = st.one_of(
    st.text(max_size=90), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(), st.none(),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["a", "b", "a.b", "payload", "", "taskId", "."]), st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
PAYLOADS = st.one_of(
    st.binary(max_size=40), st.text(max_size=40).map(str.encode), JSON.map(msgspec.json.encode)
)


def snapshot(edition="simulated"):
    ok = Health("ok")
    return Snapshot(
        0, "appliance", "1", 0, (), 0, JournalState(ok, 0, 0, 0, 0, 0, 0, 0),
        QlikState(edition, "", ok),
        recorders=(
            RecorderState("taken/#", "recordings/taken.jsonl", "jsonl", ok, name="taken"),
        ),
        rules=(RuleState("taken/rule", "taken/rule", ""),),
        timers=(),
        executions=(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Put a block behind a complete configuration, through the real check; the configuration."""
    folder = tmp_path_factory.mktemp("config")

    def run(block, before=CONFIG):
        path = folder / "config.toml"
        path.write_bytes((before + for_clipboard(block)).encode())
        with contextlib.redirect_stdout(io.StringIO()):
            assert check.execute(argparse.Namespace(config=str(path), connect=False)) == 0
        return load(str(path))

    return run


def awake(block):
    """The block with its offered conditions taken in."""
    head, mark, tail = block.partition("# [trigger.when]\n")
    return head + (mark + tail).replace("\n# ", "\n").removeprefix("# ")


def is_accepted_and_fits(checked, topic, payload):
    now = snapshot()
    block = copy_blocks.trigger(topic, payload, now) + copy_blocks.recorder(topic, payload, now)
    config = checked(block)
    rule, recorder = config.trigger[-1], config.recorder[-1]
    assert rule.topic == recorder.topic_filter == topic
    if rule.task == "payload":
        assert isinstance(read_payload(payload), Request) or b"variables" in payload
    when = checked(awake(copy_blocks.trigger(topic, payload, now))).trigger[-1].when
    assert when is None or Condition(when, where="").holds(payload)


@settings(max_examples=20, deadline=None)
@given(TOPICS, PAYLOADS)
@example("a/{b}/}{", b"\0 a")
@example("taken/rule", b'{"state": "done", "order": {"line": 7}}')
@example("a\"\\'\u202e\x01", b"21.4")
@example("x", b'{"a": {"b": 1}, "a.b": {"c": 2}}')
def test_what_is_pasted_is_accepted_and_fits_the_message(checked, topic, payload):
    """Any topic and payload: the check takes both blocks, they match the topic, and the conditions
    hold for the message that they were made of."""
    is_accepted_and_fits(checked, topic, payload)


@pytest.mark.campaign
@settings(max_examples=300, deadline=None)
@given(TOPICS, PAYLOADS)
def test_many_blocks_are_accepted_and_fit_their_messages(checked, topic, payload):
    """The same, for many more."""
    is_accepted_and_fits(checked, topic, payload)


@settings(max_examples=10, deadline=None)
@given(TOPICS, st.text(max_size=30), st.lists(st.text(max_size=10), max_size=2))
def test_a_branch_and_a_selector_are_accepted(checked, topic, name, tags):
    """Everything below a topic, and each way to name a task."""
    now = snapshot()
    branch = f"{topic}/#"
    config = checked(
        copy_blocks.trigger(branch, None, now) + copy_blocks.recorder(branch, None, now)
    )
    assert matches(config.trigger[-1].topic, topic)
    for line in copy_blocks.selectors(GUID, name, tags).values():
        checked(f'[[trigger]]\ntopic = "t"\n{line}')


@pytest.mark.parametrize(
    ("payload", "task"),
    [
        (GUID.encode(), "payload"),
        (f'{{"taskId": "{GUID}"}}'.encode(), "payload"),
        (f'["{GUID}"]'.encode(), "payload"),
        (b'{"tag": "nightly", "partial": true}', "payload"),
        (b'{"tag": "TI-101", "value": 3}', {"name": "NAME OF THE TASK"}),
        (b"Online", {"name": "NAME OF THE TASK"}),
    ],
)
def test_a_payload_that_names_tasks_does_so_in_the_rule(checked, payload, task):
    """A sensor's own "tag" is none of Qlik's."""
    assert checked(copy_blocks.trigger("t", payload, snapshot())).trigger[-1].task == task


def test_the_conditions_are_those_of_the_payload():
    """Paths of names with dots, quoted, since TOML would make tables of them."""
    block = copy_blocks.trigger(
        "t", b'{"state": "done", "order": {"line": 7}, "list": [1]}', snapshot()
    )
    when = tomli.loads(awake(block))["trigger"][0]["when"]
    assert when == {"state": "done", "order.line": 7}


def test_without_a_server_the_block_brings_one_for_a_try(checked):
    """A rule alone would be refused."""
    before = CONFIG.replace('[qlik]\nedition = "simulated"\n', "").partition("[[trigger]]")[0]
    config = checked(copy_blocks.trigger("t", None, snapshot(edition="none")), before)
    assert config.qlik.edition == "simulated"


@pytest.mark.parametrize(
    ("payload", "form"),
    [
        (b'{"value": 1, "unit": "C"}', "csv"),
        (b'{"value": {"a": 1}}', "jsonl"),
        (b"[1, 2]", "jsonl"),
        (b"text", "jsonl"),
        (b"\xff\xd8", "jsonl"),
        (None, "jsonl"),
    ],
)
def test_the_format_follows_the_payload(checked, payload, form):
    """Rows for objects that are rows."""
    recorder = checked(copy_blocks.recorder("t", payload, snapshot())).recorder[-1]
    assert recorder.format == form
    assert Path(recorder.path).as_posix().endswith(f"recordings/t.{form}")


def test_the_commented_keys_of_a_recorder_are_accepted(checked):
    """They are there to be taken in."""
    block = copy_blocks.recorder("t", None, snapshot()).replace("# rotate", "rotate")
    assert checked(block.replace("# keep", "keep")).recorder[-1].keep is not None


def test_names_that_are_taken_are_not_used_again(checked):
    """Of a rule, and of a recorder's file."""
    now = snapshot()
    config = checked(
        copy_blocks.trigger("taken/rule", None, now) + copy_blocks.recorder("taken", None, now)
    )
    assert config.trigger[-1].name == "taken/rule 2"
    assert config.recorder[-1].name == "taken-2"


def test_a_topic_that_fits_no_table_says_so():
    """Its braces are doubled, which makes it too long."""
    with pytest.raises(copy_blocks.NoBlockError, match="longer than 65535 bytes"):
        copy_blocks.recorder("{" * 40_000, None, snapshot())
