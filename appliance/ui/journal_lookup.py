"""Facts about a message from the journal: its place in a recording, the message before it.

Every function here reads the journal through the engine; call it from a worker thread.
Not for: searching (screens/search.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from appliance import sparkplug
from appliance.engine_api import Engine, RecorderState
from appliance.message_filter import MessageFilter
from appliance.model import Message
from appliance.mqtt import topics
from appliance.ui import formats

_CHUNK = 2000
_FAR = 100_000
"""Messages that are read for one answer; over a connection, a tenth of that."""
_PATIENCE_S = 5.0
"""Seconds that an operator waits for one answer."""


def place(engine: Engine, recorder: RecorderState, seq: int) -> str:
    """Where in the recorder's file a message stands: ``line 1,204``, ``record 7``; "" if unknown.

    A recorder counts what it has written; the messages that came after this one are counted back
    from there, so the recordings need no index.
    """
    if seq > recorder.looked_at:
        return "not written yet"
    if not recorder.is_counted:
        return "written"
    before, later, left = recorder.looked_at + 1, 0, _limit(engine)
    while before > seq + 1:
        chunk = engine.history(before, min(_CHUNK, before - seq - 1)) if left > 0 else ()
        if not chunk:
            return ""
        later += sum(one.seq > seq and topics.matches(recorder.topic, one.topic) for one in chunk)
        left -= len(chunk)
        before = chunk[0].seq
    number = recorder.recorded - later
    if number < 1:
        return "before this file was begun"
    return f"{'line' if recorder.format == 'jsonl' else 'record'} {formats.number(number)}"


def previous(engine: Engine, message: Message) -> Message | None:
    """The message before this one on its topic, if it is found soon enough."""
    return _before(engine, message.topic, message.seq)


def _limit(engine: Engine) -> int:
    return _FAR // 10 if engine.is_remote else _FAR


def birth_names(engine: Engine, message: Message) -> Mapping[int, str]:
    """The names of the aliases in a message of Sparkplug B, from the birth before it."""
    topic = sparkplug.birth_topic(message.topic)
    birth = _before(engine, topic, message.seq) if topic else None
    whole = engine.message(birth.seq) if birth is not None else None
    if whole is None:
        return {}
    try:
        return sparkplug.read(whole.payload).names()
    except sparkplug.NotSparkplugError:
        return {}


def _before(engine: Engine, topic: str, seq: int) -> Message | None:
    asked = MessageFilter(topics=(topic,))
    before, until = seq, time.monotonic() + _PATIENCE_S
    while before and time.monotonic() < until:
        step = engine.search(asked, before, 1)
        if step.messages:
            return step.messages[-1]
        before = step.before_seq
    return None
