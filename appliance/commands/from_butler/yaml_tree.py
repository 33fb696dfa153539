"""Reads a YAML file into plain values that know their line. Bounded, and never runs anything.

Values are those of YAML's core schema (YAML 1.2.2, section 10.3), as Butler's own reader has them:
``Yes`` and ``on`` are texts. Not for: what a key means (section.py and the modules above it).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

from appliance.config.problems import shown
from appliance.config.reading import decode
from appliance.errors import ConfigError, NoPermissionError
from appliance.storage import files

Scalar = str | int | float | bool | None

_LARGEST_FILE = 512 * 1024
"""Bytes. Butler's own template has 80 KB."""
_MOST_VALUES = 50_000
"""Values of a file, those of an alias counted each time: a few lines can stand for billions."""
_DEEPEST = 40
_LONGEST_NUMBER = 30
_PLAIN = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TEXT_TAG = "tag:yaml.org,2002:str"
_OWN_TAGS = (_TEXT_TAG, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class Item(msgspec.Struct, frozen=True):
    """A value of the file, and its line, counted from 1."""

    value: Scalar | tuple[Item, ...] | dict[str, Item]
    line: int = 0


def read_yaml(path: Path) -> Item:
    """The content of the file.

    Raises ``ConfigError``, with the line where there is one, or ``NoPermissionError``.
    """
    try:
        with files.open_to_read(path) as file:
            data = file.read(_LARGEST_FILE + 1)
    except PermissionError:
        raise NoPermissionError(f"{path}: this user may not read it; change its rights") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: it can't be read: {reason}; name Butler's file") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{path}: longer than 512 KiB, so this is no configuration of Butler")
    return parse_yaml(decode(data, str(path)), str(path))


def parse_yaml(text: str, file: str) -> Item:
    """The content of a text; raises ``ConfigError`` with the line, for messages that name it."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return Item(None) if node is None else _Converter(file).item(node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else file
        raise ConfigError(f"{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason = str(getattr(error, "reason", "")) or "it can't be read"
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ConfigError(f"{file}, line {line}: not YAML: {reason}") from None
    except RecursionError:
        raise ConfigError(f"{file}: values are nested too deeply") from None


class _Loader(yaml.BaseLoader):
    """Makes no objects: every scalar is its text. Its work grows with the square of the depth."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        self._refuse_depth(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        self._refuse_depth(len(self.indents))
        return super().add_indent(column)

    def _refuse_depth(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem="values are nested too deeply", problem_mark=self.get_mark()
            )


class _Converter:
    """Makes items of YAML's nodes, and counts them."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = _MOST_VALUES

    def item(self, node: yaml.Node, depth: int) -> Item:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise ConfigError(
                f"{self._file}, line {line}: more than {_MOST_VALUES} values, aliases counted each "
                "time; this is no configuration of Butler"
            )
        if depth > _DEEPEST:
            raise ConfigError(f"{self._file}, line {line}: values are nested too deeply")
        if node.tag not in _OWN_TAGS:
            raise ConfigError(
                f"{self._file}, line {line}: the tag {shown(node.tag)} is not read; write the value"
                " without it"
            )
        if isinstance(node, yaml.ScalarNode):
            return Item(_scalar(node), line)
        if isinstance(node, yaml.SequenceNode):
            return Item(tuple(self.item(each, depth + 1) for each in node.value), line)
        return Item(self._mapping(node, depth), line)

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Item]:
        found: dict[str, Item] = {}
        merged: dict[str, Item] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{self._file}, line {line}: a key is one word; correct the line")
            item = self.item(value, depth + 1)
            name = _valid(key.value)
            if name == "<<" and key.style is None:
                merged = {**_merged(item), **merged}
            elif name in found:
                raise ConfigError(
                    f"{self._file}, line {line}: the key {shown(name)} stands in line "
                    f"{found[name].line} already; keep one of the two"
                )
            else:
                found[name] = item if item.line else Item(item.value, line)
        return {**merged, **found}


def _merged(item: Item) -> dict[str, Item]:
    if isinstance(item.value, dict):
        return item.value
    if not isinstance(item.value, tuple):
        return {}
    several: dict[str, Item] = {}
    for each in reversed(item.value):
        several.update(_merged(each))
    return several


def _scalar(node: yaml.ScalarNode) -> Scalar:
    text = _valid(node.value)
    if node.style is not None:  # quoted, or a block
        return text
    if text in _PLAIN:
        return _PLAIN[text]
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _valid(text: str) -> str:
    """The text without halves of characters, which no file could hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
