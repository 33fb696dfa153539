"""The cookies of one server, which hold the session of a virtual proxy (docs/qlik.md).

Not for: deciding when a session is over (client_managed.py).
"""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import cast

from urllib3 import BaseHTTPResponse


class Cookies:
    """Kept and sent by the rules of the standard library's jar. Thread-safe."""

    def __init__(self) -> None:
        self._jar = CookieJar()
        self._is_empty = True

    def header(self, url: str) -> str:
        """The value of the Cookie header for a request, empty if there is none to send."""
        if self._is_empty:
            return ""
        request = urllib.request.Request(url)  # noqa: S310  nothing is opened with it
        self._jar.add_cookie_header(request)
        return str(request.get_header("Cookie", ""))

    def keep(self, response: BaseHTTPResponse, url: str) -> None:
        """Take what an answer brings."""
        if "Set-Cookie" in response.headers:
            request = urllib.request.Request(url)  # noqa: S310  nothing is opened with it
            # The jar asks an answer for nothing but its headers, which urllib3 has in that form.
            self._jar.extract_cookies(cast("HTTPResponse", response), request)
            self._is_empty = False

    def clear(self) -> None:
        self._jar.clear()
