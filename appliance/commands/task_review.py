"""What the configuration says of tasks, held against the server's list: ``check --connect``.

Not for: the connection (qlik/diagnosis.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import msgspec

from appliance.config.tables import Config, TimerConfig, TriggerConfig
from appliance.errors import EXIT_CONFIG, ConfigError
from appliance.finding import Finding
from appliance.model import Task
from appliance.qlik.server import QlikError
from appliance.tasks.catalog import AllowList
from appliance.tasks.loops import find_loops
from appliance.tasks.payloads import WantedStart
from appliance.tasks.selector import TaskSelector, task_id
from appliance.tasks.task_index import ambiguity, find
from appliance.tasks.triggers import fixed_selector, reload_options

_MOST_NAMED = 5


def review(
    config: Config, listed: Sequence[Task], apps: Callable[[], Sequence[Task]] = tuple
) -> Iterator[Finding]:
    """Findings about triggers, timers and ``[allow]``; the last one says that all is well.

    ``apps`` asks for the apps that can be reloaded without a task; if it raises ``QlikError``, a
    finding says so.
    """
    tasks = [msgspec.structs.replace(task, id=task.id.lower()) for task in listed]
    is_well = True
    count = 0

    @cache
    def kept() -> Sequence[Task] | QlikError:
        try:
            return apps()
        except QlikError as error:
            return error

    for where, start in _named(config):
        count += 1
        found = find(start.selector, tasks, start.reload)
        if not found and start.selector.kind == "app":
            without_task = kept()
            if isinstance(without_task, QlikError):
                is_well = False
                yield _unknown_apps(where, start.selector, without_task)
                continue
            found = find(start.selector, without_task)
        for finding in _rule(where, start, found, tasks, config):
            is_well = False
            yield finding
    for finding in (*_allow(config, tasks, kept), *_loops(config, tasks)):
        is_well = False
        yield finding
    if is_well and count:
        rules = "trigger and timer" if config.timer else "trigger"
        yield Finding("ok", f"Each {rules} that names a task finds it, and may start it.")


def _named(config: Config) -> Iterator[tuple[str, WantedStart]]:
    """Where a task is named, and how."""
    rules: list[tuple[str, TriggerConfig | TimerConfig]] = [
        *((f"[[trigger]] {number}", one) for number, one in enumerate(config.trigger, 1)),
        *((f"[[timer]] {number}", one) for number, one in enumerate(config.timer, 1)),
    ]
    for table, rule in rules:
        task, name = rule.task, rule.name
        if task is None or task in ("payload", "topic"):
            continue
        try:
            reload = reload_options(rule.partial, rule.variables)
            yield f"{table} {name}".rstrip(), WantedStart(fixed_selector(task, ""), reload)
        except ConfigError:  # a problem that is said before
            continue


def _unknown_apps(where: str, selector: TaskSelector, error: QlikError) -> Finding:
    return Finding(
        "warn",
        f"{where}: no task reloads {selector.text}, and the server's apps can't be listed, so it "
        f"is not known whether there is this app. {error}",
    )


def _rule(
    where: str,
    start: WantedStart,
    found: Sequence[Task],
    tasks: Sequence[Task],
    config: Config,
) -> Iterator[Finding]:
    selector = start.selector
    if not found:
        is_group = selector.kind in ("tag", "property")
        yield Finding(
            "warn" if is_group else "bad",
            f"{where}: the server lists no {selector.text}, so it starts nothing."
            f"{_hint(selector, tasks)} Check the spelling, and whether {_user(config)} may see it.",
            EXIT_CONFIG,
        )
        return
    if (problem := ambiguity(selector, found)) is not None:
        yield Finding("bad", f"{where}: {problem.reason}", EXIT_CONFIG)
        return
    allow = AllowList(config.allow)
    refused = [task for task in found if not allow.allows(task.id, task, lambda: tasks)]
    if refused:
        level = "bad" if len(refused) == len(found) else "warn"
        yield Finding(
            level,
            f"{where}: [allow] does not have {_list(refused)}, so the start is refused.",
            EXIT_CONFIG,
        )
    is_cloud = config.qlik is not None and config.qlik.edition == "cloud"
    full = [task for task in found if not task.partial]
    if start.reload.partial and full and not is_cloud:
        yield Finding(
            "bad" if len(full) == len(found) else "warn",
            f"{where}: {_list(full)} {'makes a' if len(full) == 1 else 'make'} full "
            f"{'reload' if len(full) == 1 else 'reloads'}, so `partial` starts nothing. Set "
            '"Partial reload" in a task of the QMC, and name that one.',
            EXIT_CONFIG,
        )
    disabled = [task for task in found if not task.enabled]
    if disabled:
        yield Finding(
            "warn",
            f"{where}: {_list(disabled)} {'is' if len(disabled) == 1 else 'are'} disabled, and the "
            "server does not start a disabled task. Enable it in the QMC.",
        )


def _allow(
    config: Config, tasks: Sequence[Task], apps: Callable[[], Sequence[Task] | QlikError]
) -> Iterator[Finding]:
    """Entries of ``[allow]`` that allow nothing."""
    allow = config.allow
    entries = [
        *(("tasks", TaskSelector("id", task_id(each) or each)) for each in allow.tasks),
        *(("names", TaskSelector("name", each)) for each in allow.names),
        *(("tags", TaskSelector("tag", each)) for each in allow.tags),
        *(
            ("properties", TaskSelector("property", each.value, each.property))
            for each in allow.properties
        ),
        *(("apps", TaskSelector("app", task_id(each) or each)) for each in allow.apps),
    ]
    for key, selector in entries:
        if find(selector, tasks):
            continue
        without_task = apps() if key == "apps" else ()
        if isinstance(without_task, QlikError):
            yield _unknown_apps(f"[allow] `{key}`", selector, without_task)
        elif not find(selector, without_task):
            yield Finding(
                "warn",
                f"[allow] `{key}`: the server lists no {selector.text}.{_hint(selector, tasks)}",
            )


def _loops(config: Config, tasks: Sequence[Task]) -> Iterator[Finding]:
    """Loops that only the server's list shows."""
    known = [loop.triggers for loop in find_loops(config)]
    for loop in find_loops(config, tasks):
        if not any(triggers <= loop.triggers for triggers in known):
            yield Finding("warn", loop.text)


def _hint(selector: TaskSelector, tasks: Sequence[Task]) -> str:
    """What may be meant instead, as a sentence with a blank before it."""
    by_app = [task for task in tasks if selector.value in (task.app_id.lower(), task.app_name)]
    match selector.kind:
        case "id":
            names = [] if by_app else [task.id for task in tasks]
        case "tag":
            names = [tag for task in tasks for tag in task.tags]
        case "property":
            names = [
                value for task in tasks for key, value in task.properties if key == selector.key
            ]
            if not names:
                names = [key for task in tasks for key, _ in task.properties]
                near = _near(selector.key, names)
                return f' Did you mean the property "{near}"?' if near else ""
        case "app":
            names = [task.app_name for task in tasks if task.app_name]
        case _:
            names = [task.name for task in tasks]
    if near := _near(selector.value, names):
        return f' Did you mean "{near}"?'
    if by_app and selector.kind in ("id", "name"):
        return f" That is an app; it is reloaded by {_list(by_app)}."
    return ""


def _near(text: str, names: Sequence[str]) -> str:
    """The name that differs least; upper and lower case and outer blanks differ least of all."""
    by_folded = {name.strip().casefold(): name for name in names}
    near = difflib.get_close_matches(text.strip().casefold(), by_folded, 1, 0.75)
    return by_folded[near[0]] if near else ""


def _list(tasks: Sequence[Task]) -> str:
    shown = ", ".join(f'"{task.name}" ({task.id})' for task in tasks[:_MOST_NAMED])
    more = f" and {len(tasks) - _MOST_NAMED} more" if len(tasks) > _MOST_NAMED else ""
    return f"{'task' if len(tasks) == 1 else 'tasks'} {shown}{more}"


def _user(config: Config) -> str:
    return config.qlik.user if config.qlik is not None and config.qlik.user else "the user"
