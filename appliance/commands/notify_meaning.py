"""What a ``[[notify]]`` means in plain words.

Not for: the rules about its keys (config/notify_checks.py), its URL (tasks/notify_urls.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.config.tables import NotifyConfig
from appliance.config.values import format_duration


def notify_meaning(notify: NotifyConfig) -> str:
    """One line: what is told, of which tasks, to whom, how often, and with which log."""
    return "; ".join(_parts(notify))


def _parts(notify: NotifyConfig) -> Iterator[str]:
    # Only the kind of service: the rest of the URL is secret.
    url = "" if notify.url is None else notify.url.reveal().partition(":")[0]
    yield f"{' or '.join(notify.on)}, by {url or notify.url_file}"
    if notify.tasks:
        yield f"tasks {', '.join(notify.tasks)}"
    marks = [f"tag {tag}" for tag in notify.tags]
    marks += [f"{one.property} = {one.value}" for one in notify.properties]
    if marks:
        yield f"only tasks with {' or '.join(marks)}"
    receivers = [f"who stands in {notify.to_property}"] if notify.to_property else []
    receivers += ["the owner of the app"] if notify.to_owner else []
    if receivers:
        yield f"to {' and '.join(receivers)}" + (" too" if notify.to_url else " only")
    often = f", {format_duration(notify.every)} apart for each task" if notify.every else ""
    yield f"at most {notify.at_most} an hour{often}"
    if notify.log == "attach":
        yield "with the script log attached"
