"""``emailNotification``: receivers of mail.

Not for: mail about Windows services, which the appliance does not watch (other_keys.py).
"""

from __future__ import annotations

import re
from email.utils import getaddresses, parseaddr
from urllib.parse import quote, urlencode

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.receivers import EVENTS, add, template
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import Value

_ADDRESS = re.compile(r"[^\s<>@,;\"()]+@[A-Za-z0-9.-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PLACEHOLDER = re.compile(r"<.*>")


def take(butler: Section, draft: Draft) -> None:
    """Add a receiver for each kind of event that Butler sends mail about."""
    mail = butler.section("emailNotification")
    if not mail.enabled():
        return
    server = _Server(mail.section("smtp"))
    if server.problem:
        draft.findings.leave(mail.path, server.problem)
        return
    for event_name, kind in EVENTS.items():
        event = mail.section(event_name)
        if event.enabled():
            _event(event, kind, server, draft)


class _Server:
    """The mail server."""

    def __init__(self, smtp: Section) -> None:
        self.problem = ""
        self._host = smtp.text("host")
        if not _HOST.fullmatch(self._host):
            self.problem = (
                "smtp.host names no mail server; write [[notify]] with a mailto:// address"
            )
        port = smtp.port("port")
        auth, tls = smtp.section("auth"), smtp.section("tls")
        self._login: dict[str, str] = {}
        if auth and auth.flag("enable", True):
            self._login = {"user": auth.text("user"), "pass": auth.text("password")}
        auth.used("user", "password")
        tls.used("serverName")
        is_secure, has_to = smtp.flag("secure", False), tls.flag("requireTLS", False)
        never = tls.flag("ignoreTLS", False)
        if is_secure:
            self._mode = "ssl"
        elif has_to or (self._login and not never):
            self._mode = "starttls"
        else:
            self._mode = "insecure"
        usual = {"ssl": 465, "starttls": 587, "insecure": 25}[self._mode]
        self._port = port or usual
        if not tls.flag("rejectUnauthorized", True) and self._mode != "insecure":
            smtp.findings.differs(
                tls.key("rejectUnauthorized"),
                "false, and the mail server's certificate is verified here; if it has none that "
                "can be verified, add verify=no to the address in the notify_ file",
            )

    def address(self, sender: str, receivers: list[str]) -> str:
        """The Apprise URL (github.com/caronc/apprise, mailto)."""
        name, address = parseaddr(sender)
        values = {
            "smtp": self._host,
            "mode": self._mode,
            "from": address,
            "name": name,
            "to": ",".join(receivers),
            **self._login,
        }
        scheme = "mailto" if self._mode == "insecure" else "mailtos"
        query = urlencode({key: each for key, each in values.items() if each}, quote_via=quote)
        return f"{scheme}://{self._host}:{self._port}/?{query}"


def _event(event: Section, kind: str, server: _Server, draft: Draft) -> None:
    sender = event.text("fromAddress", "fromAdress")
    receivers = []
    event.used("rateLimit", "headScriptLogLines", "tailScriptLogLines")
    for each in event.texts("recipients", "toAdress"):
        found = [address for _, address in getaddresses([each.replace(";", ",")])]
        if all(_ADDRESS.fullmatch(one) for one in found):
            receivers.extend(found)
        elif not _PLACEHOLDER.fullmatch(each):
            event.leave("recipients", "a value of it is no e-mail address")
    only = event.section("alertEnableByCustomProperty")
    filtered: dict[str, Value] = {}
    if only and only.flag("enable", True):
        name, value = only.text("customPropertyName"), only.text("enabledValue")
        if name and value:
            filtered["properties"] = [{"property": name, "value": value}]
    only.used("customPropertyName", "enabledValue")
    personal: dict[str, Value] = {}
    if by_property := event.section("alertEnabledByEmailAddress").text("customPropertyName"):
        personal["to_property"] = by_property
    personal |= _owners(event.section("appOwnerAlert"))
    on: dict[str, Value] = {"on": [kind]}
    if title := template(event, "subject"):
        on["title"] = title
    if not _ADDRESS.fullmatch(parseaddr(sender)[1]):
        event.leave("fromAddress", "no e-mail address, so no mail about this event can be sent")
        return
    # The custom property decides about the common receivers only, as with Butler.
    rows = [(receivers, filtered), ([], personal)] if filtered else [(receivers, personal)]
    if not receivers and not personal:
        event.leave("recipients", "nobody is left who would get mail about this event")
    for to, keys in rows:
        if to or "to_property" in keys or "to_owner" in keys:
            of_url: dict[str, Value] = {} if to else {"to_url": False}
            url = server.address(sender, to)
            if not add(draft, event, f"mail_{kind}", url, on | keys | of_url):
                draft.findings.leave(event.path, "Apprise does not understand the mail's address")


def _owners(alert: Section) -> dict[str, Value]:
    """The keys about owners of apps; none if they get no mail."""
    if not alert or not alert.flag("enable", True):
        alert.used("includeOwner", "excludeOwner")
        return {}
    include, exclude = alert.section("includeOwner"), alert.section("excludeOwner")
    only, without = _users(include), _users(exclude)
    keys: dict[str, Value] = {"to_owner": True}
    if not include.flag("includeAll", True):
        if not only:
            return {}
        keys["owners"] = only
    return keys | ({"not_owners": without} if without else {})


def _users(section: Section) -> list[str]:
    """Users in the form of ``[[notify]] owners``; places that were never filled in are left out."""
    found = []
    for entry in section.sections("user"):
        directory, user = entry.text("directory"), entry.text("userId")
        if not directory or not user or _PLACEHOLDER.fullmatch(user):
            continue
        if set(directory + user) & set("*?[\\"):
            entry.findings.leave(entry.path, "its name has characters that no user has")
        else:
            found.append(f"{directory}\\{user}")
    return found
