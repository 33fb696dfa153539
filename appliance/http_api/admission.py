"""Whether a request is let in, decided when its head has come and before its body is read.

A browser sends any page's requests to this machine. A page whose name an attacker's DNS server
resolves to this machine (DNS rebinding) could read the answers, so a port answers only to its own
names. And a page from elsewhere could publish and start tasks with a plain form, so requests that
a browser marks as another site's (``Origin``, ``Sec-Fetch-Site``) are refused.
Not for: who asks (caller.py), limits on connections (connections.py).
"""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from urllib.parse import unquote_to_bytes

from appliance.counters import Counter
from appliance.http_api.bounds import HEADERS, Bounds, Kind
from appliance.http_api.problem import ProblemError

logger = logging.getLogger(__name__)

_OTHER_HOSTS_LOGGED = 5
_REMEMBERED = 4096
"""Addresses whose requests are counted; the one that asked longest ago is forgotten first."""
_MINUTE_S = 60.0
_HOST = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^][:]*))(?::[0-9]*)?")
"""RFC 3986, section 3.2.2: a name or address, and a port."""
_NO_BROWSER = "A page of another site may not ask here."

Headers = Sequence[tuple[bytes, bytes]]


class Admission:
    """The rules of one port; ``clock``: seconds, monotonic. For the loop of the port."""

    def __init__(
        self,
        kind: Kind,
        bounds: Callable[[], Bounds],
        count: Callable[[Counter], None],
        clock: Callable[[], float],
    ) -> None:
        self._kind = kind
        self._bounds = bounds
        self._count = count
        self._clock = clock
        self._logged_hosts: set[str] = set()
        self._due: dict[str, float] = {}
        """By address: when it may have asked for all that it has asked for (GCRA)."""

    def refusal(
        self, origin: str, http_version: str, raw_path: bytes, headers: Headers
    ) -> ProblemError | None:
        """Why a request is refused, if it is; ``headers``: names in lower case."""
        if len(headers) > HEADERS:
            self._count(Counter.HTTP_REQUESTS_REFUSED_HEAD)
            return ProblemError(431, f"The request has more than {HEADERS} header fields.")
        bounds = self._bounds()
        return (
            self._by_host(http_version, headers)
            or self._by_form(http_version, raw_path, headers)
            or self._by_length(headers, bounds.max_body)
            or self._by_rate(origin, bounds.max_requests)
        )

    def _by_host(self, http_version: str, headers: Headers) -> ProblemError | None:
        hosts = [value for name, value in headers if name == b"host"]
        # RFC 9112, section 3.2: exactly one; a client of HTTP/1.0 may leave it out.
        if len(hosts) > 1 or (not hosts and http_version != "1.0"):
            return self._not_understood("One Host header is expected.")
        host = hosts[0].decode("latin-1") if hosts else ""
        if hosts and not self._is_own(host):
            return ProblemError(  # RFC 9110, section 15.5.20
                421, f"Not a name of this server: add it to hosts in {self._kind.table}."
            )
        origins = [value for name, value in headers if name == b"origin"]
        is_cross_site = (
            b"sec-fetch-site",
            b"cross-site",
        ) in headers  # also where no Origin is sent
        if is_cross_site or any(
            each.partition(b"://")[2].decode("latin-1") != host for each in origins
        ):
            self._count(Counter.HTTP_REQUESTS_REFUSED_ORIGIN)
            return ProblemError(403, _NO_BROWSER)
        return None

    def _by_form(self, http_version: str, raw_path: bytes, headers: Headers) -> ProblemError | None:
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if codings:
            if http_version != "1.1":
                return self._not_understood("Transfer-Encoding is HTTP/1.1's.")
            if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
                self._count(Counter.HTTP_REQUESTS_REFUSED_MALFORMED)
                return ProblemError(501, "The only Transfer-Encoding known here is chunked.")
        if b"%" in raw_path:
            try:
                unquote_to_bytes(raw_path).decode()
            except UnicodeDecodeError:
                return self._not_understood("The path is not UTF-8 where it has %.")
        return None

    def _by_length(self, headers: Headers, max_body: int) -> ProblemError | None:
        for name, value in headers:
            if name == b"content-length" and int(value) > max_body:
                return self.too_large(max_body)
        return None

    def too_large(self, max_body: int) -> ProblemError:
        """For a body that is larger than it may be."""
        self._count(Counter.HTTP_REQUESTS_REFUSED_BODY)
        return ProblemError(
            413, f"The body has more than {max_body} bytes (max_body in {self._kind.table})."
        )

    def _by_rate(self, origin: str, most: int | None) -> ProblemError | None:
        if most is None:
            return None
        now = self._clock()
        each_s = _MINUTE_S / most
        due = max(now, self._due.pop(origin, now))
        is_over = due - now > _MINUTE_S - each_s
        self._due[origin] = due if is_over else due + each_s
        if len(self._due) > _REMEMBERED:
            del self._due[next(iter(self._due))]
        if not is_over:
            return None
        self._count(Counter.HTTP_REQUESTS_REFUSED_RATE)
        wait_s = math.ceil(due - now - _MINUTE_S + each_s)
        return ProblemError(
            429,
            f"More than {most} requests in a minute from {origin} (max_requests in [http]).",
            headers={"Retry-After": str(max(1, wait_s))},
        )

    def _not_understood(self, detail: str) -> ProblemError:
        self._count(Counter.HTTP_REQUESTS_REFUSED_MALFORMED)
        return ProblemError(400, detail)

    def _is_own(self, host: str) -> bool:
        """Whether a request's ``Host`` names this server."""
        name = _without_port(host).lower().rstrip(".")
        # An address can't be made to mean another machine.
        if any(fnmatchcase(name, each) for each in self._bounds().hosts) or _is_address(name):
            return True
        self._count(self._kind.refused_host)
        if name not in self._logged_hosts and len(self._logged_hosts) < _OTHER_HOSTS_LOGGED:
            self._logged_hosts.add(name)
            logger.warning(
                "HTTP: a request for the host %.100r is refused; if this is a name of this"
                " machine, add it to hosts in %s",
                name,
                self._kind.table,
            )
        return False


def _without_port(host: str) -> str:
    found = _HOST.fullmatch(host)
    return host if found is None else found["ipv6"] or found["name"] or ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
