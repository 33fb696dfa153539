"""Rules that turn a message into selectors: which rule matches, and what it asks for.

Not for: whether a message came before (dedup.py), finding the tasks that a selector means
(catalog.py), when they start (planner.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from appliance.config.tables import TriggerConfig
from appliance.errors import ConfigError
from appliance.model import Message, ReloadOptions
from appliance.tasks.conditions import Comparison, Condition
from appliance.tasks.invisible import bare
from appliance.tasks.payloads import Rejection, WantedStart, read_payload
from appliance.tasks.selector import ZERO_ID, TaskSelector, task_id
from appliance.tasks.together import together

DEBOUNCE_MAX_FACTOR = 10
"""``debounce_max`` where a rule has only ``debounce``: a source that never falls quiet must not
keep a task from ever running."""


INTERNAL_ERROR = Rejection("internal error", "An error in the appliance; see its log.")
OWN_OUTCOME = Rejection("own outcome", "A task is not started by its own outcome.")


class Options(msgspec.Struct, frozen=True, array_like=True):
    """How a request is to be carried out. Seconds; a zero means that there is no such wait."""

    debounce_s: float = 0.0
    debounce_max_s: float = 0.0
    cooldown_s: float = 0.0
    if_running: str = "queue_one"
    expire_s: float = 86400.0
    retry_for_s: float = 86400.0
    reload: ReloadOptions = ReloadOptions()


class Trigger:
    """One compiled ``[[trigger]]``."""

    def __init__(self, config: TriggerConfig, number: int) -> None:
        """Compile the rule; raises ``ConfigError`` that names it, the key and the fix."""
        # A plain str: msgspec, which stores names with their requests, takes no subclass.
        self.topic = str(config.topic)
        self.name = config.name or self.topic
        where = f"trigger {number} ({self.name})"
        self.fixed: TaskSelector | None = None
        self._level: int | None = None
        if config.task == "topic":
            self._level = self.topic.split("/").index("+")
        elif config.task != "payload":
            self.fixed = fixed_selector(config.task, where)
        self.when = config.when or {}
        """Its conditions as the configuration has them."""
        self._condition = Condition(config.when, where=where) if config.when else None
        self.asks_for_log = any(key.partition(".")[0] in _OF_LOG for key in config.when or ())
        """Whether it acts on what becomes of a script log, not on the outcome itself."""
        self.fresh_within_s = None if config.fresh_within is None else float(config.fresh_within)
        """Within how many seconds after a message its task's data should be fresh."""
        self.all_or_nothing = config.all_or_nothing
        debounce = float(config.debounce or 0.0)
        self.options = Options(
            debounce_s=debounce,
            debounce_max_s=float(config.debounce_max or debounce * DEBOUNCE_MAX_FACTOR),
            cooldown_s=float(config.cooldown or 0.0),
            if_running=config.if_running,
            expire_s=float(config.expire),
            retry_for_s=float(config.retry_for),
            reload=reload_options(config.partial, config.variables),
        )

    @property
    def identity(self) -> tuple[str, str, str]:
        """Name, topic filter and target: a rule that keeps them keeps its counters."""
        return self.name, self.topic, self.target

    @property
    def target(self) -> str:
        """What it starts, in words."""
        if self.fixed is not None:
            return self.fixed.text
        if self._level is not None:
            return f"the task that level {self._level + 1} of the topic names"
        return "the tasks that the payload names"

    def compare(self, payload: bytes) -> Iterator[Comparison]:
        """What each comparison of its ``when`` says of a payload; nothing without one."""
        return iter(()) if self._condition is None else self._condition.compare(payload)

    def asks_for(self, message: Message) -> tuple[WantedStart, ...] | Rejection:
        """What it asks for on a message that its filter matches, and that meets its ``when``."""
        if self.fixed is None and self._level is None:
            return self._of_payload(message.payload)
        selector = self.fixed
        if self._level is not None:
            named = _selector_of_level(message.topic.split("/")[self._level])
            if isinstance(named, Rejection):
                return named
            selector = named
        assert selector is not None
        return self._joined((WantedStart(selector, self.options.reload),), self.all_or_nothing)

    def _of_payload(self, payload: bytes) -> tuple[WantedStart, ...] | Rejection:
        request = read_payload(payload, self.options.reload)
        if isinstance(request, Rejection):
            return request
        return self._joined(request.starts, self.all_or_nothing or request.all_or_nothing)

    def _joined(
        self,
        starts: tuple[WantedStart, ...],
        all_or_nothing: bool,
    ) -> tuple[WantedStart, ...]:
        """The starts, or one that stands for all of them if none may be made without the others."""
        is_several = len(starts) > 1 or starts[0].selector.kind in ("tag", "property")
        if all_or_nothing and is_several:
            return (together(starts, self.options.reload),)
        return starts

    def options_of(self, start: WantedStart) -> Options:
        """How one of the starts that it asks for is to be carried out."""
        if start.reload == self.options.reload:
            return self.options
        return msgspec.structs.replace(self.options, reload=start.reload)


def reload_options(partial: bool, variables: Mapping[str, str] | None) -> ReloadOptions:
    """The ``partial`` and ``variables`` of a rule or timer, which have passed their checks."""
    return ReloadOptions(partial, tuple(sorted((variables or {}).items())))


def _selector_of_level(level: str) -> TaskSelector | Rejection:
    found = task_id(level)
    if found == ZERO_ID:
        return Rejection("zero id", "The topic names the zero id, which is no task.")
    if found is not None:
        return TaskSelector("id", found)
    if not bare(level):
        return Rejection("empty level", "The level of the topic that names the task is empty.")
    return TaskSelector("name", level)


def fixed_selector(task: str | Mapping[str, str], where: str) -> TaskSelector:
    """Read the ``task`` of a rule that names one; raises ``ConfigError`` with ``where`` in it."""
    if isinstance(task, str):
        found = task_id(task)
        if found is None or found == ZERO_ID:
            raise ConfigError(
                f'{where}: task = "{task}" is neither "payload" nor "topic" nor a task id. '
                'To name a task, write task = {name = "..."}.'
            )
        return TaskSelector("id", found)
    match dict(task):
        case {"name": str(name), **rest} if not rest and name.strip():
            return TaskSelector("name", name)
        case {"tag": str(tag), **rest} if not rest and tag.strip():
            return TaskSelector("tag", tag)
        case {"property": str(key), "value": str(value), **rest} if not rest and key.strip():
            return TaskSelector("property", value, key)
        case {"app": str(app), **rest} if not rest and app.strip():
            return TaskSelector("app", task_id(app) or app)
    raise ConfigError(
        f"{where}: task must be {{name = ...}}, {{tag = ...}}, {{property = ..., value = ...}} "
        "or {app = ...}, with text in it."
    )


class _ToldAgain(msgspec.Struct):
    """What an outcome has that is published once more, with its script log."""

    logTail: list[str] = []  # noqa: N815  the key in the payload
    logProblem: str = ""  # noqa: N815  the key in the payload


_OF_LOG = frozenset(_ToldAgain.__struct_fields__)
_read_told_again = msgspec.json.Decoder(_ToldAgain).decode


def is_told_again(message: Message) -> bool:
    """Whether one of the appliance's own messages repeats an outcome that was told before.

    A rule acted on it then: a run that fails once must not start its successor twice.
    """
    try:
        again = _read_told_again(message.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return bool(again.logTail or again.logProblem)
