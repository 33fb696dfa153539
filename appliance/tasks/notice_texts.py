"""The words of a notice: the usual ones, or those of a template.

Names, topics and reasons come from others. Each is put in on one line, with all that a terminal
acts on written out; Apprise escapes what a service would take for HTML or Markdown. Only the reason
and the script log keep their line breaks, and only in the text.
Not for: what a notice is about (notice.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.config.placeholders import OF_EXECUTIONS, Template, read_template
from appliance.config.tables import NotifyConfig
from appliance.log.sanitize import escape
from appliance.model import Execution, Task
from appliance.tasks.notice import Notice
from appliance.tasks.placeholder_values import cause_text, values_of

_LONGEST_TITLE = 250
"""Characters; services take different numbers, and a subject is one line."""
_OF_SEVERAL_LINES = frozenset({"reason", "log"})


class NoticeTexts:
    """Makes title and text of the notices of one ``[[notify]]``."""

    def __init__(self, config: NotifyConfig, appliance: str) -> None:
        """Raises ``ValueError`` if a template has a placeholder that is none."""
        self._title = read_template(config.title, OF_EXECUTIONS) if config.title else None
        self._text = read_template(config.text, OF_EXECUTIONS) if config.text else None
        self._lines = config.log_lines if config.log != "none" else 0
        self._appliance = appliance

    @property
    def need_app(self) -> bool:
        """Whether they name the app, which only the server's list of tasks has."""
        names = {name for one in (self._title, self._text) if one is not None for name in one.names}
        return not names.isdisjoint({"app", "app_id"})

    def title(self, notice: Notice, task: Task | None) -> str:
        """The title, on one line."""
        if self._title is None:
            found = usual_title(notice, task)
        else:
            # A service may take no notice without a title and a text.
            found = self._fill(self._title, notice, task, is_title=True) or usual_title(
                notice, task
            )
        return found if len(found) <= _LONGEST_TITLE else f"{found[: _LONGEST_TITLE - 1]}…"

    def text(self, notice: Notice, task: Task | None, *, is_log_attached: bool = False) -> str:
        """The text. A log that is attached is not in it, unless the template has it."""
        if self._text is None:
            return usual_text(notice, 0 if is_log_attached else self._lines)
        return self._fill(self._text, notice, task, is_title=False)

    def _fill(
        self, template: Template, notice: Notice, task: Task | None, *, is_title: bool
    ) -> str:
        values: Mapping[str, str] = values_of(notice.execution, task, self._appliance)
        log = _tail(notice.execution, self._lines)
        return template.fill(
            {
                name: _lines_of([value])
                if name in _OF_SEVERAL_LINES and not is_title
                else escape(value)
                for name, value in {**values, "log": "\n".join(log)}.items()
            }
        )


def usual_title(notice: Notice, task: Task | None) -> str:
    """For example ``"Reload sales failed"``."""
    execution = notice.execution
    known = task.name if task else ""
    name = escape(execution.task_name or known or execution.task_id or "A task")
    match notice.kind:
        case "recovered":
            return f"{name} succeeds again"
        case "stale":
            return f"{name} is stale"
        case "slow":
            return f"{name} takes longer than usual"
        case "lost":
            return f"{name}: outcome lost"
        case _:
            return f"{name} {execution.state.value}"


def usual_text(notice: Notice, log_lines: int) -> str:
    """Why, who asked for it, what ran, and so many lines of the script log at most."""
    execution = notice.execution
    lines = [execution.reason] if execution.reason else []
    if notice.kind == "slow" and execution.usual_s is not None:
        lines.append(f"It usually takes {execution.usual_s:.0f} s.")
    if notice.kind == "stale":
        # Not an outcome of one request: the reason has all there is to say.
        return _lines_of([*lines, f"Task {execution.task_id}"])
    by = "" if execution.cause.kind == "http" else "by "
    lines.append(f"Asked for {by}{escape(cause_text(execution.cause))}")
    lines.append(f"Task {execution.task_id}, execution {execution.id}")
    lines += _tail(execution, log_lines)
    if log_lines and execution.log_problem:
        lines.append(f"There is no script log: {execution.log_problem}")
    return _lines_of(lines)


def _tail(execution: Execution, lines: int) -> Sequence[str]:
    return execution.log_tail[-lines:] if lines else ()


def _lines_of(texts: Sequence[str]) -> str:
    """Texts of one or several lines, each line made safe."""
    return "\n".join(escape(line) for text in texts for line in text.splitlines())
