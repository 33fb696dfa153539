"""Parameters of requests: each once at most, none unknown, numbers and times within bounds."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from typing import TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from appliance.config.values import format_duration, parse_duration
from appliance.http_api.problem import ProblemError

T = TypeVar("T", bound=enum.StrEnum)
LONGEST_WAIT_S = 3600.0
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_NUMBER = re.compile("[0-9]{1,18}")


def parameters(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of a request.

    Raises:
        ProblemError: 400, one is unknown or comes twice.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ProblemError(400, f"There is no parameter {name!r}; there are: {names}.")
        if name in found:
            raise ProblemError(400, f"{name} is given more than once; give it once.")
        found[name] = value
    return found


def whole_number(found: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A number of the parameters.

    Raises:
        ProblemError: 400, it is none from ``low`` to ``high``.
    """
    text = found.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise ProblemError(400, f"{name}={text}: write a number from {low} to {high}.")
    return int(text)


def wait_s(found: Mapping[str, str]) -> float:
    """The seconds of ``wait``: a number of seconds, or a duration as in the configuration.

    Raises:
        ProblemError: 400, it is neither, or longer than an hour.
    """
    text = found.get("wait")
    if text is None:
        return 0.0
    try:
        seconds = float(text) if _SECONDS.fullmatch(text) else float(parse_duration(text))
    except ValueError as error:
        raise ProblemError(
            400, f'wait={text}: {error}; a number alone is seconds, as in "wait=60".'
        ) from None
    if seconds > LONGEST_WAIT_S:
        raise ProblemError(
            400,
            f"wait={text}: at most {format_duration(LONGEST_WAIT_S)} can be waited for. Ask again"
            " when it is over: GET /executions/N?wait=... goes on with the wait.",
        )
    return seconds


def some_of(found: Mapping[str, str], name: str, kind: type[T]) -> frozenset[T]:
    """The values that a parameter names, separated by commas; none without it.

    Raises:
        ProblemError: 400, one of them is unknown.
    """
    text = found.get(name)
    if text is None:
        return frozenset()
    try:
        return frozenset(kind(each.strip()) for each in text.split(","))
    except ValueError:
        known = ", ".join(each.value for each in kind)
        raise ProblemError(400, f"{name}={text}: write some of {known}.") from None


def further(request: Request, found: Mapping[str, str], **changed: int) -> str:
    """The address of the same request with other numbers: where an answer goes on."""
    return str(request.url.replace(query=urlencode({**found, **changed})))
