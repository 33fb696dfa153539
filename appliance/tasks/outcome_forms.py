"""``[[outcome]]``: outcomes on topics and in forms that the configuration says (docs/triggers.md).

Butler's forms have the members that its release 16 publishes, so that subscribers go on. A task's
name is text from outside: in a topic it is one level and no more.

Not for: the appliance's own topics (outcomes.py), or asking the server (outcome_lookup.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from appliance.config.outcome_topics import (
    LONGEST_VALUE,
    PLACEHOLDERS,
    is_butlers,
    states_of,
    topic_of,
)
from appliance.config.placeholders import Template, read_template
from appliance.config.tables import OutcomeConfig
from appliance.model import Execution, Task, TaskKind
from appliance.qlik import rows
from appliance.qlik.server import FullTask
from appliance.tasks.outcome_lookup import OutcomeLookup
from appliance.tasks.outcomes import describe
from appliance.tasks.placeholder_values import values_of
from appliance.tasks.store import Publication

_REPLACED = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *map(ord, "/+#")), "_")
"""What a level of a topic can't have, or what could not be read there."""
_NO_VALUE = "_"
_CUT = "~"
_NUMBERS = frozenset({"execution", "attempts", "duration"})
"""Placeholders whose value is a number where it stands alone in a member of an object."""
_NOTHING = FullTask({}, {})


class OutcomeForm:
    """One compiled ``[[outcome]]``."""

    def __init__(self, config: OutcomeConfig, service_name: str) -> None:
        """``config`` has passed its checks."""
        self._config = config
        self._service_name = service_name
        self._topic = read_template(topic_of(config), PLACEHOLDERS)
        self._text = read_template(config.text, PLACEHOLDERS)
        self._fields = {
            name: read_template(text, PLACEHOLDERS) for name, text in (config.fields or {}).items()
        }
        self.states = frozenset(states_of(config))
        self._patterns = tuple(pattern.casefold() for pattern in config.tasks)
        self._is_butlers = is_butlers(config)

    @property
    def first_level(self) -> str:
        """Of its topic; it has no placeholder."""
        return topic_of(self._config).partition("/")[0]

    @property
    def is_json(self) -> bool:
        """Whether the payload is an object."""
        return self._config.form == "json" or self.wants_full_task

    @property
    def is_name(self) -> bool:
        """Whether the payload is the task's name and no more."""
        return self._config.form in ("name", "task_failure", "task_aborted")

    @property
    def wants_full_task(self) -> bool:
        """Whether it has the task as the server has it."""
        return self._config.form.endswith("_full")

    def concerns(self, execution: Execution, task: Task | None) -> bool:
        """Whether it is published for an execution that has ended.

        Butler's forms tell of reloads that the server began, as Butler does.
        """
        if execution.state.value not in self.states or not execution.task_id:
            return False
        if self._is_butlers and not (
            execution.execution_id and (task is None or task.kind is TaskKind.RELOAD)
        ):
            return False
        names = (_name(execution, task).casefold(), execution.task_id)
        return not self._patterns or any(
            fnmatchcase(name, pattern) for name in names for pattern in self._patterns
        )

    def topic(self, execution: Execution, task: Task | None) -> str:
        """The topic for an execution."""
        values = self._values(execution, task)
        return self._topic.fill({name: _level(values[name]) for name in self._topic.names})

    def _values(self, execution: Execution, task: Task | None) -> dict[str, str]:
        named = msgspec.structs.replace(execution, task_name=_name(execution, task))
        values = values_of(named, task, self._service_name)
        # A lone surrogate can't be sent.
        return {name: one.encode(errors="replace").decode() for name, one in values.items()}

    def payload(self, execution: Execution, task: Task | None, full: FullTask = _NOTHING) -> bytes:
        """What is published."""
        values = self._values(execution, task)
        match self._config.form:
            case _ if self.is_name:
                return values["task"].encode()
            case "text":
                return self._text.fill(values).encode()
            case "json" if self._fields:
                members = {name: _member(one, values) for name, one in self._fields.items()}
                return msgspec.json.encode(members)
            case "json":
                return msgspec.json.encode(describe(execution))
            case form:
                has_app = form == "task_aborted_full"
                return msgspec.json.encode(_of_butler(execution, task, full, has_app=has_app))

    def publication(self, execution: Execution, task: Task | None, full: FullTask) -> Publication:
        """The message about an execution that it concerns."""
        return Publication(
            self.topic(execution, task),
            self.payload(execution, task, full),
            self._config.retain,
            content_type="application/json" if self.is_json else "",
            qos=self._config.qos,
            task=execution.task_id,
        )


class OutcomeForms:
    """All ``[[outcome]]`` tables.

    ``of`` is called under the state store's lock, ``before_ends`` in the poller's thread.
    """

    def __init__(
        self,
        configs: Sequence[OutcomeConfig],
        service_name: str,
        known: Callable[[str], Task | None],
        lookup: OutcomeLookup | None = None,
        set_aside: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            configs: the tables.
            service_name: ``[service] name``.
            known: gives a task as the cached list has it.
            lookup: asks the server, if there is one.
            set_aside: called within the handling of an exception that left out what it is given.
        """
        self._service_name = service_name
        self.take(configs)
        self._known = known
        self._lookup = lookup
        self._set_aside = set_aside

    def take(self, configs: Sequence[OutcomeConfig]) -> None:
        """Let other tables count from now on."""
        self._forms = tuple(OutcomeForm(one, self._service_name) for one in configs)

    def before_ends(self, ended: Sequence[Execution]) -> None:
        """Ask the server for what is to be told of executions whose end is noted next."""
        if self._lookup is not None:
            states = {state for one in self._forms for state in one.states}
            told = [one for one in ended if one.state.value in states]
            self._lookup.ask(told, self._is_in_full)

    def _is_in_full(self, execution: Execution) -> bool:
        task = self._known(execution.task_id)
        return any(one.concerns(execution, task) for one in self._forms if one.wants_full_task)

    def of(self, execution: Execution) -> list[Publication]:
        """The messages about an execution that has ended, in the order of the configuration."""
        if not self._forms:
            return []
        task = self._known(execution.task_id)
        full = self._lookup and self._lookup.of(execution.task_id)
        found = []
        for number, one in enumerate(self._forms, 1):
            try:
                if one.concerns(execution, task):
                    found.append(one.publication(execution, task, full or _NOTHING))
            except Exception:  # noqa: BLE001 - a defect here must not silence all else
                self._set_aside(f"[[outcome]] {number} about execution {execution.id}")
        return found


def _name(execution: Execution, task: Task | None) -> str:
    """The task's name; its id if that is not known."""
    return execution.task_name or ("" if task is None else task.name) or execution.task_id


def _member(template: Template, values: Mapping[str, str]) -> object:
    """What stands alone and is a number stays one."""
    text = template.fill(values)
    if len(template.pieces) == 1 and not template.names.isdisjoint(_NUMBERS):
        return msgspec.json.decode(text) if text else None
    return text


def _level(value: str) -> str:
    """A value as one level of a topic, not empty and of ``LONGEST_VALUE`` bytes at most."""
    text = value.translate(_REPLACED)
    encoded = text.encode()
    if len(encoded) > LONGEST_VALUE:
        text = encoded[: LONGEST_VALUE - len(_CUT)].decode(errors="ignore") + _CUT
    return text or _NO_VALUE


def _of_butler(
    execution: Execution, task: Task | None, full: FullTask, *, has_app: bool
) -> dict[str, Any]:
    """The members of Butler's ``task_failure_full`` and ``task_aborted_full``, in its order.

    ``user`` is not known. ``logLevel``, ``logMessage`` and ``logTimeStamp`` are those of a line of
    Qlik's log there; here, the time is that of the end, local as in that log.
    """
    ended_ns = execution.ended_ns or execution.requested_ns
    # By way of UTC: Windows finds no zone for a local time on the first day of 1970.
    moment = datetime.fromtimestamp(ended_ns // 1_000_000_000, UTC).astimezone()
    made: dict[str, Any] = {
        "hostName": execution.node,
        "user": "",
        "taskName": _name(execution, task),
        "taskId": execution.task_id,
        "appName": "" if task is None else task.app_name,
        "appId": "" if task is None else task.app_id,
        "logTimeStamp": f"{moment:%Y-%m-%d %H:%M:%S},{ended_ns // 1_000_000 % 1000:03d}",
        "logLevel": "WARN",
        "executionId": execution.execution_id,
        "logMessage": execution.reason,
        "qs_appTags": rows.tags(full.app),
        "qs_appCustomProperties": _members(rows.properties(full.app)),
        "qs_taskTags": task.tags if task and not full.task else rows.tags(full.task),
        "qs_taskCustomProperties": _members(
            task.properties if task and not full.task else rows.properties(full.task)
        ),
        "qs_taskMetadata": full.task,
    }
    if has_app:
        made["qs_appMetadata"] = full.app
    return made


def _members(properties: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in properties]
