"""``webhookNotification``: receivers that are called by HTTP.

Not for: webhooks about Windows services and licences (other_keys.py).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.receivers import add
from appliance.commands.from_butler.section import Section

_EVENTS = {"reloadTaskFailure": "failed", "reloadTaskAborted": "aborted"}
_METHODS = ("GET", "POST", "PUT")


def take(butler: Section, draft: Draft) -> None:
    """Add a receiver for each webhook that Butler calls about reloads."""
    webhooks = butler.section("webhookNotification")
    if not webhooks.enabled():
        return
    for event_name, kind in _EVENTS.items():
        event = webhooks.section(event_name)
        event.used("rateLimit")
        for hook in event.sections("webhooks"):
            hook.used("description")
            url = _address(hook)
            if not url or not add(draft, event, f"webhook_{kind}", url, {"on": [kind]}):
                draft.findings.leave(hook.path, "its webhookURL is not an http or https address")
                continue
            draft.findings.differs(
                hook.path,
                "the receiver gets Apprise's fields (title, message, type), not Butler's; for a "
                "program, a message by [[outcome]] has every field",
            )
            _certificate(hook.section("cert"))


def _address(hook: Section) -> str:
    """Apprise's address: ``json`` for a body, ``form`` for the query of a GET."""
    method = hook.text("httpMethod").upper() or "POST"
    try:
        parts = urlsplit(hook.text("webhookURL"))
        _ = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or method not in _METHODS:
        return ""
    kind = "form" if method == "GET" else "json"
    scheme = f"{kind}s" if parts.scheme == "https" else kind
    # A key of the address has a "-" before it; those without are Apprise's own.
    own = [(f"-{key}", each) for key, each in parse_qsl(parts.query, keep_blank_values=True)]
    query = urlencode([("method", method), *own], quote_via=quote)
    return f"{scheme}://{parts.netloc}{parts.path}?{query}"


def _certificate(cert: Section) -> None:
    if not cert or not cert.flag("enable", True):
        cert.used("rejectUnauthorized", "certCA")
        return
    if not cert.flag("rejectUnauthorized", True):
        cert.findings.differs(
            cert.key("rejectUnauthorized"),
            "false, and the certificate is verified here; verify=no in the address turns that off",
        )
    cert.leave(
        "certCA",
        "Apprise knows the authorities of the system only: add this one there, or verify=no to the "
        "address in the notify_ file",
    )
