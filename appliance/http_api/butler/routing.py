"""Butler's paths and methods: how it finds the handler of a request.

Segments are taken apart before they are decoded, so a namespace or key may have a slash
(``%2F``). A POST may name another method in ``X-HTTP-Method-Override``, because Qlik's REST
connector has only GET and POST.

Not for: what is answered.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.routing import Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.http_api.butler.errors import PREFIX, not_found

_OVERRIDE = "x-http-method-override"


class ButlerRoute(Route):
    """A route whose parameters are whole segments, which may be empty or have any character."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        wanted = self.path.split("/")
        found = scope["raw_path"].decode("latin-1").split("/")
        if len(wanted) != len(found):
            return Match.NONE, {}
        values: dict[str, Any] = {}
        for pattern, segment in zip(wanted, found, strict=True):
            if pattern.startswith("{"):
                values[pattern.strip("{}")] = unquote_to_bytes(segment).decode("utf-8", "replace")
            elif pattern != segment:
                return Match.NONE, {}
        is_method = self.methods is None or scope["method"] in self.methods
        child = {"endpoint": self.endpoint, "path_params": values}
        return (Match.FULL if is_method else Match.PARTIAL), child


def everything_else() -> Mount:
    """The last route: what Butler does not have is 404, another method too."""
    return Mount(PREFIX.rstrip("/"), app=not_found)


class MethodOverride:
    """ASGI middleware: a POST below ``/v4/`` counts as the method that its header names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            named = Headers(scope=scope).get(_OVERRIDE)
            if named and scope["path"].startswith(PREFIX):
                scope = {**scope, "method": named.strip().upper()}
        await self._app(scope, receive, send)
