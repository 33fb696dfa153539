"""Whether a request is one of this server's own pages.

A browser sends any page's requests here, with this server's cookie where the page is of the same
site. A page whose name an attacker's DNS server resolves to this machine could even read the
answers. So only known names are answered, and what changes something or opens a terminal must say
that it comes from this origin.
Not for: who asks (sessions.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

_HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]{1,253}))(?::[0-9]{1,5})?"
)
"""RFC 3986, section 3.2.2: a name or address, and a port."""


class Admission:
    """``hosts``: names by which the server may be asked, ``*`` for any characters."""

    def __init__(self, hosts: Iterable[str], *, tls: bool) -> None:
        machine = socket.gethostname().lower()
        self._hosts = ("localhost", machine, *(each.lower() for each in hosts))
        self._scheme = "https" if tls else "http"

    def is_own_host(self, host: str) -> bool:
        """Whether the ``Host`` of a request names this server."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["ipv6"] or found["name"]).lower().rstrip(".")
        # An address can't be made to mean another machine.
        return _is_address(name) or any(fnmatchcase(name, each) for each in self._hosts)

    def is_from_elsewhere(self, headers: Mapping[str, str]) -> bool:
        """Whether a browser says that a page of another origin asks."""
        origin = headers.get("Origin")
        if origin is not None and origin != self.origin(headers["Host"]):
            return True
        if (
            headers.get("Sec-Fetch-Mode") == "navigate"
            and headers.get("Sec-Fetch-Dest") == "document"
        ):
            return False  # a link: the page's site does not see what it leads to
        return headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}

    def is_from_here(self, headers: Mapping[str, str]) -> bool:
        """Whether a browser says that a page of this origin asks; saying nothing is not enough."""
        return headers.get("Origin") == self.origin(headers["Host"])

    def origin(self, host: str) -> str:
        """The origin of this server's pages, by the ``Host`` they were asked for with."""
        return f"{self._scheme}://{host}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
