"""The JSON of the simulated Repository Service's entities, and the text of a script log.

docs/qlik.md says which parts of the shapes are certain. Each entity has a full row, for ``/full``
and a single GET, and a condensed one, for lists without ``/full`` and within other entities.
Not for: which rows a request asks for (repository.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from appliance.model import TaskKind
from appliance.qlik.simulated.messages import date
from appliance.qlik.simulated.site import (
    ZERO_ID,
    Attempt,
    Run,
    SimulatedChain,
    SimulatedTask,
    SimulatedUser,
    Site,
    Status,
)

Row = dict[str, object]

_NODE_ID = "d4f6b801-3c7a-4e92-9b5d-a8e0c1f37246"
_NODE = "qlik1.example.com"
_SCHEMAS = {
    TaskKind.RELOAD: "ReloadTask",
    TaskKind.EXTERNAL_PROGRAM: "ExternalProgramTask",
    TaskKind.USER_SYNC: "UserSyncTask",
    TaskKind.DISTRIBUTE: "ReloadTask",
    TaskKind.PRELOAD: "ReloadTask",
}
_CONDENSED = {
    "task": ("id", "name", "taskType", "enabled", "taskSessionTimeout", "maxRetries", "privileges"),
    "executionsession": ("id", "executionResult", "privileges"),
    "executionresult": (
        *("id", "executingNodeName", "status", "startTime", "stopTime", "duration"),
        *("fileReferenceID", "scriptLogAvailable", "privileges"),
    ),
    "app": ("id", "name", "appId", "published", "privileges"),
    "schemaevent": ("id", "name", "enabled", "eventType", "privileges"),
    "compositeevent": ("id", "name", "enabled", "eventType", "privileges"),
    "user": ("id", "userId", "userDirectory", "name", "privileges"),
}


def condensed(entity: str, row: Mapping[str, object]) -> Row:
    """The condensed row of an entity (``"task"`` for tasks of every kind)."""
    return {name: row[name] for name in _CONDENSED[entity] if name in row}


def _condensed_result(attempt: Attempt) -> Row:
    duration_ns = 0
    if attempt.started_ns is not None and attempt.stopped_ns is not None:
        duration_ns = attempt.stopped_ns - attempt.started_ns
    return {
        "id": attempt.result_id,
        "executingNodeName": _NODE,
        "status": int(attempt.status),
        "startTime": date(attempt.started_ns),
        "stopTime": date(attempt.stopped_ns),
        "duration": duration_ns // 1_000_000,
        "fileReferenceID": attempt.file_reference,
        "scriptLogAvailable": attempt.file_reference != ZERO_ID,
        "privileges": None,
    }


def details(attempt: Attempt) -> list[Row]:
    rows: list[Row] = [
        {
            "id": str(uuid.uuid5(uuid.UUID(attempt.result_id), str(number))),
            "detailsType": kind,
            "message": message,
            "detailCreatedDate": date(at + number * 1_000_000),
            "privileges": None,
        }
        for number, (at, kind, message) in enumerate(attempt.details)
    ]
    # The server does not promise an order of the details, so they come back turned round.
    return rows[::-1]


def result_row(run: Run, attempt: Attempt) -> Row:
    """An execution result, without its details."""
    changed = attempt.details[-1][0] if attempt.details else attempt.created_ns
    return _condensed_result(attempt) | {
        "createdDate": date(attempt.created_ns),
        "modifiedDate": date(changed),
        "modifiedByUserName": "INTERNAL\\sa_scheduler",
        "taskID": run.task.id,
        "executionID": run.execution_id,
        "appID": run.task.app_id or ZERO_ID,
        "executingNodeID": _NODE_ID,
        "scriptLogLocation": "",
        "scriptLogSize": 18231 if attempt.file_reference != ZERO_ID else 0,
        "schemaPath": "ExecutionResult",
    }


def session_row(run: Run) -> Row:
    task = run.task
    short = _short(task)
    return {
        "id": run.execution_id,
        "createdDate": date(run.created_ns),
        "modifiedDate": date(run.attempt.details[-1][0]),
        "modifiedByUserName": "INTERNAL\\sa_scheduler",
        "executingNode": {"id": _NODE_ID, "name": "Central", "hostName": _NODE},
        "executionResult": _condensed_result(run.attempt),
        "abortAt": date(run.created_ns + task.timeout_min * 60_000_000_000),
        "retries": len(run.attempts) - 1,
        "abortReason": run.abort_reason,
        "app": {"id": task.app_id, "name": task.app_name} if task.app_id else None,
        "user": None,
        "reloadTask": short if _SCHEMAS[task.kind] == "ReloadTask" else None,
        "userSyncTask": short if task.kind is TaskKind.USER_SYNC else None,
        "externalProgramTask": short if task.kind is TaskKind.EXTERNAL_PROGRAM else None,
        "privileges": None,
        "schemaPath": "ExecutionSession",
    }


def _short(task: SimulatedTask) -> Row:
    return {
        "id": task.id,
        "name": task.name,
        "taskType": int(task.kind),
        "enabled": task.enabled,
        "taskSessionTimeout": task.timeout_min,
        "maxRetries": task.max_retries,
        "privileges": None,
    }


def task_row(site: Site, task: SimulatedTask) -> Row:
    attempt = site.last_attempt(task)
    last: Row = {
        "id": ZERO_ID,
        "executingNodeName": "",
        "status": 0,
        "startTime": date(None),
        "stopTime": date(None),
        "duration": 0,
        "fileReferenceID": ZERO_ID,
        "scriptLogAvailable": False,
        "privileges": None,
    }
    if attempt is not None:
        last = _condensed_result(attempt)
    row: Row = {
        "id": task.id,
        "createdDate": "2026-01-10T09:58:12.000Z",
        "modifiedDate": "2026-11-20T03:01:18.010Z",
        "modifiedByUserName": "LAB\\admin",
        "customProperties": [
            {"value": value, "definition": {"name": name, "valueType": "Text"}}
            for name, value in task.properties
        ],
        "isManuallyTriggered": task.manually_triggered,
        "operational": {
            "lastExecutionResult": last,
            "nextExecution": date(task.next_every_ns),
            "privileges": None,
        },
        "name": task.name,
        "taskType": int(task.kind),
        "enabled": task.enabled,
        "taskSessionTimeout": task.timeout_min,
        "maxRetries": task.max_retries,
        "tags": [{"id": ZERO_ID, "name": tag, "privileges": None} for tag in task.tags],
        "privileges": None,
        "schemaPath": _SCHEMAS.get(task.kind, "Task"),
    }
    if _SCHEMAS[task.kind] == "ReloadTask":
        row["app"] = {"id": task.app_id, "name": task.app_name, "published": False}
        row["isPartialReload"] = task.partial
    if task.kind is TaskKind.PRELOAD:
        row |= {"preloadNodes": [], "timeToLive": 60}
    elif task.kind is TaskKind.EXTERNAL_PROGRAM:
        row["path"] = task.program
        row["parameters"] = ""
    return row


def schedule_row(task: SimulatedTask) -> Row:
    """The schema event of a task that the site starts again and again."""
    minutes = int((task.every_s or 0) // 60)
    is_hourly = minutes >= 60 and minutes % 60 == 0
    row = _event_row(task, str(uuid.uuid5(uuid.UUID(task.id), "schedule")), "SchemaEvent")
    return row | {
        "name": f"Schedule of {task.name}",
        "enabled": True,
        "eventType": 0,
        "timeZone": "UTC",
        "daylightSavingTime": 0,
        "startDate": "2026-01-10T10:00:00.000Z",
        "expirationDate": "9999-01-01T00:00:00.000Z",
        "schemaFilterDescription": ["* * - * * * * *"],
        "incrementDescription": f"0 {minutes // 60} 0 0" if is_hourly else f"{minutes} 0 0 0",
        "incrementOption": 1 if is_hourly else 5,
        "operational": {
            "id": ZERO_ID,
            "nextExecution": date(task.next_every_ns),
            "timesTriggered": task.runs,
            "privileges": None,
        },
    }


def chain_row(site: Site, chain: SimulatedChain) -> Row:
    """A composite event. A task that is gone has left an empty place."""
    task = site.tasks.get(chain.task_id.lower())
    minutes, seconds = divmod(chain.within_s, 60)
    return _event_row(task, chain.id, "CompositeEvent") | {
        "name": chain.name,
        "enabled": chain.enabled,
        "eventType": 1,
        "timeConstraint": {
            "id": str(uuid.uuid5(uuid.UUID(chain.id), "time")),
            "days": 0,
            "hours": 0,
            "minutes": minutes,
            "seconds": seconds,
        },
        "compositeRules": [
            {
                "id": str(uuid.uuid5(uuid.UUID(chain.id), task_id)),
                "ruleState": 1 if end is Status.SUCCESS else 2,
                **_named(site.tasks.get(task_id.lower())),
            }
            for task_id, end in chain.after
        ],
    }


def _event_row(task: SimulatedTask | None, event_id: str, schema: str) -> Row:
    return {
        "id": event_id,
        "createdDate": "2026-01-10T09:58:12.000Z",
        "modifiedDate": "2026-11-20T03:01:18.010Z",
        "modifiedByUserName": "LAB\\admin",
        **_named(task),
        "privileges": None,
        "schemaPath": schema,
    }


def _named(task: SimulatedTask | None) -> Row:
    """The member of an event that names a task; the members for tasks of other kinds are null."""
    named: Row = {"reloadTask": None, "userSyncTask": None, "externalProgramTask": None}
    if task is not None:
        schema = _SCHEMAS[task.kind]
        named[schema[0].lower() + schema[1:]] = _short(task)
    return named


def user_row(user: SimulatedUser) -> Row:
    attributes = [
        {
            "id": str(uuid.uuid5(uuid.UUID(user.id), email)),
            "createdDate": "2026-01-10T09:51:40.000Z",
            "attributeType": "Email",
            "attributeValue": email,
            "externalId": "",
            "schemaPath": "UserAttribute",
        }
        for email in user.emails
    ]
    return {
        "id": user.id,
        "createdDate": "2026-01-10T09:51:40.000Z",
        "modifiedDate": "2026-11-20T03:01:18.010Z",
        "modifiedByUserName": "INTERNAL\\sa_repository",
        "customProperties": [],
        "userId": user.user_id,
        "userDirectory": user.directory,
        "name": user.name or user.user_id,
        "roles": [],
        "attributes": attributes,
        "inactive": False,
        "removedExternally": False,
        "blacklisted": False,
        "tags": [],
        "privileges": None,
        "schemaPath": "User",
    }


def app_row(app_id: str, name: str, owner: SimulatedUser) -> Row:
    """An app. Only its tasks make it known to the site, so the rest is the same for each."""
    return {
        "id": app_id,
        "createdDate": "2026-01-10T09:51:40.000Z",
        "modifiedDate": "2026-11-20T03:01:18.010Z",
        "modifiedByUserName": "LAB\\admin",
        "customProperties": [],
        "owner": condensed("user", user_row(owner)),
        "name": name,
        "appId": "",
        "published": False,
        "stream": None,
        "tags": [],
        "privileges": None,
        "schemaPath": "App",
    }


def script_log(run: Run, attempt: Attempt) -> list[str]:
    if run.task.log is not None:
        return list(run.task.log)
    began = date(attempt.started_ns)
    lines = [
        f"{began}      Execution started.",
        f"{began}      Qlik Sense Server, app {run.task.app_name}",
        f"{began} 0001 SET ThousandSep=',';",
        f"{began} 0002 LIB CONNECT TO 'warehouse';",
        # What a connector writes into a log by mistake: the client has to mask it.
        f'{began}      "Provider=SQLNCLI11;Server=db1;XUserId=loader;XPassword=Sommer2026;"',
        f"{began} 0003 Measurements: LOAD * FROM [lib://warehouse/measurements.qvd] (qvd);",
    ]
    ended = date(attempt.stopped_ns)
    if attempt.status in {8, 11}:
        return [*lines, f"{ended}      {run.task.error_text}", f"{ended}      Execution Failed"]
    return [*lines, f"{ended}      Execution finished."]
