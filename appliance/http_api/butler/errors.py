"""Butler's form of an error, for every call below ``/v4/``.

Butler's server is Fastify 5 (https://fastify.dev/docs/latest/Reference/Errors/): its error objects
have ``statusCode``, ``code`` where the framework found the fault, ``error`` and ``message``. A path
that it does not have is answered with ``message``, ``error``, ``statusCode``.

Not for: our own calls (problem.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.http_api.problem import ProblemError, problem

PREFIX = "/v4/"
JSON = "application/json; charset=utf-8"
INVALID = "FST_ERR_VALIDATION"
_TOO_LARGE = "FST_ERR_CTP_BODY_TOO_LARGE"
_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
"""Those of Node.js; Python's differ between its versions."""


class ButlerError(Exception):
    """Ends a call of Butler's with an error.

    ``code``: the framework's name of the fault, empty where Butler's own code answers.
    """

    def __init__(
        self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


def fault(message: str) -> ButlerError:
    """What is wrong with the fields of a request: ``"body/0/type must be string"``."""
    return ButlerError(400, message, INVALID)


def is_butlers(path: str) -> bool:
    """Whether the errors of a path have Butler's form."""
    return path.startswith(PREFIX)


def refusal(path: str, error: ProblemError) -> Response:
    """The answer to a request that no route gets."""
    return error_answer(error) if is_butlers(path) else problem(error)


def answer(body: object, status: int = 200) -> Response:
    """JSON, always with the content type of JSON."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)


async def answer_error(_request: Request, error: Exception) -> Response:
    """Starlette's handler of ``ButlerError``, and of the others below ``/v4/``."""
    return error_answer(error)


def error_answer(error: Exception) -> Response:
    """An error in Butler's form. Raises one that is none of ours."""
    found = _in_butlers_form(error)
    body: dict[str, object] = {"statusCode": found.status}
    if found.code:
        body["code"] = found.code
    body["error"] = _PHRASES.get(found.status, "Error")
    body["message"] = found.message
    return Response(msgspec.json.encode(body), found.status, found.headers, media_type=JSON)


def _in_butlers_form(error: Exception) -> ButlerError:
    match error:
        case ButlerError():
            return error
        case ProblemError():
            code = _TOO_LARGE if error.status == 413 else ""
            return ButlerError(error.status, error.detail, code, error.headers)
        case HTTPException():
            return ButlerError(error.status_code, error.detail, headers=error.headers)
        case _:
            raise error


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of all that no route has: another path, or another method."""
    if scope["type"] != "http":
        return
    path = scope["raw_path"].decode("latin-1")
    body = {
        "message": f"Route {scope['method']}:{path} not found",
        "error": "Not Found",
        "statusCode": 404,
    }
    await answer(body, 404)(scope, receive, send)
