"""Rules about ``[[notify]]``: which keys go together, and the placeholders of its texts.

Not for: the URL itself, which Apprise understands or not (tasks/notify_urls.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.config.placeholders import OF_EXECUTIONS, read_template
from appliance.config.problems import shown
from appliance.config.tables import NotifyConfig

Found = Iterator[tuple[str, ...]]
"""A key, what is wrong with it, and the keys that the rule depends on."""


def notify_problems(notify: NotifyConfig) -> Found:
    """Every rule that one table breaks."""
    if (notify.url is None) == (notify.url_file is None):
        text = "write the address in `url` or in `url_file`, not in both"
        yield "url_file", text, "url", "url_file"
    if not notify.on:
        yield "on", "an empty list tells nobody of anything; name a kind, or remove the table", "on"
    for key in ("title", "text"):
        try:
            read_template(getattr(notify, key), OF_EXECUTIONS)
        except ValueError as error:
            yield key, f"value {shown(getattr(notify, key))}: {error}", key
    if not (notify.to_url or notify.to_property or notify.to_owner):
        text = "nobody would be told; add `to_property` or `to_owner`, or leave it out"
        yield "to_url", text, "to_property", "to_owner"
    if not notify.title.isprintable():
        yield (
            "title",
            "a title is one line of visible characters; put the rest into `text`",
            "title",
        )
