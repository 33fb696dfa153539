"""Adds a ``[[notify]]`` table whose address stands in a file of its own.

Not for: the addresses (mail.py, chats.py, webhooks.py).
"""

from __future__ import annotations

import re

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable, Value
from appliance.config.tables import NotifyConfig
from appliance.config.values import format_duration
from appliance.errors import ConfigError
from appliance.secret import Secret
from appliance.tasks import notify_urls

EVENTS = {
    "reloadTaskFailure": "failed",
    "reladTaskFailure": "failed",  # so spelled before Butler 5.1
    "reloadTaskAborted": "aborted",
    "reloadTaskSuccess": "succeeded",
}
"""Butler's sections of an event, and the kind of notice."""
_LONGEST_LIMIT_S = 100 * 365 * 86400


_HANDLEBARS = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PLACEHOLDERS = {
    "taskName": "task",
    "taskId": "task_id",
    "appName": "app",
    "appId": "app_id",
    "executionId": "execution_id",
    "logMessage": "reason",
}
"""Fields of Butler's templates, and the placeholders that have the same value."""


def template(event: Section, key: str) -> str:
    """A text of Butler's with the appliance's placeholders.

    Empty if there is none, or if it asks for something that has no placeholder.
    """
    text = event.text(key)
    fields = set(_HANDLEBARS.findall(text))
    if not fields <= _PLACEHOLDERS.keys() or set("{}") & set(_HANDLEBARS.sub("", text)):
        event.leave(key, "it has fields that have no placeholder here; docs/triggers.md has those")
        return ""
    if not text.isprintable():
        event.leave(key, "it has more than one line of visible characters; write it into `text`")
        return ""
    return _HANDLEBARS.sub(lambda match: f"{{{_PLACEHOLDERS[match[1]]}}}", text)


def add(draft: Draft, event: Section, name: str, url: str, keys: dict[str, Value]) -> bool:
    """Add a receiver; returns whether Apprise understands its address.

    ``event`` is Butler's section, ``name`` that of the file without its ending.
    """
    missing = ""
    try:
        notify_urls.require_apprise()
    except ConfigError as error:
        missing = f'Not in effect yet: {error} Then remove the "# " below.'
        draft.findings.differs(
            event.path, "the notice is not in effect yet: Apprise is not installed"
        )
    else:
        if list(notify_urls.problems([NotifyConfig(url=Secret(url))])):
            return False
    file = draft.secret_file(f"notify_{name}", url)
    table = TomlTable("[[notify]]", {"url_file": file, **keys}, missing=missing)
    limit = event.number("rateLimit")
    if limit is not None and 0 < limit < _LONGEST_LIMIT_S:
        table.keys["every"] = format_duration(limit)
    lines = event.number("tailScriptLogLines")
    event.used("headScriptLogLines")
    if lines is not None and lines <= 0:
        table.keys["log"] = "none"
    if not draft.tables or draft.tables[-1].name != "notify":
        table.comment = "Notices, by Apprise. The files hold the addresses, with their passwords."
    draft.add(table)
    return True
