"""Reading bodies and query parameters as Butler does: what fits another type is turned into it.

Butler's server checks requests with Ajv and its type coercion
(https://ajv.js.org/coercion.html, ``coerceTypes: "array"``): a number for a text becomes a text, a
text of digits a number, a single value a list of one, a list of one its value. What can't be
turned is a fault, named as ``body/0/type``.

Not for: what the fields mean.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec
from starlette.requests import Request

from appliance.http_api.butler.errors import ButlerError, fault

_JSON: Final = "application/json"
_EMPTY = "Body cannot be empty when content-type is set to 'application/json'"
_NOT_JSON = "Body is not valid JSON but content-type is set to 'application/json'"
_LARGEST_INTEGER = 2**63


async def body_of(request: Request) -> object:
    """The body: JSON as a value, ``text/plain`` as a text, ``None`` if there is none.

    Raises:
        ButlerError: 400, it is not JSON; 415, it is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == _JSON:
        if not body:
            raise ButlerError(400, _EMPTY, "FST_ERR_CTP_EMPTY_JSON_BODY")
        try:
            value: object = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise ButlerError(400, _NOT_JSON, "FST_ERR_CTP_INVALID_JSON_BODY") from None
        return value
    if kind == "text/plain":
        return body.decode("utf-8", "replace")
    if kind or body:
        code = "FST_ERR_CTP_INVALID_MEDIA_TYPE"
        raise ButlerError(415, "Unsupported Media Type", code)
    return None


async def object_of(request: Request, *required: str) -> dict[str, object]:
    """The body, which must be an object that has these members.

    Raises:
        ButlerError: as ``body_of``, or 400: it is no such object.
    """
    body = object_in(await body_of(request), "body")
    for name in required:
        if name not in body:
            raise fault(f"body must have required property '{name}'")
    return body


def object_in(value: object, where: str) -> dict[str, object]:
    """An object. Raises ``ButlerError``."""
    if not isinstance(value, dict):
        raise fault(f"{where} must be object")
    return value


def list_of(value: object, where: str) -> list[object]:
    """A list, or a single value as a list of one. Raises ``ButlerError``."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        raise fault(f"{where} must be array")
    return [value]


def text_of(value: object, where: str) -> str:
    """A text. Raises ``ButlerError``."""
    value = _only(value)
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(value)
        case _:
            raise fault(f"{where} must be string")


def number_of(value: object, where: str) -> int | float:
    """A number. Raises ``ButlerError``."""
    value = _only(value)
    match value:
        case None | bool():
            return int(bool(value))
        case int() | float() if abs(value) < _LARGEST_INTEGER:
            return value
        case str() if value and "_" not in value:
            try:
                number = float(value)
            except ValueError:
                pass
            else:
                if abs(number) < _LARGEST_INTEGER:  # neither infinite nor "nan"
                    return int(number) if number.is_integer() else number
    raise fault(f"{where} must be number")


def integer_of(value: object, where: str) -> int:
    """A whole number. Raises ``ButlerError``."""
    try:
        number = number_of(value, where)
    except ButlerError:
        raise fault(f"{where} must be integer") from None
    if isinstance(number, float) and not number.is_integer():
        raise fault(f"{where} must be integer")
    return int(number)


def boolean_of(value: object, where: str) -> bool:
    """A boolean. Raises ``ButlerError``."""
    value = _only(value)
    if value in ("true", 1):  # and ``True``
        return True
    if value in ("false", 0, None):  # and ``False``
        return False
    raise fault(f"{where} must be boolean")


def texts_of(value: object, where: str) -> list[str]:
    """A list of texts. Raises ``ButlerError``."""
    found = list_of(value, where)
    return [text_of(each, f"{where}/{place}") for place, each in enumerate(found)]


def query_of(request: Request, name: str, kind: str = "string") -> str | None:
    """A query parameter; ``None``: it is not there. ``kind`` is named in the fault.

    Raises:
        ButlerError: 400, it is there more than once.
    """
    found = request.query_params.getlist(name)
    if len(found) > 1:
        raise fault(f"querystring/{name} must be {kind}")
    return found[0] if found else None


def number_text(number: float) -> str:
    """A number as JavaScript writes it: ``2``, ``0.1``, ``1e+21``.

    Whole numbers keep all of their digits, of which JavaScript would lose those behind the 16th.
    """
    if isinstance(number, int) and abs(number) < _LARGEST_INTEGER:
        return str(number)
    try:
        exact = Decimal(repr(float(number)))
    except OverflowError:
        return "Infinity" if number > 0 else "-Infinity"
    sign, digits, _ = exact.as_tuple()
    shown = "".join(map(str, digits)).rstrip("0")
    if not shown:
        return "0"
    point = exact.adjusted() + 1
    if -6 < point <= 21:
        text = format(exact.normalize(), "f")
        return text.removesuffix(".0")
    fraction = f".{shown[1:]}" if len(shown) > 1 else ""
    return f"{'-' if sign else ''}{shown[0]}{fraction}e{point - 1:+d}"


def _only(value: object) -> object:
    """The value of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
