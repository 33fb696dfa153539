"""Rules about several uploads: topics of their messages, rounds without end, shared names.

``<name>/recorders/<recorder>/uploaded`` is a message like any other: a recorder may take it, and a
trigger may start a reload, whose outcome is a message again. A recorder whose own upload comes back
to it in that way makes a file for each upload without end. Not for: loops of triggers alone
(tasks/loops.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from appliance.config.tables import Config, RecorderConfig
from appliance.mqtt.topics import matches

_NOT_IN_A_LEVEL = re.compile(r"[/+#\x00-\x1f\x7f]")
_OUTCOMES = ("last", "execution")
_UNKNOWN_ID = "?"
"""The level of a task whose id is not known: only a wildcard matches it."""


def uploaded_topic(service_name: str, recorder: str) -> str:
    """The topic of messages that tell of a recorder's uploads."""
    return f"{service_name}/recorders/{_NOT_IN_A_LEVEL.sub('_', recorder)}/uploaded"


def upload_advice(config: Config) -> Iterator[str]:
    """Uploads that go round, and triggers that wait for uploads that nothing makes."""
    topics = {
        number: uploaded_topic(config.service.name, recorder.used_name)
        for number, recorder in enumerate(config.recorder, 1)
        if recorder.upload is not None
    }
    yield from _rounds(config, topics)
    yield from _shared_names(config)
    if config.qlik is not None and config.qlik.edition == "simulated":
        for number in topics:
            upload = config.recorder[number - 1].upload
            if upload is not None and upload.space:
                yield (
                    f"[[recorder]] {number} `upload`: the simulated tenant has no space"
                    f' "{upload.space}"; leave `space` out to try uploads'
                )
    prefix = f"{config.service.name}/recorders/"
    for number, trigger in enumerate(config.trigger, 1):
        if trigger.topic.startswith(prefix) and not any(
            matches(trigger.topic, topic) for topic in topics.values()
        ):
            near = difflib.get_close_matches(trigger.topic, topics.values(), 1, 0.0)
            meant = f'; did you mean "{near[0]}"?' if near else ""
            yield (
                f'[[trigger]] {number} `topic` "{trigger.topic}": no [[recorder]] with `upload`'
                f" publishes there{meant}"
            )


def _rounds(config: Config, topics: Mapping[int, str]) -> Iterator[str]:
    follows = {number: _followers(config, topic, topics) for number, topic in topics.items()}
    for number in topics:
        if number not in _reached(follows, number):
            continue
        recorder = config.recorder[number - 1]
        by = "" if _takes(recorder, topics[number]) else " and the outcomes of its reload"
        yield (
            f'[[recorder]] {number} `topic` "{recorder.topic}" takes the messages of its own'
            f" uploads{by}, so that each upload makes the next file, for ever; write topics that"
            f" {config.service.name}/ is not among"
        )


def _shared_names(config: Config) -> Iterator[str]:
    seen: dict[tuple[str, str, str], int] = {}
    for number, recorder in enumerate(config.recorder, 1):
        upload = recorder.upload
        if upload is None or not recorder.path:
            continue
        name = PurePath(recorder.path).name.casefold()
        key = (upload.space.casefold(), upload.folder.strip("/").casefold(), name)
        if key in seen:
            yield (
                f"[[recorder]] {number} `upload`: files of [[recorder]] {seen[key]} go to the same"
                " folder and begin with the same name, so one may replace the other; write another"
                " `folder`"
            )
        seen.setdefault(key, number)


def _followers(config: Config, topic: str, topics: Mapping[int, str]) -> set[int]:
    """The uploads that a message on this topic leads to."""
    told = [topic]
    for trigger in config.trigger:
        if trigger.task != "payload" and matches(trigger.topic, topic):
            told += [f"{config.service.name}/tasks/{_UNKNOWN_ID}/{end}" for end in _OUTCOMES]
            break
    return {
        number for number in topics if any(_takes(config.recorder[number - 1], one) for one in told)
    }


def _takes(recorder: RecorderConfig, topic: str) -> bool:
    return matches(recorder.topic_filter, topic)


def _reached(follows: Mapping[int, set[int]], start: int) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        new = follows[waiting.pop()] - found
        found |= new
        waiting += new
    return found
