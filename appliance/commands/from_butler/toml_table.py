"""A table of the new file as text, with its comments.

Not for: what stands in it.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence

import msgspec

from appliance.log.sanitize import escape

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]

_WIDTH = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_COMMENT_AT = 32
"""The column of comments behind values, as in the example of ``appliance init``."""


class TomlTable(msgspec.Struct):
    """A table with its keys, in order."""

    header: str
    """With brackets."""
    keys: dict[str, Value] = msgspec.field(default_factory=dict)
    remarks: dict[str, str] = msgspec.field(default_factory=dict)
    """Comments behind keys."""
    comment: str = ""
    """Above the table."""
    missing: str = ""
    """Why the table is a comment, if it is one."""
    is_comment: bool = False
    """Whether it is a comment because one above it is."""

    @property
    def name(self) -> str:
        """The header without brackets."""
        return self.header.strip("[]")

    def text(self) -> str:
        """The lines of the table."""
        lines = [self.header]
        for key, value in self.keys.items():
            line = f"{key} = {toml(value)}"
            if remark := self.remarks.get(key):
                line = f"{line:<{_COMMENT_AT - 1}} # {escape(remark)}"
            lines.append(line)
        if self.missing or self.is_comment:
            lines = [f"# {line}" for line in lines]
        above = " ".join(each for each in (self.comment, self.missing) if each)
        return "".join(f"{line}\n" for line in (*comment_lines(above), *lines))


def comment_lines(text: str, indent: str = "") -> list[str]:
    """Lines of a comment, at most 100 characters each where words allow."""
    return textwrap.wrap(
        escape(text),
        _WIDTH,
        initial_indent="# ",
        subsequent_indent=f"# {indent}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def toml(value: Value) -> str:
    """A value as TOML writes it (toml.io, version 1.0)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {toml(each)}" for key, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    return "[" + ", ".join(toml(each) for each in value) + "]"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    # JSON's escapes are among those of TOML, except that it leaves DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
