"""A configuration of Butler as text of the appliance's, with what was left out.

Not for: writing it (init.py), nor what is printed about it (report.py).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from appliance.commands.from_butler import (
    chats,
    http_port,
    mail,
    mqtt,
    other_keys,
    qlik_server,
    schedules,
    starts,
    webhooks,
)
from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.findings import Findings
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable, comment_lines
from appliance.commands.from_butler.yaml_tree import Item, read_yaml
from appliance.config.reading import loads
from appliance.errors import ConfigError

_LEVELS = {
    "silly": "debug",
    "debug": "debug",
    "verbose": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
}
_ORDER = (
    "service",
    "listener",
    "bridge",
    "bridge.subscribe",
    "bridge.publish",
    "access",
    "access.rule",
    "qlik",
    "trigger",
    "allow",
    "timer",
    "outcome",
    "notify",
    "http",
)


class Converted(msgspec.Struct, frozen=True):
    """The new configuration."""

    text: str
    secrets: dict[str, str]
    """Files beside it that hold secrets: names and contents."""
    counts: dict[str, int]
    """How many of each table are in effect, by the table's header."""
    findings: Findings


def convert(source: Path, target: Path) -> Converted:
    """Read Butler's file ``source`` for a configuration that will be the file ``target``.

    Raises ``ConfigError``, with the line where there is one, or ``NoPermissionError``.
    """
    return convert_document(read_yaml(source), source, target)


def convert_document(document: Item, source: Path, target: Path) -> Converted:
    """The same, of the file's content; raises ``ConfigError``."""
    butler = document.value.get("Butler") if isinstance(document.value, dict) else None
    if butler is None or not isinstance(butler.value, dict):
        raise ConfigError(
            f"{source}: there is no section Butler with keys below it, so this is no configuration "
            "of Butler; name the file that Butler is started with"
        )
    draft = Draft(target.absolute().parent, source.absolute())
    _take_all(Section(butler, "", draft.findings), draft)
    other_keys.explain(butler, draft.findings)
    text = _text(draft, source)
    try:
        # The files of secrets are not there yet, and no other file is opened.
        loads(text, file=str(target.absolute()))
    except ConfigError as error:
        raise ConfigError(
            f"{source}: a value can't be taken over; change it there, and try again. The "
            f"configuration would have these problems:\n{error}"
        ) from None
    counts: dict[str, int] = {}
    for table in draft.tables:
        if not table.missing and not table.is_comment:
            counts[table.header] = counts.get(table.header, 0) + 1
    return Converted(text, draft.secrets, counts, draft.findings)


def _take_all(butler: Section, draft: Draft) -> None:
    service = draft.add(TomlTable("[service]"))
    draft.add(TomlTable("[access]", {"users_file": "users.txt"})).remarks["users_file"] = (
        "written by: appliance user add NAME"
    )
    http_port.take_rule(butler, draft)
    mqtt.take(butler, draft, frozenset({http_port.port_of(butler)}))
    service.keys = {"name": draft.service_name, "data_dir": "data"}
    level = butler.text("logLevel").lower()
    if _LEVELS.get(level, "info") != "info":
        service.keys["log_level"] = _LEVELS[level]
    qlik_server.take(butler, draft)
    schedules.take(butler, draft)
    starts.take(butler, draft)
    mail.take(butler, draft)
    chats.take(butler, draft)
    webhooks.take(butler, draft)
    http_port.take(butler, draft)


def _text(draft: Draft, source: Path) -> str:
    head = comment_lines(
        f"The configuration of the appliance, made from Butler's {source.name}. "
        "docs/from-butler.md says what became of which key, docs/configuration.md explains every "
        "key. What was not taken over stands at the end."
    )
    ordered = sorted(draft.tables, key=lambda table: _ORDER.index(table.name))
    parts = ["\n".join(head) + "\n", *(table.text() for table in ordered)]
    return "\n".join((*parts, *_left_out(draft.findings)))


def _left_out(findings: Findings) -> list[str]:
    parts = []
    for title, lines in sentences(findings).items():
        text = [f"# {title}"]
        for line in lines:
            text += comment_lines(f"- {line}", "  ")
        parts.append("\n".join(text) + "\n")
    return parts


def sentences(findings: Findings) -> dict[str, list[str]]:
    """What is to be said, by its title: what works in another way, what is left out."""
    said = {
        "Taken over, and different from Butler:": findings.different,
        "Not taken over (keys below Butler):": [
            f"{', '.join(paths)}: {reason}" for reason, paths in findings.left_out.items()
        ],
        "Off in Butler, so not taken over:": [", ".join(findings.off)] if findings.off else [],
    }
    return {title: lines for title, lines in said.items() if lines}
