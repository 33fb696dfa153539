"""What an ``[[outcome]]`` says: its topic, when it is published, and what is wrong with it.

Not for: what is published (tasks/outcome_forms.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.config.placeholders import OF_EXECUTIONS, has_names, read_template
from appliance.config.problems import shown
from appliance.config.tables import LimitsConfig, OutcomeConfig, OutcomeKind
from appliance.mqtt.topics import reserved_problem, topic_problem

PLACEHOLDERS = tuple(name for name in OF_EXECUTIONS if name != "log")
"""What stands in braces in ``topic``, ``text`` and the values of ``fields``. The end of a script
log comes after the outcome."""
LONGEST_VALUE = 200
"""Bytes that a placeholder's value takes in a topic at most."""
_LONGEST = "x" * LONGEST_VALUE
_BUTLER = "qliksense/"
_OWN = ("json", "name", "text")
OUTCOME_KEYS = {key: ("form", key) for key in ("topic", "text", "fields")}
"""The keys that a problem with a key depends on."""


def is_butlers(outcome: OutcomeConfig) -> bool:
    """Whether its form is one of Butler's."""
    return outcome.form not in _OWN


def topic_of(outcome: OutcomeConfig) -> str:
    """Its topic, with placeholders; empty if it has none."""
    if outcome.topic is None and is_butlers(outcome):
        return _BUTLER + outcome.form
    return outcome.topic or ""


def states_of(outcome: OutcomeConfig) -> tuple[OutcomeKind, ...]:
    """The outcomes that it is published for."""
    if outcome.on:
        return outcome.on
    return ("aborted",) if outcome.form.startswith("task_aborted") else ("failed",)


def outcome_problems(
    outcome: OutcomeConfig, limits: LimitsConfig, service_name: str
) -> Iterator[tuple[str, str]]:
    """Each problem: a key of the table, and a text with what is wrong and the fix."""
    if not topic_of(outcome):
        yield "topic", 'this key is missing; write for example "outcomes/{state}/{task}"'
    elif problem := _topic_problem(topic_of(outcome), limits, service_name):
        yield "topic", f"value {shown(topic_of(outcome))}: {problem}"
    if (outcome.form == "text") != bool(outcome.text):
        text = (
            'this key is missing; write for example "{task} {state}: {reason}"'
            if outcome.form == "text"
            else 'it belongs to form = "text"; remove it, or change `form`'
        )
        yield "text", text
    if outcome.fields is not None and outcome.form != "json":
        yield "fields", 'it belongs to form = "json"; remove it, or change `form`'
    elif outcome.fields is not None and not outcome.fields:
        yield "fields", 'it has no member; write for example {Task = "{task}"}, or remove it'
    for key, texts in (("text", [outcome.text]), ("fields", (outcome.fields or {}).values())):
        for text in texts:
            if problem := _placeholder_problem(text):
                yield key, f"value {shown(text)}: {problem}"


def _placeholder_problem(text: str) -> str | None:
    try:
        read_template(text, PLACEHOLDERS)
    except ValueError as error:
        return str(error)
    return None


def _topic_problem(topic: str, limits: LimitsConfig, service_name: str) -> str | None:
    if problem := _placeholder_problem(topic):
        return problem
    first = topic.partition("/")[0]
    if has_names(first):
        return (
            "its first level has no placeholder, so that no name leads into other topics; write"
            ' for example "outcomes/{task}"'
        )
    longest = read_template(topic, PLACEHOLDERS).fill(dict.fromkeys(PLACEHOLDERS, _LONGEST))
    if problem := topic_problem(longest) or reserved_problem(longest, service_name):
        return problem
    size, most = len(longest.encode()), int(limits.max_topic_length)
    if size > most:
        return (
            f"with values of {LONGEST_VALUE} bytes it has {size} bytes, and [limits]"
            f" max_topic_length is {most}; use fewer placeholders, or raise the limit"
        )
    if longest.count("/") >= limits.max_topic_levels:
        return f"it has more than {limits.max_topic_levels} levels, [limits] max_topic_levels"
    return None
