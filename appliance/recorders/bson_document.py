"""The JSON text of a row as a document of MongoDB, without losing a value.

What BSON or MongoDB can't hold as it is: an integer beyond 64 bits and a fraction that no double
has exactly become Decimal128, or text beyond 34 digits; an object with a key twice becomes its JSON
text; in keys, ``$`` in front and ``.`` become their full-width forms, as MongoDB's manual advised.
Not for: which row a message gives (row_shape.py), the server (mongodb.py).
"""

from __future__ import annotations

import base64
import decimal
import json
from typing import Any

import msgspec
from bson.decimal128 import Decimal128, create_decimal128_context

from appliance.recorders.kinds import has_long_number, is_exact

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)
_decode = msgspec.json.Decoder().decode
# Only such a text can have a number that is too large, or too exact for a double.
_DIGITS = 34
_EXACT = create_decimal128_context()
_EXACT.traps[decimal.Inexact] = True


def document_of(text: bytes) -> Any:
    """The value of a JSON text (valid, not nested too deep) as pymongo stores it.

    A wrapper of ``payload.py``, as the value or its member ``payload``, becomes what it stands for.
    """
    value: Any = None
    if not has_long_number(text):
        value = _decode(text)
        if text.count(b":") != _count_keys(value):  # a key may be there twice
            value = None
    if value is None:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_int=_integer, parse_float=_number)
    elif b"$" not in text and b"." not in text and b"\\u" not in text:
        return value
    wrapped = _unwrapped(value)
    if wrapped is not value:
        return wrapped
    if isinstance(value, dict) and "payload" in value:
        inner = _unwrapped(value["payload"])
        if inner is not value["payload"]:
            rest = _plain({key: each for key, each in value.items() if key != "payload"})
            return {**rest, "payload": inner}
    return _plain(value)


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, dict | _Pairs) or len(value) != 1:
        return value
    ((key, inner),) = value.items() if isinstance(value, dict) else value
    if key == "$text" and isinstance(inner, str):
        return inner
    if key == "$base64" and isinstance(inner, str):
        return base64.b64decode(inner)
    return _plain(inner) if key == "$json" else value


class _Pairs(list[tuple[str, Any]]):
    """The members of an object."""


def _count_keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(
            _count_keys(each) for each in value.values() if type(each) in (dict, list)
        )
    if type(value) is list:
        return sum(_count_keys(each) for each in value if type(each) in (dict, list))
    return 0


def _plain(value: Any) -> Any:
    """Objects as documents whose keys MongoDB takes."""
    if isinstance(value, _Pairs):
        if len({_key(key) for key, _ in value}) < len(value):
            return _text(value)
        return {_key(key): _plain(each) for key, each in value}
    if type(value) is dict:
        made = {_key(key): _plain(each) for key, each in value.items()}
        if len(made) < len(value):
            return _text(_Pairs(value.items()))
        return made
    if type(value) is list:
        return [_plain(each) for each in value]
    return value


def _key(key: str) -> str:
    if "." in key or key[:1] == "$" or "\0" in key:
        key = key.replace(".", "\uff0e").replace("\0", "\ufffd")
        return "\uff04" + key[1:] if key[:1] == "$" else key
    return key


def _integer(digits: str) -> Any:
    if len(digits) <= _DIGITS and _SMALLEST <= (value := int(digits)) <= _LARGEST:
        return value
    return _decimal(digits)


def _number(text: str) -> Any:
    value = float(text)
    if value not in (float("inf"), float("-inf")) and is_exact(value, text):
        return value
    return _decimal(text)


def _decimal(text: str) -> Any:
    try:
        with decimal.localcontext(_EXACT) as context:
            return Decimal128(context.create_decimal(text))
    except decimal.DecimalException:
        return text


def _text(value: Any) -> str:
    """The JSON text of a value that was read with ``_Pairs``."""
    if isinstance(value, _Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_text(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return _text(_Pairs(value.items()))
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, Decimal128):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
