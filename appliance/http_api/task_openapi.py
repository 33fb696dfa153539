"""What the OpenAPI document says of ``/tasks`` and ``/executions``.

Not for: answering them (tasks.py, starting.py, executions.py).
"""

from __future__ import annotations

from typing import Any

from appliance.http_api.idempotency import PARAMETER
from appliance.model import ExecutionState

_TIME = {"type": ["string", "null"], "format": "date-time"}
_SECONDS = {"type": ["number", "null"]}
_STATES = [each.value for each in ExecutionState]
_SOME = "^({0})(,({0}))*$".format("|".join(_STATES))
_EXECUTION: dict[str, Any] = {
    "type": "object",
    "required": ["execution", "taskId", "taskName", "state", "final", "reason", "cause"],
    "properties": {
        "execution": {"type": "integer", "description": "The appliance's number of it."},
        "taskId": {"type": "string", "description": "Empty until the task is found."},
        "taskName": {"type": "string"},
        "state": {"type": "string", "enum": _STATES},
        "final": {"type": "boolean", "description": "Whether the state is its outcome."},
        "reason": {"type": "string", "description": "Of the state, for people."},
        "executionId": {"type": "string", "description": "Qlik's id of the run; empty before."},
        "requested": _TIME,
        "queued": _TIME,
        "started": _TIME,
        "ended": _TIME,
        "nextAttempt": _TIME,
        "durationSeconds": _SECONDS,
        "queuedSeconds": _SECONDS,
        "usualSeconds": {
            **_SECONDS,
            "description": "How long a successful run of the task usually takes.",
        },
        "attempts": {"type": "integer"},
        "merged": {"type": "integer", "description": "Further requests that it answers."},
        "answeredBy": {"type": "integer", "description": "The execution that answers this one."},
        "node": {"type": "string"},
        "cause": {"type": "object", "description": "Who asked: `kind`, `rule`, `topic`, ..."},
        "partial": {"type": "boolean"},
        "variables": {"type": "object"},
        "details": {"type": "array", "items": {"type": "object"}},
        "logTail": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The end of the script log of a run that failed.",
        },
        "logFile": {
            "type": "string",
            "description": "The name of the file that the whole script log was kept in.",
        },
        "logProblem": {"type": "string"},
    },
}
_TASK: dict[str, Any] = {
    "type": "object",
    "required": ["id", "name", "enabled"],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "kind": {"type": "string"},
        "enabled": {"type": "boolean"},
        "appId": {"type": "string"},
        "appName": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "customProperties": {"type": "object"},
        "partial": {"type": "boolean"},
        "usualSeconds": _SECONDS,
        "nextTimer": {**_TIME, "description": "When a timer of the appliance starts it."},
        "newestExecution": {"oneOf": [_EXECUTION, {"type": "null"}]},
    },
}
_NEXT = {"type": ["string", "null"], "description": "The address of the next page."}
_TASK_NAME = {
    "name": "task",
    "in": "path",
    "required": True,
    "description": "The task's id, or its name, percent-encoded (`/` as `%2F`).",
    "schema": {"type": "string", "minLength": 1},
}
_NUMBER = {
    "name": "number",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "How long to wait for the end: seconds, or a duration as `2m`; at most `1h`.",
    "schema": {"type": "string", "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)?\s*)+$"},
}
_HEADERS = {
    "Location": {
        "description": "The execution.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true` if an earlier request with the key asked for it.",
        "schema": {"type": "string"},
    },
}
_GONE = {"description": "The key was used, and its executions are not kept any more."}
_REUSED = {"description": "The key was used for another request."}
_UNKNOWN_TASK = {"description": "The server lists no such task."}
_AMBIGUOUS = {"description": "Several tasks have this name; `tasks` lists them."}
_UNKNOWN = {"description": "There is no such execution, or it is not kept any more."}
_RELOAD = {
    "partial": {"type": "boolean"},
    "variables": {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["string", "number"]},
    },
}


def _page(name: str, item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name, "next"],
        "properties": {name: {"type": "array", "items": item}, "next": _NEXT, **more},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _started(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": "It has ended.", "headers": _HEADERS, "content": _json(schema)},
        "202": {
            "description": "It is taken and on disk, and has not ended.",
            "headers": _HEADERS,
            "content": _json(schema),
        },
        "404": _UNKNOWN_TASK,
        "409": _AMBIGUOUS,
        "410": _GONE,
        "422": _REUSED,
    }


def _query(name: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": kind, **more}}


OPENAPI: dict[str, Any] = {
    "/tasks": {
        "get": {
            "operationId": "tasks",
            "summary": "The tasks that the user may see, by name.",
            "tags": ["tasks"],
            "parameters": [
                _query("name", "string", "A part of the name; upper and lower case are alike."),
                _query("tag", "string", "A tag that the task has."),
                _query(
                    "state", "string", "States of the newest execution, with commas.", pattern=_SOME
                ),
                _query("limit", "integer", "", minimum=1, maximum=10_000),
                _query("offset", "integer", "", minimum=0, maximum=10**9),
            ],
            "responses": {
                "200": {
                    "description": "A page.",
                    "content": _json(_page("tasks", _TASK, count={"type": "integer"})),
                }
            },
        }
    },
    "/tasks/start": {
        "post": {
            "operationId": "startTasks",
            "summary": "Start what the body names, all of it or nothing.",
            "tags": ["tasks"],
            "parameters": [_WAIT, PARAMETER],
            "requestBody": {
                "required": True,
                "description": "As the payload of a message that starts tasks.",
                "content": _json(
                    {
                        "type": "object",
                        "properties": {
                            "taskId": {"type": "string"},
                            "taskName": {"type": "string"},
                            "tag": {"type": "string"},
                            **_RELOAD,
                        },
                    }
                ),
            },
            "responses": _started(
                {
                    "type": "object",
                    "required": ["executions"],
                    "properties": {"executions": {"type": "array", "items": _EXECUTION}},
                }
            ),
        }
    },
    "/tasks/{task}/start": {
        "post": {
            "operationId": "startTask",
            "summary": "Start a task, and wait for its end.",
            "tags": ["tasks"],
            "parameters": [_TASK_NAME, _WAIT, PARAMETER],
            "requestBody": {
                "required": False,
                "content": _json(
                    {"type": "object", "properties": _RELOAD, "additionalProperties": False}
                ),
            },
            "responses": _started(_EXECUTION),
        }
    },
    "/tasks/{task}": {
        "get": {
            "operationId": "task",
            "summary": "One task.",
            "tags": ["tasks"],
            "parameters": [_TASK_NAME],
            "responses": {
                "200": {"description": "The task.", "content": _json(_TASK)},
                "404": _UNKNOWN_TASK,
                "409": _AMBIGUOUS,
            },
        }
    },
    "/executions": {
        "get": {
            "operationId": "executions",
            "summary": "Executions, the newest first, whoever asked for them.",
            "tags": ["tasks"],
            "parameters": [
                _query("task", "string", "The task's id or name."),
                _query("state", "string", "States, with commas.", pattern=_SOME),
                _query("before", "integer", "Only smaller numbers.", minimum=1, maximum=2**62),
                _query("limit", "integer", "", minimum=1, maximum=1000),
            ],
            "responses": {
                "200": {
                    "description": "A page; it may be empty and have a next one.",
                    "content": _json(_page("executions", _EXECUTION)),
                }
            },
        }
    },
    "/executions/{number}": {
        "get": {
            "operationId": "execution",
            "summary": "One execution; with `wait`, once it has ended or the time is over.",
            "tags": ["tasks"],
            "parameters": [_NUMBER, _WAIT],
            "responses": {
                "200": {"description": "The execution.", "content": _json(_EXECUTION)},
                "404": _UNKNOWN,
            },
        }
    },
    "/executions/{number}/log": {
        "get": {
            "operationId": "scriptLog",
            "summary": "The end of the script log of a run that failed.",
            "tags": ["tasks"],
            "parameters": [_NUMBER],
            "responses": {
                "200": {
                    "description": "The lines.",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                "404": {"description": "There is no execution, or no log of it."},
            },
        }
    },
    "/executions/{number}/stop": {
        "post": {
            "operationId": "stopExecution",
            "summary": "End a run, or take back a request that has not started; for operators.",
            "tags": ["tasks"],
            "parameters": [_NUMBER],
            "responses": {
                "202": {"description": "It was asked for.", "content": _json(_EXECUTION)},
                "404": _UNKNOWN,
                "409": {"description": "It has ended already."},
                "502": {"description": "The Qlik server did not stop it."},
            },
        }
    },
}
