"""``slackNotification`` and ``teamsNotification``: receivers in chats.

Not for: Butler's call that posts to Slack, which the appliance does not have (other_keys.py).
"""

from __future__ import annotations

import re
from urllib.parse import quote

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.receivers import EVENTS, add, template
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import Value

_SLACK = re.compile(r"https://hooks\.slack\.com/services/(\w+/\w+/\w+)/?")


def take(butler: Section, draft: Draft) -> None:
    """Add a receiver for each kind of event that Butler posts about."""
    for name, service in (("slackNotification", "slack"), ("teamsNotification", "teams")):
        chat = butler.section(name)
        if not chat.enabled():
            continue
        for event_name, kind in EVENTS.items():
            event = chat.section(event_name)
            if not event.enabled():
                continue
            hook = event.text("webhookURL")
            url = _slack(event, hook) if service == "slack" else hook
            keys: dict[str, Value] = {"on": [kind]}
            if event.text("messageType").lower() != "basic":
                event.leave("basicMsgTemplate", "it counts only with messageType basic")
            elif text := template(event, "basicMsgTemplate"):
                keys["text"] = text
            if not url or not add(draft, event, f"{service}_{kind}", url, keys):
                draft.findings.leave(
                    event.path,
                    "its webhookURL is not one of the service that Apprise knows; write [[notify]] "
                    "with an address of Apprise",
                )


def _slack(event: Section, hook: str) -> str:
    """Apprise's address of a webhook, with the name and the channel that Butler sends."""
    match = _SLACK.fullmatch(hook)
    if match is None:
        return ""
    sender, channel = event.text("fromUser"), event.text("channel").lstrip("#")
    name = f"{quote(sender, safe='')}@" if sender else ""
    where = f"/{quote(f'#{channel}', safe='')}" if channel else ""
    return f"slack://{name}{match[1]}{where}"
