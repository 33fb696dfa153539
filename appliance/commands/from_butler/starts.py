"""``startTaskFilter``: the ``[allow]`` table.

Not for: who may start tasks over HTTP (http_port.py).
"""

from __future__ import annotations

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable, Value
from appliance.config.checks import GUID


def is_filtered(butler: Section) -> bool:
    """Whether Butler starts only listed tasks. A switch that can't be read does not open it."""
    start_filter = butler.section("startTaskFilter")
    return bool(start_filter) and start_filter.flag("enable", True)


def lists_nothing(butler: Section) -> bool:
    """Whether the filter lists no task, so that Butler's calls start none."""
    return is_filtered(butler) and not _lists(butler.section("startTaskFilter"))


def take(butler: Section, draft: Draft) -> None:
    """Add ``[allow]``, if Butler's filter is on and lists tasks."""
    start_filter, findings = butler.section("startTaskFilter"), draft.findings
    if not start_filter:
        return
    if not is_filtered(butler):
        findings.turned_off(start_filter.path)
        return
    tasks, allowed = _tasks(start_filter), _lists(start_filter)
    where = start_filter.path
    if not allowed:
        findings.differs(
            where,
            "it is on and lists no task, so [allow] is not written: messages start every task, as "
            "with Butler",
        )
        return
    table = TomlTable(
        "[allow]",
        allowed,
        comment="The tasks that may be started: by calls, messages, timers and operators.",
    )
    findings.differs(
        where,
        "Butler's filter is for its calls alone; [allow] counts for messages, timers and operators "
        "too. Add the tasks that only messages start",
    )
    timed = [each for each in dict.fromkeys(draft.scheduled_tasks) if each not in tasks]
    if timed:
        table.keys["tasks"] = [*tasks, *timed]
        table.remarks["tasks"] = "those of [[timer]] too"
    draft.add(table)


def _tasks(start_filter: Section) -> list[str]:
    allow = start_filter.section("allowTask")
    tasks = []
    for task in allow.texts("taskId"):
        if GUID.fullmatch(task):
            tasks.append(task)
        else:
            allow.findings.leave(allow.key("taskId"), "a value of it is no task id")
    return tasks


def _lists(start_filter: Section) -> dict[str, Value]:
    """The keys of ``[allow]``; none if nothing is listed."""
    allow = start_filter.section("allowTask")
    properties: list[Value] = []
    for entry in allow.sections("customProperty"):
        name, value = entry.text("name"), entry.text("value")
        if name and value:
            properties.append({"property": name, "value": value})
        else:
            entry.findings.leave(entry.path, "a custom property has `name` and `value`")
    lists: dict[str, Value] = {
        "tasks": _tasks(start_filter),
        "tags": allow.texts("tag"),
        "properties": properties,
    }
    return {key: each for key, each in lists.items() if each}
