"""Butler's calls with the documented and the given answer, row by row.

``documented`` is what Butler 16 answers: its OpenAPI document, and the behaviour of the framework
that it uses with schemas of the same form. ``given`` is what the appliance answers where that
differs, and ``why`` says why. ``python tests/butler_calls.py`` writes the table into
``docs/butler-calls.md``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from appliance.http_api.butler.schedules import id_of

PAGE = Path(__file__).parents[1] / "docs" / "butler-calls.md"
BEGIN, END = "<!-- Made by tests/butler_calls.py; change the rows there. -->", "<!-- End. -->"
ANY: Any = ...
"""Stands for a value that differs from call to call."""
NONE: Any = b""
"""An answer without a body."""


class Text(str):
    """A body that is no JSON."""

    __slots__ = ()


Answer = tuple[int, Any]


class Row(msgspec.Struct, frozen=True):
    """One call and its answers."""

    method: str
    path: str
    documented: Answer
    body: Any = NONE
    """JSON, or bytes that are sent as they are."""
    headers: dict[str, str] = {}
    given: Answer | None = None
    why: str = ""

    @property
    def answer(self) -> Answer:
        """What the appliance answers."""
        return self.documented if self.given is None else self.given

    @property
    def content(self) -> bytes:
        """The bytes of the request's body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def sent_headers(self) -> dict[str, str]:
        """With the type of the body."""
        kind = {} if self.body is NONE else {"Content-Type": "application/json"}
        return {**kind, **self.headers}


def fault(message: str) -> Answer:
    """400, a field of the request is wrong."""
    return 400, {
        "statusCode": 400,
        "code": "FST_ERR_VALIDATION",
        "error": "Bad Request",
        "message": message,
    }


def refused(message: Any, code: str = "", status: int = 400, error: str = "Bad Request") -> Answer:
    """An error without a fault of the schema."""
    named = {"code": code} if code else {}
    return status, {"statusCode": status, **named, "error": error, "message": message}


def no_route(method: str, path: str) -> Answer:
    """404."""
    message = f"Route {method}:{path} not found"
    return 404, {"message": message, "error": "Not Found", "statusCode": 404}


NOT_THERE = "not offered"
_OVERRIDE = "X-HTTP-Method-Override"
_KV = "/v4/keyvalues/etl"

ABOUT = (
    Row("GET", "/v4/butlerping", (200, {"response": ANY, "butlerVersion": ANY})),
    Row("HEAD", "/v4/butlerping", (200, NONE)),
    Row("POST", "/v4/butlerping", (200, {"response": ANY, "butlerVersion": ANY}),
        headers={_OVERRIDE: "get"}),
    Row("POST", "/v4/butlerping", no_route("POST", "/v4/butlerping")),
    Row("GET", "/v4/butlerping/", no_route("GET", "/v4/butlerping/")),
    Row("GET", "/v4/BUTLERPING", no_route("GET", "/v4/BUTLERPING")),
    Row("GET", "/v4/configfile/endpointsenabled", (200, ANY)),
    Row("GET", "/v4/kvstore/a", no_route("GET", "/v4/kvstore/a")),
    Row("GET", "/v4/keylist/%FF", refused("'/v4/keylist/%FF' is not a valid url component", "FST_ERR_BAD_URL"),
given=refused("The path is not UTF-8 where it has %."), why="the port says so"),
)  # fmt: skip

ELSEWHERE = tuple(
    Row(method, path, (status, ANY), body, given=no_route(method, path.partition("?")[0]),
        why=NOT_THERE)
    for method, path, status, body in (
        ("GET", "/v4/base62tobase16?base62=6DMW88LpSok9Z7P7hUK0wv7bF", 200, NONE),
        ("GET", "/v4/base16tobase62?base16=3199af08bfeeaf5d420f27ed9c01e74370077", 200, NONE),
        ("PUT", "/v4/filecopy", 201, {"fromFile": "a", "toFile": "b"}),
        ("PUT", "/v4/filemove", 201, {"fromFile": "a", "toFile": "b"}),
        ("DELETE", "/v4/filedelete", 204, {"deleteFile": "a"}),
        ("POST", "/v4/createdir", 201, {"directory": "a"}),
        ("POST", "/v4/createdirqvd", 201, {"directory": "a"}),
        ("POST", "/v4/newrelic/event", 202, {}),
        ("POST", "/v4/newrelic/metric", 202, {}),
        ("PUT", "/v4/slackpostmessage", 201, {"channel": "#a", "from_user": "b", "msg": "c"}),
        ("GET", "/v4/app/5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10/dump", 200, NONE),
        ("GET", "/v4/senseappdump/5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10", 200, NONE),
    )
)  # fmt: skip

_PAIR = {"namespace": "etl", "key": "day", "value": "2026-11-29"}
KEY_VALUES = (
    Row("GET", "/v4/keyvaluesnamespaces", (200, [])),
    Row("GET", f"{_KV}?key=day", refused("Namespace not found: etl")),
    Row("GET", f"{_KV}/keyexists?key=day", refused("Namespace not found: etl")),
    Row("GET", "/v4/keylist/etl", refused("Namespace not found: etl")),
    Row("DELETE", f"{_KV}/day", refused("Namespace not found: etl")),
    Row("DELETE", _KV, refused("Namespace not found: etl")),
    Row("POST", _KV, (201, {**_PAIR, "ttl": 0}), {"key": "day", "value": "2026-11-29"}),
    Row("GET", f"{_KV}?key=day", (200, _PAIR)),
    Row("GET", f"{_KV}/keyexists?key=day", (200, {"keyExists": True, "keyValue": _PAIR})),
    Row("GET", f"{_KV}/keyexists?key=no", (200, {"keyExists": False, "keyValue": {}})),
    Row("GET", f"{_KV}?key=no", refused("Key 'no' not found in namespace: etl")),
    Row("GET", f"{_KV}?key=", refused("Key '' not found in namespace: etl")),
    Row("GET", _KV, fault("querystring must have required property 'key'")),
    Row("GET", f"{_KV}/keyexists", fault("querystring must have required property 'key'")),
    Row("GET", f"{_KV}?key=a&key=b", fault("querystring/key must be string")),
    Row("POST", _KV, (201, {"namespace": "etl", "key": "1", "value": "2.5", "ttl": 60000}),
        {"key": 1, "value": 2.5, "ttl": "60000"}),
    Row("POST", _KV, (201, {"namespace": "etl", "key": "true", "value": "", "ttl": 0}),
        {"key": True, "value": None, "ttl": None}),
    Row("POST", _KV, (201, {**_PAIR, "value": "x", "ttl": -5}),
        {"key": "day", "value": "x", "ttl": -5}),
    Row("POST", _KV, (201, {**_PAIR, "value": "x", "ttl": 1}),
        {"key": "day", "value": ["x"], "ttl": 1.7}),
    Row("POST", _KV, fault("body/ttl must be number"), {"key": "a", "value": "b", "ttl": "soon"}),
    Row("POST", _KV, fault("body/value must be string"), {"key": "a", "value": {"b": 1}}),
    Row("POST", _KV, refused("Required parameter is missing"), {"value": "x"}),
    Row("POST", _KV, refused("Required parameter is missing"), {"key": "", "value": "x"}),
    Row("POST", _KV, (201, {"namespace": "etl", "key": "a", "ttl": 0}), {"key": "a"},
        given=refused("Required parameter is missing"),
        why="Butler answers 201 and stores nothing"),
    Row("POST", _KV, fault("body must be object")),
    Row("POST", _KV, fault("body must be object"), []),
    Row("GET", "/v4/keylist/etl",
        (200, {"namespace": "etl", "keys": [{"key": "1"}, {"key": "true"}]})),
    Row("POST", "/v4/keyvalues/my%20space", (201, {"namespace": "my space", "key": "a/b c", "value": "v", "ttl": 0}),
        {"key": "a/b c", "value": "v"}),
    Row("GET", "/v4/keyvalues/my%20space?key=a%2Fb+c",
        (200, {"namespace": "my space", "key": "a/b c", "value": "v"})),
    Row("GET", "/v4/keyvaluesnamespaces", (200, ["etl", "my space"])),
    Row("DELETE", "/v4/keyvalues/my%20space/a%2Fb%20c", (204, NONE)),
    Row("GET", "/v4/keylist/my%20space", (200, {"namespace": "my space", "keys": []})),
    Row("DELETE", f"{_KV}/no", refused("Key 'no' not found in namespace: etl")),
    Row("POST", f"{_KV}/1", (204, NONE), headers={_OVERRIDE: "DELETE"}),
    Row("DELETE", "/v4/keyvalues/my%20space", (204, NONE)),
    Row("DELETE", _KV, refused("Body cannot be empty when content-type is set to 'application/json'",
                               "FST_ERR_CTP_EMPTY_JSON_BODY"),
        headers={"Content-Type": "application/json"}, given=(204, NONE),
        why="the type of a body that is not there does no harm"),
    Row("GET", "/v4/keyvaluesnamespaces", (200, [])),
)  # fmt: skip

SALES = {"taskId": "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10", "taskName": "Reload Sales"}
STOCK = {"taskId": "6f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b11", "taskName": "Reload Stock"}
COSTS = {"taskId": "7f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b12", "taskName": "Reload Costs"}
SECRET = {"taskId": "8f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b13", "taskName": "Secret"}
"""Not in ``[allow]``."""
UNKNOWN = "9f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b14"
"""In ``[allow]``, as the first three; the server has no such task."""
APP = "1f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b20"
NIGHTLY, DENIED_TAG, LATE_TAG, EMPTY_TAG = "nightly", "secret", "late", "no task has it"
GROUP, VALUE, DENIED_VALUE = "Group", "day", "secret"
_SALES_PATH = f"/v4/reloadtask/{SALES['taskId']}/start"
_START = "/v4/reloadtask/-/start"


def _id(task: Any) -> dict[str, Any]:
    return {"taskId": task["taskId"]}


def _by_id(task: Any) -> dict[str, Any]:
    return {"type": "starttaskid", "payload": {"taskId": task}}


def _by_tag(tag: Any) -> dict[str, Any]:
    return {"type": "starttasktag", "payload": {"tag": tag}}


def _by_property(name: Any, value: Any) -> dict[str, Any]:
    payload = {"customPropertyName": name, "customPropertyValue": value}
    return {"type": "starttaskcustomproperty", "payload": payload}


def started(**lists: Any) -> Answer:
    """200, with what the lists have; the others are empty."""
    one = ("started", "invalid", "denied")
    others = ("tasksTag", "tasksTagDenied", "tasksCP", "tasksCPDenied")
    ids = {name: lists.pop(name, []) for name in one}
    body = {"tasksId": ids, **{name: lists.pop(name, []) for name in others}}
    assert not lists
    return 200, body


_FAILED = refused("Failed starting task", status=500, error="Internal Server Error")
_NO_SILENCE = "Butler ignores the item and says nothing"
STARTS = (
    Row("PUT", _SALES_PATH, started(started=[SALES]), []),
    Row("POST", _SALES_PATH, started(started=[SALES]), []),
    Row("POST", _SALES_PATH, started(started=[SALES]), [], headers={_OVERRIDE: "PUT"}),
    Row("PUT", _START, started(), []),
    Row("PUT", _SALES_PATH, started(started=[SALES, STOCK]), [_by_id(STOCK["taskId"])]),
    Row("PUT", _SALES_PATH, started(started=[SALES, SALES]), [_by_id(SALES["taskId"])]),
    Row("PUT", _START, started(started=[STOCK], invalid=[{"taskId": UNKNOWN}], denied=[_id(SECRET)]),
        [_by_id(UNKNOWN), _by_id(SECRET["taskId"]), _by_id(STOCK["taskId"])]),
    Row("PUT", f"{_START}?allTaskIdsMustExist=false",
        started(started=[STOCK], invalid=[{"taskId": UNKNOWN}]),
        [_by_id(UNKNOWN), _by_id(STOCK["taskId"])]),
    Row("PUT", f"{_START}?allTaskIdsMustExist=true",
        started(invalid=[{"taskId": UNKNOWN}], denied=[_id(SECRET), _id(STOCK)]),
        [_by_id(UNKNOWN), _by_id(SECRET["taskId"]), _by_id(STOCK["taskId"])]),
    Row("PUT", f"{_START}?allTaskIdsMustExist=true", started(started=[STOCK], denied=[_id(SECRET)]),
        [_by_id(SECRET["taskId"]), _by_id(STOCK["taskId"])]),
    Row("PUT", f"{_START}?allTaskIdsMustExist=true",
        started(invalid=[{"taskId": "x"}], tasksTag=[SALES, STOCK], tasksCP=[COSTS]),
        [_by_id("x"), _by_tag(NIGHTLY), _by_property(GROUP, VALUE)]),
    Row("PUT", "/v4/reloadtask/no-id/start", started(invalid=[{"taskId": "no-id"}]), []),
    Row("PUT", "/v4/reloadtask/%2Fx%20y/start", started(invalid=[{"taskId": "/x y"}]), []),
    Row("PUT", _START, started(invalid=[{"taskId": 5}, {"taskId": None}, {}]),
        [_by_id(5), _by_id(None), {"type": "starttaskid", "payload": {}}]),
    Row("PUT", _START, started(invalid=[{"taskId": SALES["taskId"].upper()}]),
        [_by_id(SALES["taskId"].upper())], given=started(started=[SALES]),
        why="it is the same task; Butler takes both cases over MQTT"),
    Row("PUT", _START, started(tasksTag=[SALES, STOCK]), [_by_tag(NIGHTLY)]),
    Row("PUT", _START, started(tasksTagDenied=[{"tag": DENIED_TAG}]), [_by_tag(DENIED_TAG)]),
    Row("PUT", _START, started(tasksTagDenied=[{"tag": LATE_TAG}]), [_by_tag(LATE_TAG)],
        given=started(tasksTag=[COSTS]), why="[allow] has all of its tasks, if not the tag"),
    Row("PUT", _START, started(tasksTagDenied=[{"tag": EMPTY_TAG}]), [_by_tag(EMPTY_TAG)]),
    Row("PUT", _START, started(tasksCP=[COSTS]), [_by_property(GROUP, VALUE)]),
    Row("PUT", _START, started(tasksCPDenied=[{"name": GROUP, "value": DENIED_VALUE}]),
        [_by_property(GROUP, DENIED_VALUE)]),
    Row("PUT", _START, started(started=[SALES], tasksTag=[SALES, STOCK], tasksCP=[COSTS]),
        [_by_property(GROUP, VALUE), _by_tag(NIGHTLY), _by_id(SALES["taskId"])]),
    Row("PUT", _START, started(),
        [{"type": "keyvaluestore", "payload": {"namespace": "s", "key": "k", "value": "v", "ttl": 0}}]),
    Row("GET", "/v4/keyvalues/s?key=k", (200, {"namespace": "s", "key": "k", "value": "v"})),
    Row("PUT", _START, started(),
        [{"type": "keyvaluestore", "payload": {"namespace": "s", "key": "k", "value": ""}}]),
    Row("GET", "/v4/keyvalues/s?key=k", (200, {"namespace": "s", "key": "k", "value": "v"})),
    Row("PUT", _START, fault("body/0 must be object")),
    Row("PUT", _START, refused("Body cannot be empty when content-type is set to 'application/json'",
                               "FST_ERR_CTP_EMPTY_JSON_BODY"),
        headers={"Content-Type": "application/json"}),
    Row("PUT", _START, fault("body must be array"), {}),
    Row("PUT", _START, fault("body/0 must be object"), "abc"),
    Row("PUT", _START, fault("body/1 must be object"), [_by_id(SALES["taskId"]), []]),
    Row("PUT", _START, fault("body/1/type must be equal to one of the allowed values"),
        [_by_id(SALES["taskId"]), {"type": "startall", "payload": {}}]),
    Row("PUT", _START, fault("body/0/type must be equal to one of the allowed values"),
        [{"type": 5, "payload": {}}]),
    Row("PUT", _START, fault("body/0/payload must be object"),
        [{"type": "starttaskid", "payload": SALES["taskId"]}]),
    Row("PUT", _START, refused("Body is not valid JSON but content-type is set to 'application/json'",
                               "FST_ERR_CTP_INVALID_JSON_BODY"), b"[{"),
    Row("PUT", _START, fault("body/0 must be object"), b"[]", headers={"Content-Type": "text/plain"}),
    Row("PUT", _START, refused("Unsupported Media Type", "FST_ERR_CTP_INVALID_MEDIA_TYPE", 415,
                               "Unsupported Media Type"),
        b"[]", headers={"Content-Type": "application/xml"}),
    Row("PUT", f"{_START}?allTaskIdsMustExist=1",
        fault("querystring/allTaskIdsMustExist must be boolean"), []),
    Row("PUT", f"{_START}?allTaskIdsMustExist=true&allTaskIdsMustExist=true",
        fault("querystring/allTaskIdsMustExist must be boolean"), []),
    Row("PUT", _START, started(), [{"payload": {"taskId": SALES["taskId"]}}],
        given=fault("body/0 must have required property 'type'"), why=_NO_SILENCE),
    Row("PUT", _START, _FAILED, [{"type": "starttaskid"}],
        given=fault("body/0 must have required property 'payload'"), why="the body is at fault"),
    Row("PUT", _START, _FAILED, [_by_tag("")],
        given=fault("body/0/payload/tag must not be empty"), why="the body is at fault"),
    Row("PUT", "/v4/reloadtask//start", refused(ANY), [],
        given=refused('The task id is missing; "-" stands for none.'), why="the text differs"),
    Row("DELETE", "/v4/keyvalues/s", (204, NONE)),
    Row("GET", _START, no_route("GET", _START)),
    Row("PUT", "/v4/reloadtask/start", no_route("PUT", "/v4/reloadtask/start"), []),
)  # fmt: skip

_RELOAD = f"/v4/app/{APP}/reload"
APPS = (
    Row("GET", "/v4/apps/list", (200, [{"id": APP, "name": "Costs"}])),
    Row("GET", "/v4/senselistapps", (200, [{"id": APP, "name": "Costs"}])),
    Row("PUT", _RELOAD, (201, {"appId": APP}), {}),
    Row("PUT", _RELOAD, (201, {"appId": APP}), {"reloadMode": "0", "partialReload": "false"}),
    Row("PUT", _RELOAD, (201, {"appId": APP}),
        {"startQSEoWTaskOnSuccess": [SALES["taskId"]], "startQSEoWTaskOnFailure": STOCK["taskId"]}),
    Row("PUT", _RELOAD, (201, {"appId": APP}), {"reloadMode": 2},
        given=refused("Only reloadMode 0 is offered: the app is reloaded by a task of the server."),
        why="such a reload can't be had from a task"),
    Row("PUT", _RELOAD, fault("body must be object")),
    Row("PUT", _RELOAD, fault("body/reloadMode must be integer"), {"reloadMode": 1.5}),
    Row("PUT", _RELOAD, fault("body/partialReload must be boolean"), {"partialReload": "x"}),
    Row("PUT", _RELOAD, fault("body/startQSEoWTaskOnSuccess must be array"),
        {"startQSEoWTaskOnSuccess": {}}),
    Row("PUT", "/v4/app/no-id/reload", refused(ANY, status=500, error="Internal Server Error"), {},
        given=refused("App not found: no-id"), why="the path is at fault"),
)  # fmt: skip

_PUBLISH = "/v4/mqttpublishmessage"
_SENT = {"topic": "plant/a", "message": "dt=20261129"}
_NO_TOPIC = "no message can have this topic: Butler answers 201, and its broker ends the connection"
MESSAGES = (
    Row("PUT", _PUBLISH, (201, _SENT), _SENT),
    Row("PUT", _PUBLISH, (201, {**_SENT, "more": 1}), {**_SENT, "more": 1}),
    Row("PUT", _PUBLISH, (201, {"topic": "1", "message": "2.5"}), {"topic": 1, "message": 2.5}),
    Row("PUT", _PUBLISH, (201, {"topic": "true", "message": ""}), {"topic": True, "message": None}),
    Row("PUT", _PUBLISH, (201, {"message": "x", "topic": "plant/b"}),
        {"message": ["x"], "topic": "plant/b"}),
    Row("POST", _PUBLISH, (201, _SENT), _SENT, headers={_OVERRIDE: "put"}),
    Row("POST", _PUBLISH, no_route("POST", _PUBLISH), _SENT),
    Row("PUT", _PUBLISH, fault("body must have required property 'topic'"), {"message": "x"}),
    Row("PUT", _PUBLISH, fault("body must have required property 'message'"), {"topic": "x"}),
    Row("PUT", _PUBLISH, fault("body/message must be string"), {"topic": "a", "message": {}}),
    Row("PUT", _PUBLISH, fault("body/topic must be string"), {"topic": ["a", "b"], "message": ""}),
    Row("PUT", _PUBLISH, fault("body must be object"), []),
    Row("PUT", _PUBLISH, fault("body must be object")),
    Row("PUT", _PUBLISH, (201, ANY), {"topic": "plant/#", "message": "x"},
        given=refused(ANY), why=_NO_TOPIC),
    Row("PUT", _PUBLISH, (201, ANY), {"topic": "", "message": "x"},
        given=refused(ANY), why=_NO_TOPIC),
    Row("PUT", _PUBLISH, (201, ANY), {"topic": "appliance/status", "message": "x"},
        given=refused(ANY, status=403, error="Forbidden"), why="the appliance's own topics"),
)  # fmt: skip

TIMER = "nightly"
"""A ``[[timer]]`` of the configuration."""
_TIMER_ID = id_of(TIMER)
_CONFIGURED = {
    "name": TIMER,
    "cronSchedule": "30 4 * * *",
    "timezone": "UTC",
    "qlikSenseTaskId": SALES["taskId"],
    "startupState": "start",
    "tags": [],
    "id": _TIMER_ID,
    "lastKnownState": "started",
}
_STOPPED = {**_CONFIGURED, "lastKnownState": "stopped"}
_WANTED = {
    "name": "made",
    "cronSchedule": "0 30 6 * * 1-5",
    "timezone": "Europe/Stockholm",
    "qlikSenseTaskId": STOCK["taskId"],
    "startupState": "stopped",
    "tags": ["a"],
}
_MADE = {**_WANTED, "id": ANY, "created": ANY, "lastKnownState": "stopped"}
_LINE = f"{_TIMER_ID}: 30 4 * * * status: "
_ONE = f"/v4/schedules/{_TIMER_ID}"
SCHEDULES = (
    Row("GET", "/v4/schedules", (200, [_CONFIGURED])),
    Row("GET", f"/v4/schedules?id={_TIMER_ID}", (200, [_CONFIGURED])),
    Row("GET", "/v4/schedules?id=no", refused(ANY)),
    Row("GET", "/v4/schedules/status", (200, Text(f"{_LINE}Running\n"))),
    Row("PUT", f"{_ONE}/stop", (200, [_STOPPED])),
    Row("GET", "/v4/schedules/status", (200, Text(f"{_LINE}Stopped\n"))),
    Row("PUT", f"{_ONE}/start", (200, [_CONFIGURED])),
    Row("PUT", "/v4/schedules/stopall", (200, [_STOPPED])),
    Row("PUT", "/v4/schedules/startall", (200, [_CONFIGURED])),
    Row("PUT", "/v4/schedules/no/start", refused(ANY)),
    Row("PUT", "/v4/schedules/no/stop", refused(ANY)),
    Row("DELETE", "/v4/schedules/no", refused(ANY)),
    Row("DELETE", _ONE, (204, NONE), given=refused(ANY),
        why="a [[timer]] of the configuration is removed there"),
    Row("POST", "/v4/schedules", (201, _MADE), _WANTED),
    Row("GET", "/v4/schedules", (200, [_CONFIGURED, _MADE])),
    Row("POST", "/v4/schedules", fault("body must have required property 'name'"),
        {"cronSchedule": "* * * * *"}),
    Row("POST", "/v4/schedules", fault("body must be object"), []),
    Row("POST", "/v4/schedules",
        fault("body/startupState must be equal to one of the allowed values"),
        {**_WANTED, "startupState": "maybe"}),
    Row("POST", "/v4/schedules", (201, ANY), {**_WANTED, "cronSchedule": "soon"},
        given=refused(ANY), why="it would never fire"),
    Row("POST", "/v4/schedules", (201, ANY), {**_WANTED, "timezone": "Mars/Base"},
        given=refused(ANY), why="the time zone counts here"),
    Row("POST", "/v4/schedules", (201, ANY), {**_WANTED, "qlikSenseTaskId": "no-id"},
        given=refused(ANY), why="it could never start anything"),
)  # fmt: skip

TABLES: dict[str, tuple[Row, ...]] = {
    "About": ABOUT,
    "Starts": STARTS,
    "Apps": APPS,
    "Messages": MESSAGES,
    "Key-value store": KEY_VALUES,
    "Schedules": SCHEDULES,
    "Not offered": ELSEWHERE,
}


def agrees(found: Any, wanted: Any) -> bool:
    """Whether an answer is the wanted one: its members, in their order."""
    if wanted is ANY:
        return True
    if isinstance(wanted, dict) and isinstance(found, dict):
        return list(found) == list(wanted) and all(
            agrees(found[each], wanted[each]) for each in wanted
        )
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(agrees, found, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


def table() -> str:
    """The table for people."""
    lines = [BEGIN]
    for title, rows in TABLES.items():
        lines += ["", f"### {title}", "", "| Call | Documented | Given |", "|---|---|---|"]
        for row in rows:
            same = "the same" if row.given is None else f"{_answer(row.given)} ({row.why})"
            lines.append(f"| {_call(row)} | {_answer(row.documented)} | {same} |")
    return "\n".join([*lines, "", END])


_WORDS = {
    SALES["taskId"]: "SALES",
    SALES["taskId"].upper(): "SALES in upper case",
    STOCK["taskId"]: "STOCK",
    COSTS["taskId"]: "COSTS",
    SECRET["taskId"]: "SECRET",
    UNKNOWN: "UNKNOWN",
    APP: "APP",
}
"""For ids, which nobody can tell from each other."""


def _call(row: Row) -> str:
    text = f"`{row.method} {_worded(row.path)}`"
    if named := row.headers.get(_OVERRIDE):
        text += f" as `{named.upper()}`"
    if row.body is not NONE:
        text += f" {_code(row.body)}"
    return text + (f", {kind}" if (kind := row.headers.get("Content-Type")) else "")


def _answer(answer: Answer) -> str:
    status, body = answer
    if body is NONE or body is ANY:
        return str(status)
    if isinstance(body, dict) and "message" in body and "error" in body:
        return f"{status}" if body["message"] is ANY else f"{status} {body['message']}"
    if isinstance(body, dict) and "tasksId" in body:
        ids = {name: each for name, each in body["tasksId"].items() if each}
        more = {name: each for name, each in body.items() if each and name != "tasksId"}
        body = {**({"tasksId": ids} if ids else {}), **more}
        return f"{status} {_code(body)}" if body else f"{status}, all lists empty"
    return f"{status} {_code(body)}"


def _code(body: Any) -> str:
    if isinstance(body, bytes | Text):
        text = str(body.decode() if isinstance(body, bytes) else body).replace("\n", " / ")
    else:
        text = json.dumps(body, default=lambda _any: "...")
    return f"`{_worded(text)}`".replace("|", "\\|")


def _worded(text: str) -> str:
    for number, word in _WORDS.items():
        text = text.replace(number, word)
    return text


def page() -> str:
    """The page with the present table."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return before + table() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
