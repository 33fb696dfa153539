"""Errors as problem details (RFC 9457).

Not for: Butler's calls, which have errors of their own (butler/errors.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

CONTENT_TYPE = "application/problem+json"


class ProblemError(Exception):
    """Ends a request with a problem. ``detail``: what, where, what to do, for people.

    ``more``: further members of the object.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


def problem(error: ProblemError) -> Response:
    """The answer."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        **error.more,
    }
    return Response(msgspec.json.encode(body), error.status, error.headers, media_type=CONTENT_TYPE)


FAILURE = ProblemError(500, "An internal error; the log of the appliance has it.")
