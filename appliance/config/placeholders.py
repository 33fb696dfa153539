"""Texts with placeholders in braces: the title of a notice, the topic of an outcome.

``{task} {state}``: each name in braces stands for a value. Braces around anything that is no name
(``{1}``, ``{"a": 2}``) are text. There is nothing else: no attributes, no formats, no nesting, so a
value of others is only ever put in, never read as a template.
Not for: the values (tasks/placeholder_values.py); paths of recorders (path_placeholders.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

import msgspec

OF_EXECUTIONS: Mapping[str, str] = {
    "task": "the task's name, or its id where the name is not known",
    "task_id": "the task's id",
    "app": "the name of the app that the task reloads",
    "app_id": "the app's id",
    "state": "`succeeded`, `failed`, `aborted`, ...",
    "reason": "why it ended so; empty after a success",
    "execution": "the appliance's number of the execution",
    "execution_id": "Qlik's id of the run; empty if nothing ran",
    "requested": "when it was asked for, as ISO 8601 in UTC",
    "started": "when the run began, likewise; empty if nothing ran",
    "ended": "when the run ended, likewise",
    "duration": "how long it ran, in seconds, for example `12.5`; empty if nothing ran",
    "node": "the node of the Qlik server that ran it, where the server says so",
    "attempts": "how often the start call was made",
    "cause": "what asked for it, in words: `message 7 on plant/x from plc-1`, `timer nightly`",
    "topic": "the topic of the message that asked for it; empty if none did",
    "client": "the client that published this message",
    "rule": "the trigger or timer, or the operator",
    "log": "the last lines of the script log of a failed reload",
    "appliance": "`name` of `[service]`",
}
"""What stands in a text about an execution: each name, and what it is replaced by."""

_NAME = re.compile(r"\{([^\W\d][\w-]*)\}")
_SIMILAR = 0.6


class Placeholder(msgspec.Struct, frozen=True):
    """What is replaced by the value of this name."""

    name: str


class Template(msgspec.Struct, frozen=True):
    """A text with placeholders."""

    pieces: tuple[str | Placeholder, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of its placeholders."""
        return frozenset(one.name for one in self.pieces if isinstance(one, Placeholder))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with these values; what they have in braces stays as it is."""
        return "".join(one if isinstance(one, str) else values[one.name] for one in self.pieces)


def read_template(text: str, known: Collection[str]) -> Template:
    """Take a text apart.

    Args:
        text: as it stands in the configuration.
        known: the names that it may have.

    Raises:
        ValueError: it has another name; the text says which, and what to do.
    """
    pieces: list[str | Placeholder] = []
    for piece in split_at_names(text):
        if not isinstance(piece, str) and piece[1] not in known:
            raise ValueError(unknown_name(piece[1], tuple(known), "there are"))
        pieces.append(piece if isinstance(piece, str) else Placeholder(piece[1]))
    return Template(tuple(pieces))


def split_at_names(text: str) -> Iterator[str | re.Match[str]]:
    """The pieces of a text: what is written, and a match for each name in braces (its group 1)."""
    end = 0
    for found in _NAME.finditer(text):
        if found.start() > end:
            yield text[end : found.start()]
        yield found
        end = found.end()
    if end < len(text):
        yield text[end:]


def has_names(text: str) -> bool:
    """Whether a text has a name in braces."""
    return _NAME.search(text) is not None


def unknown_name(name: str, known: tuple[str, ...], those_are: str, advice: str = "") -> str:
    """What to say of a name that is none: the one that it is near to, or all of them.

    ``those_are`` goes before the list, for example ``"those of this recorder are"``, and ``advice``
    is a sentence that goes behind it.
    """
    said = f"{{{name}}} is no placeholder"
    near = difflib.get_close_matches(name.lower(), known, 1, _SIMILAR)
    if near:
        return f"{said}; did you mean {{{near[0]}}}?"
    listed = f"{said}; {those_are} {', '.join(f'{{{each}}}' for each in known)}"
    return f"{listed}. {advice}" if advice else listed
