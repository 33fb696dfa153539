"""The set of recorders: made from a configuration, and checked against each other.

Not for: recording (recorder.py, worker.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.config.path_placeholders import may_be_same
from appliance.config.recorder_paths import not_a_recording, template_of
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError
from appliance.mqtt.topics import Matcher
from appliance.recorders.recorder import Recorder
from appliance.storage.files import real_path

FILES = "recorders"
"""The group of all recorders that write files, and its thread and follower."""


class Group(msgspec.Struct, frozen=True):
    """The recorders of one thread, and those of each topic."""

    recorders: tuple[Recorder, ...]
    routes: Matcher[Recorder]


class Plan(msgspec.Struct, frozen=True):
    """All recorders, in the order of the configuration, and the groups that share a thread."""

    recorders: tuple[Recorder, ...]
    files: Group
    databases: tuple[Group, ...]
    """One recorder each: a server that hangs holds up nothing else."""


def make_plan(
    configs: Sequence[RecorderConfig], data_dir: Path, present: Sequence[Recorder] = ()
) -> Plan:
    """Make the recorders. A recorder of ``present`` stays if its table has not changed.

    Raises:
        ConfigError: two recorders write the same file, or a path is not a recording: a file of the
            appliance in ``data_dir``, a folder, a device.
    """
    recorders = tuple(
        next((each for each in present if each.config == config), None)
        or Recorder(config, data_dir)
        for config in configs
    )
    seen: dict[str, Recorder] = {}
    for recorder in recorders:
        if recorder.config.database is None:
            _check_path(recorder, data_dir, seen)
    _check_templates([each for each in recorders if each.config.database is None], data_dir)
    return Plan(
        recorders,
        files=_group([each for each in recorders if each.config.database is None]),
        databases=tuple(_group([each]) for each in recorders if each.config.database is not None),
    )


def _group(recorders: Sequence[Recorder]) -> Group:
    routes: Matcher[Recorder] = Matcher()
    for recorder in recorders:
        routes.add(recorder.config.topic_filter, recorder)
    return Group(tuple(recorders), routes)


def _check_templates(recorders: Sequence[Recorder], data_dir: Path) -> None:
    try:
        paths = [
            template_of(each.config, str(data_dir)) or str(each.config.path) for each in recorders
        ]
    except ValueError as error:
        raise ConfigError(f"[[recorder]] `path`: {error}") from None
    for number, path in enumerate(paths):
        for other in paths[:number]:
            has_template = not (isinstance(path, str) and isinstance(other, str))
            if has_template and may_be_same(path, other):
                raise ConfigError(
                    f"[[recorder]] `path` {recorders[number].config.path}: another recorder may"
                    " write the same file for some topic. Give each a folder of its own."
                )


def _check_path(recorder: Recorder, data_dir: Path, seen: dict[str, Recorder]) -> None:
    problem = not_a_recording(recorder.config.path, str(data_dir))
    if problem:
        raise ConfigError(
            f"[[recorder]] `path` {recorder.config.path}: {problem}, which is never"
            " overwritten. Name another file."
        )
    name = os.path.normcase(real_path(recorder.config.path))
    if name in seen:
        raise ConfigError(
            f"Two recorders write {recorder.config.path}: those of topics"
            f" {seen[name].config.topic} and {recorder.config.topic}. Give each its own"
            " path under [[recorder]]."
        )
    seen[name] = recorder
