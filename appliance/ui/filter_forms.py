"""The filter language as a table, for the help: each form with an example and what it means.

Not for: reading a filter (filter_text.py); the tests read each example with it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from appliance.model import ExecutionState
from appliance.ui.filters import GROUPS


class Form(NamedTuple):
    """One way to ask."""

    word: str
    """What is asked for, of ``filter_text.WORDS``; a page may not have it."""
    example: str
    meaning: str


FORMS = (
    Form("text", "pump", "has this text, in capitals or not"),
    Form("text", '"two words"', 'has this text with its blanks; "" for a quote in it'),
    Form("text", "!pump", "does not have it; ! goes before topics and names too"),
    Form("topic", "plant/+/state", "a topic filter, with + or #; several are alternatives"),
    Form("topic", "topic:plant/1", "a topic without wildcards"),
    Form("client", "client:plc-*", "a part of the client id; * for any characters"),
    Form("client", "client=plc-07", "the whole client id"),
    Form("user", "user:anna", "a part of the user's name; user=anna for the whole"),
    Form("task", "task:sales", "a part of the task's name or id; task= for the whole"),
    Form("rule", "rule:stock", "a part of the rule's or timer's name; rule= for the whole"),
    Form("state", "state:failed", "what became of it; several are alternatives"),
    Form("since", "since:10m", "not older than that: 30s, 10m, 2h, 1d, 14:03, or a date"),
    Form("until", "until:14:03", "before that time"),
)

STATES = (*GROUPS, *(state.value for state in ExecutionState))
"""What can stand behind ``state:``."""


def of(words: Collection[str]) -> list[Form]:
    """The forms of a page that can be asked for ``words``."""
    return [form for form in FORMS if form.word in words]
