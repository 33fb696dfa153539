"""``/v4/keyvalues...``: the key-value store, by which load scripts leave each other notes.

Everybody who was let in may use it; where there are rules, operators and those who may start a
task, and viewers may read.

Not for: what is stored (appliance/key_values.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.broker.access import Role
from appliance.counters import Counter
from appliance.http_api.butler.errors import ButlerError, answer, fault
from appliance.http_api.butler.fields import number_of, object_of, query_of, text_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.key_values import FullError, Pair

_PAIR = "/v4/keyvalues/{namespace}/{key}"
_NAMESPACE = "/v4/keyvalues/{namespace}"
_EXISTS = "/v4/keyvalues/{namespace}/keyexists"
_LIST = "/v4/keylist/{namespace}"
_ALL = "/v4/keyvaluesnamespaces"
_FOUND = {
    "type": "object",
    "properties": {
        "namespace": {"type": "string"},
        "key": {"type": "string"},
        "value": {"type": "string"},
    },
}
_KEY = {"key": {"type": "string"}}

OPENAPI: dict[str, object] = {
    _ALL: {"get": call("The namespaces.", {"type": "array", "items": {"type": "string"}})},
    _NAMESPACE: {
        "get": call("The value of a key.", _FOUND, path=_NAMESPACE, query=_KEY),
        "post": call(
            "Store a value under a key. `ttl` is how long it lives, in milliseconds.",
            {**_FOUND, "properties": {**_FOUND["properties"], "ttl": {"type": "number"}}},  # type: ignore[dict-item]
            status=201,
            path=_NAMESPACE,
            body={
                "type": "object",
                "required": ["key", "value"],
                "properties": {
                    "key": {"type": "string", "minLength": 1},
                    "value": {"type": "string"},
                    "ttl": {"type": "number", "default": 0},
                },
            },
        ),
        "delete": call("Remove a namespace with its keys.", status=204, path=_NAMESPACE),
    },
    _EXISTS: {
        "get": call(
            "Whether a key is there.",
            {
                "type": "object",
                "properties": {"keyExists": {"type": "boolean"}, "keyValue": {"type": "object"}},
            },
            path=_EXISTS,
            query=_KEY,
        )
    },
    _PAIR: {"delete": call("Remove a key.", status=204, path=_PAIR)},
    _LIST: {
        "get": call(
            "The keys of a namespace.",
            {
                "type": "object",
                "properties": {
                    "namespace": {"type": "string"},
                    "keys": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"key": {"type": "string"}}},
                    },
                },
            },
            path=_LIST,
        )
    },
}


def may_use(caller: Caller, *, changes: bool) -> None:
    """Raise ``ButlerError`` (403) if somebody may not read or change the store."""
    rules = caller.context.config.access.rule
    if not rules or caller.role is Role.OPERATOR or caller.start_patterns:
        return
    if changes or caller.role is not Role.VIEWER:
        raise ButlerError(
            403,
            "The user may not use the key-value store: it is neither an operator nor does an"
            " [[access.rule]] with `start` fit.",
        )


async def store(context: Context, pairs: Sequence[Pair]) -> None:
    """Store all of these, on the disk when this returns, or none.

    Raises:
        ButlerError: 400, a bound is reached.
    """
    try:
        await context.in_worker(lambda: context.appliance.key_values.put(pairs))
    except FullError as error:
        context.count(Counter.KEY_VALUES_REFUSED)
        raise ButlerError(400, str(error)) from None


def routes(context: Context) -> list[Route]:
    """The routes."""
    kept = context.appliance.key_values

    async def namespaces(request: Request) -> Response:
        may_use(await caller_of(request), changes=False)
        return answer(await context.in_worker(kept.namespaces))

    async def find(request: Request) -> tuple[str, str, str | None]:
        may_use(await caller_of(request), changes=False)
        namespace, key = request.path_params["namespace"], query_of(request, "key")
        if key is None:
            raise fault("querystring must have required property 'key'")
        is_there, value = await context.in_worker(lambda: kept.value(namespace, key))
        if not is_there:
            _no_namespace(namespace)
        return namespace, key, value

    async def get(request: Request) -> Response:
        namespace, key, value = await find(request)
        if value is None:
            _no_key(namespace, key)
        return answer({"namespace": namespace, "key": key, "value": value})

    async def exists(request: Request) -> Response:
        namespace, key, value = await find(request)
        found = {} if value is None else {"namespace": namespace, "key": key, "value": value}
        return answer({"keyExists": value is not None, "keyValue": found})

    async def post(request: Request) -> Response:
        may_use(await caller_of(request), changes=True)
        body = await object_of(request)
        key = text_of(body.get("key"), "body/key")
        value = None if "value" not in body else text_of(body["value"], "body/value")
        ttl = int(number_of(body.get("ttl"), "body/ttl"))
        if not key or value is None:
            raise ButlerError(400, "Required parameter is missing")
        pair = Pair(request.path_params["namespace"], key, value, ttl)
        await store(context, [pair])
        shown = msgspec.structs.asdict(pair)
        shown["ttl"] = shown.pop("ttl_ms")
        return answer(shown, 201)

    async def remove(request: Request) -> Response:
        may_use(await caller_of(request), changes=True)
        namespace, key = request.path_params["namespace"], request.path_params["key"]
        is_there, found = await context.in_worker(lambda: kept.remove(namespace, key))
        if not is_there:
            _no_namespace(namespace)
        if not found:
            _no_key(namespace, key)
        return Response(status_code=204)

    async def remove_namespace(request: Request) -> Response:
        may_use(await caller_of(request), changes=True)
        namespace = request.path_params["namespace"]
        if not await context.in_worker(lambda: kept.remove_namespace(namespace)):
            _no_namespace(namespace)
        return Response(status_code=204)

    async def keys(request: Request) -> Response:
        may_use(await caller_of(request), changes=False)
        namespace = request.path_params["namespace"]
        found = await context.in_worker(lambda: kept.keys(namespace))
        if found is None:
            _no_namespace(namespace)
        return answer({"namespace": namespace, "keys": [{"key": key} for key in found]})

    return [
        ButlerRoute(_ALL, namespaces, methods=["GET"]),
        ButlerRoute(_EXISTS, exists, methods=["GET"]),
        ButlerRoute(_NAMESPACE, get, methods=["GET"]),
        ButlerRoute(_NAMESPACE, post, methods=["POST"]),
        ButlerRoute(_NAMESPACE, remove_namespace, methods=["DELETE"]),
        ButlerRoute(_PAIR, remove, methods=["DELETE"]),
        ButlerRoute(_LIST, keys, methods=["GET"]),
    ]


def _no_namespace(namespace: str) -> NoReturn:
    raise ButlerError(400, f"Namespace not found: {namespace}")


def _no_key(namespace: str, key: str) -> NoReturn:
    raise ButlerError(400, f"Key '{key}' not found in namespace: {namespace}")
