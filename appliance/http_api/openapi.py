"""``GET /openapi.json``: every call, from what stands beside each route; ``GET /`` names it.

Not for: what a call's parameters and answers are (``OPENAPI`` of each module of routes).
"""

from __future__ import annotations

import copy
import re
from types import ModuleType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance import __version__
from appliance.http_api import history, messages, monitoring, tasks, timers
from appliance.http_api.butler import about, apps, key_values, schedules, starts
from appliance.http_api.butler import messages as butler_messages
from appliance.http_api.context import Context
from appliance.http_api.problem import CONTENT_TYPE

_PARTS: tuple[ModuleType, ...] = (messages, history, tasks, timers, monitoring)
_BUTLER: tuple[ModuleType, ...] = (starts, apps, butler_messages, key_values, schedules, about)
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457, problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do."},
    },
}
_FOR_ALL = {
    "400": "A parameter or the body is wrong.",
    "401": "A user name and password, or a token, are needed.",
    "403": "The user may not do this.",
    "413": "The body is larger than `max_body`.",
    "429": "The user or address asks too often; `Retry-After` says when to ask again.",
    "503": "A resource can't be had now; ask again.",
}
OPENAPI: dict[str, Any] = {
    "/": {
        "get": {
            "operationId": "start",
            "summary": "What this is.",
            "tags": ["monitoring"],
            "security": [],
            "responses": {
                "200": {
                    "description": "The name of the appliance, and where its calls are described.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["name", "openapi", "health"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "openapi": {"type": "string"},
                                    "health": {"type": "string"},
                                },
                            }
                        }
                    },
                }
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document.",
            "tags": ["monitoring"],
            "security": [],
            "responses": {
                "200": {
                    "description": "OpenAPI 3.1.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        }
    },
}


def document(*, butler: bool) -> dict[str, Any]:
    """The OpenAPI document, version 3.1.0 (https://spec.openapis.org/oas/v3.1.0)."""
    paths: dict[str, Any] = {}
    for part in (*_PARTS, *(_BUTLER if butler else ())):
        for path, item in getattr(part, "OPENAPI", {}).items():
            merged = paths.setdefault(path, {})
            for method, operation in item.items():
                made = operation if part in _BUTLER else _with_problems(operation)
                merged[method] = {"operationId": _name(method, path), **made}
    paths.update(OPENAPI)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Qlik MQTT appliance",
            "version": __version__,
            "description": "Messages, task starts and their outcomes over HTTP.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"bearer": []}, {}],
        "tags": [
            {"name": "messages", "description": "Publish and read."},
            {"name": "tasks", "description": "Start tasks and follow them."},
            {"name": "timers", "description": "List, fire and pause timers."},
            {"name": "monitoring", "description": "For monitors."},
            {"name": "butler", "description": "The calls of Butler, for what used them before."},
        ],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "responses": {f"Problem{status}": _answer(text) for status, text in _FOR_ALL.items()},
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `appliance user token` has made.",
                },
            },
        },
    }


def _name(method: str, path: str) -> str:
    words = re.findall(r"\w+", path)
    return method + "".join([word[0].upper() + word[1:] for word in words])


def _answer(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {CONTENT_TYPE: {"schema": schema}}}


def _with_problems(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation with the answers that all have, and problem details as the body of errors."""
    found = copy.deepcopy(operation)
    answers: dict[str, Any] = found["responses"]
    for status, answer in answers.items():
        if status >= "400" and "content" not in answer:
            answer["content"] = _answer("")["content"]
    for status in _FOR_ALL:
        answers.setdefault(status, {"$ref": f"#/components/responses/Problem{status}"})
    found["responses"] = dict(sorted(answers.items()))
    return found


def routes(context: Context) -> list[Route]:
    """The routes."""
    made = b""

    async def openapi(_request: Request) -> Response:
        nonlocal made
        made = made or msgspec.json.encode(document(butler=context.config.http.butler))
        return Response(made, media_type="application/json")

    async def start(_request: Request) -> Response:
        name = context.config.service.name
        body = {"name": name, "openapi": "/openapi.json", "health": "/healthz"}
        return Response(msgspec.json.encode(body), media_type="application/json")

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/", start, methods=["GET"]),
    ]
