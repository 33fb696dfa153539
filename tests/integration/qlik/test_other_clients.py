"""What other Qlik clients send, spoken over plain sockets: the simulated server answers it.

The real clients themselves are in test_real_clients.py.
"""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from appliance.model import TaskKind
from appliance.qlik.embedded import EmbeddedQlik
from appliance.qlik.simulated import ManualClock, Outcome, Proxy, SimulatedQlik
from appliance.qlik.simulated.bodies import LIMIT

KEY = "0123456789abcdeF"
USER = "UserDirectory=INTERNAL;UserId=sa_repository"
UNKNOWN = "00000000-0000-4000-8000-000000000001"
ABSENT = "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def qlik(clock: ManualClock) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(clock=clock, proxies=[Proxy("hdr")]) as server:
        yield server


def call(qlik, method, path, body=None, *, user=USER, key=KEY, headers=None, param="xrfkey"):
    """One request; returns status and body, decoded from JSON where it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", qlik.port, timeout=10)
    given = {"X-Qlik-Xrfkey": key, "X-Qlik-User": user} | (headers or {})
    mark = "&" if "?" in path else "?"
    try:
        connection.request(
            method,
            f"{path}{mark}{param}={key}",
            body,
            {name: value for name, value in given.items() if value is not None},
        )
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    kind = answer.getheader("Content-Type", "")
    return answer.status, json.loads(data) if "json" in kind else data.decode()


@pytest.mark.parametrize(
    "user",
    [
        "UserDirectory=internal;UserID=sa_repository",
        "UserDirectory=INTERNAL; UserId=sa_repository",
        "userdirectory=INTERNAL;userid=sa_repository",
        " UserId = sa_repository ; UserDirectory = INTERNAL ;",
    ],
)
def test_x_qlik_user_is_read_as_clients_write_it(qlik, user) -> None:
    """qrs-api-client says UserID, qsAPI puts a blank after the semicolon."""
    assert call(qlik, "GET", "/qrs/about", user=user)[0] == 200


@pytest.mark.parametrize(
    "user",
    [None, "", "sa_repository", "UserDirectory:INTERNAL;UserId:sa_repository", "UserId=someone"],
)
def test_x_qlik_user_without_both_parts_is_forbidden(qlik, user) -> None:
    assert call(qlik, "GET", "/qrs/about", user=user)[0] == 403


def test_an_inactive_user_is_inactive_in_any_case(qlik) -> None:
    qlik.inactive_users.add("INTERNAL\\sa_repository")
    status, text = call(
        qlik, "GET", "/qrs/about", user="UserDirectory=internal;UserID=SA_Repository"
    )
    assert status == 403 and "inactive" in text


@pytest.mark.parametrize("param", ["xrfkey", "Xrfkey", "XRFKEY"])
def test_the_case_of_the_key_parameter_does_not_matter(qlik, param) -> None:
    assert call(qlik, "GET", "/qrs/about", param=param)[0] == 200


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("0123456789abcde", None),  # short
        ("0123456789abcde-", None),  # neither letter nor digit
        ("0123456789abcd%C3%A4", None),  # a letter outside ASCII
        (KEY, "0123456789abcdef"),  # the header has another one
        (KEY, ""),
    ],
)
def test_a_wrong_key_is_a_forgery(qlik, key, header) -> None:
    headers = {"X-Qlik-Xrfkey": key if header is None else header}
    status, text = call(qlik, "GET", "/qrs/about", key=key, headers=headers)
    assert (status, text) == (403, "XSRF prevention check failed. Possible XSRF discovered.")


# --- HTTP ----------------------------------------------------------------------------------------


class Wire:
    """One keep-alive connection, byte by byte."""

    def __init__(self, qlik: SimulatedQlik) -> None:
        self.socket = socket.create_connection(("127.0.0.1", qlik.port), 10)
        self.file = self.socket.makefile("rb")

    def send(self, method: str, path: str, *fields: str, body: bytes = b"") -> None:
        head = [
            f"{method} {path}{'&' if '?' in path else '?'}xrfkey={KEY} HTTP/1.1",
            "Host: 127.0.0.1",
            f"X-Qlik-Xrfkey: {KEY}",
            f"X-Qlik-User: {USER}",
            *fields,
        ]
        self.socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def is_closed(self) -> bool:
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True


@pytest.fixture
def wire(qlik: SimulatedQlik) -> Iterator[Wire]:
    made = Wire(qlik)
    yield made
    made.file.close()
    made.socket.close()


@pytest.mark.parametrize(
    "body",
    [
        b"0\r\n\r\n",
        b"2\r\n[]\r\n0\r\n\r\n",
        b'1;name="a;b"\r\n[\r\n00001 \r\n]\r\n0\r\n\r\n',
        b"2\r\n[]\r\n0\r\nChecksum: abc\r\nOther: 1\r\n\r\n",
    ],
    ids=["empty", "one", "extensions", "trailers"],
)
def test_a_chunked_body_does_not_spoil_the_next_request(qlik, wire, body) -> None:
    """Node's https.request sends chunks whenever a client gives no length, as qrs-interact does."""
    task = qlik.add_task("A")
    for _ in range(2):
        wire.send("POST", f"/qrs/task/{task.id}/start", "Transfer-Encoding: chunked", body=body)
        assert wire.receive()[0] == 204
        wire.send("GET", "/qrs/about")
        assert wire.receive()[0] == 200
    assert qlik.connections == 1


def test_a_body_in_chunks_is_the_body(qlik, wire) -> None:
    tasks = [qlik.add_task(name) for name in "AB"]
    data = json.dumps([task.id for task in tasks]).encode()
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(data[i : i + 7]), data[i : i + 7]) for i in range(0, len(data), 7)
    )
    wire.send(
        "POST", "/qrs/task/start/many", "Transfer-Encoding: Chunked", body=chunks + b"0\r\n\r\n"
    )
    assert wire.receive()[0] == 204
    assert [qlik.starts(task.id) for task in tasks] == [1, 1]
    assert len(qlik.site.sessions()) == 2


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        (["Transfer-Encoding: chunked"], b"x\r\n", 400),
        (["Transfer-Encoding: chunked"], b"-1\r\n", 400),
        (["Transfer-Encoding: chunked"], b"1\r\nab\r\n0\r\n\r\n", 400),
        (["Transfer-Encoding: chunked"], b"ffffffff\r\n", 413),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], b"0\r\n\r\n", 400),
        (["Transfer-Encoding: gzip, chunked"], b"", 501),
        (["Content-Length: -1"], b"", 400),
        (["Content-Length: many"], b"", 400),
        (["Content-Length: 1", "Content-Length: 2"], b"ab", 400),
        ([f"Content-Length: {LIMIT + 1}"], b"", 413),
        (["Content-Length: " + "9" * 5000], b"", 413),
        ([f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"], b"", 413),
    ],
)
def test_a_body_without_a_known_end_ends_the_connection(qlik, wire, fields, body, status) -> None:
    task = qlik.add_task("A")
    wire.send("POST", f"/qrs/task/{task.id}/start", *fields, body=body)
    got, headers, text = wire.receive()
    assert got == status and text and headers["connection"] == "close"
    assert wire.is_closed()
    assert qlik.starts() == 0
    assert call(qlik, "GET", "/qrs/about")[0] == 200


def test_a_client_that_expects_100_continue_is_told_to_go_on(qlik, wire) -> None:
    """curl asks before a body over 1 MB, .NET's HttpClient when it is told to."""
    task = qlik.add_task("A")
    data = json.dumps([task.id]).encode()
    wire.send(
        "POST", "/qrs/task/start/many", f"Content-Length: {len(data)}", "Expect: 100-continue"
    )
    assert wire.receive()[0] == 100
    wire.socket.sendall(data)
    assert wire.receive()[0] == 204
    wire.send("GET", "/qrs/about")
    assert wire.receive()[0] == 200


def test_head_has_the_header_fields_of_get_and_no_body(qlik, wire) -> None:
    wire.send("GET", "/qrs/about")
    _, of_get, body = wire.receive()
    wire.send("HEAD", "/qrs/about")
    assert int(of_get["content-length"]) == len(body) > 0
    status = wire.file.readline()
    fields = {}
    while line := wire.file.readline().strip().decode():
        name, _, value = line.partition(": ")
        fields[name.lower()] = value
    assert status.startswith(b"HTTP/1.1 200 ") and fields == of_get
    wire.send("GET", "/qrs/about")  # what follows at once is its answer, not a body
    assert wire.receive()[2] == body


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "DELETE", "PUT"])
def test_a_method_that_is_not_served_keeps_the_connection(wire, method) -> None:
    wire.send(method, "/qrs/about", "Content-Length: 2", body=b"{}")
    assert wire.receive()[0] == 404
    wire.send("GET", "/qrs/about")
    assert wire.receive()[0] == 200


def test_requests_that_come_in_one_piece_are_answered_in_order(qlik, wire) -> None:
    task = qlik.add_task("A")
    line = f"xrfkey={KEY} HTTP/1.1\r\nHost: x\r\nX-Qlik-Xrfkey: {KEY}\r\nX-Qlik-User: {USER}\r\n"
    wire.socket.sendall(
        f"POST /qrs/task/{task.id}/start?{line}Transfer-Encoding: chunked\r\n\r\n"
        f"2\r\n{{}}\r\n0\r\n\r\nGET /qrs/about?{line}\r\nGET /qrs/task/count?{line}\r\n".encode()
    )
    assert [wire.receive()[0] for _ in range(3)] == [204, 200, 200]


# --- lists ---------------------------------------------------------------------------------------


def test_each_list_has_a_condensed_form_a_full_form_and_a_count(qlik, clock) -> None:
    reload = qlik.add_task("A", app_id=UNKNOWN, app_name="App", tags=("x",))
    program = qlik.add_task("B", kind=TaskKind.EXTERNAL_PROGRAM)
    qlik.add_task("C", kind=TaskKind.USER_SYNC)
    qlik.run_elsewhere(reload.id)
    clock.advance(60)
    qlik.run_elsewhere(program.id)
    sizes = {
        "task": 3,
        "reloadtask": 1,
        "externalprogramtask": 1,
        "usersynctask": 1,
        "executionsession": 1,
        "executionresult": 2,
        "app": 1,
    }
    for entity, size in sizes.items():
        status, short = call(qlik, "GET", f"/qrs/{entity}")
        assert status == 200 and len(short) == size, entity
        status, full = call(qlik, "GET", f"/qrs/{entity}/full")
        assert [row["id"] for row in full] == [row["id"] for row in short], entity
        assert set(short[0]) < set(full[0]), entity
        assert call(qlik, "GET", f"/qrs/{entity}/count") == (200, {"value": size}), entity
        if entity != "task":
            assert call(qlik, "GET", f"/qrs/{entity}/{full[0]['id']}") == (200, full[0]), entity
            assert call(qlik, "GET", f"/qrs/{entity}/{ABSENT}")[0] == 404
    assert call(qlik, "GET", f"/qrs/task/{reload.id}")[0] == 404
    assert call(qlik, "GET", "/qrs/ReloadTask/Full")[0] == 200
    assert call(qlik, "GET", "/qrs/ssl/ping") == (200, "Ping successful")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("name eq 'it''s'", ["it's"]),
        ("name sw 'REL'", ["Reload A", "Reload B"]),
        ("enabled eq false", ["Reload B"]),
        ("taskType eq ExternalProgram", ["it's"]),
        ("taskType eq 0 and tags.name eq 'X'", ["Reload A"]),
        ("operational.lastExecutionResult.status eq FinishedFail", ["Reload A"]),
        ("operational.lastExecutionResult.status eq 8", ["Reload A"]),
        ("operational.lastExecutionResult.status ne FinishedFail", ["it's", "Reload B"]),
        ("operational.lastExecutionResult.stopTime gt '2000-01-01T00:00:00.000Z'", ["Reload A"]),
        ("customProperties.definition.name eq 'p' and customProperties.value eq 'v'", ["Reload B"]),
    ],
)
def test_the_filters_that_clients_send(qlik, clock, wanted, names) -> None:
    failing = qlik.add_task("Reload A", tags=("x",), outcomes=(Outcome.FAIL,))
    qlik.add_task("Reload B", enabled=False, properties=(("p", "v"),))
    qlik.add_task("it's", kind=TaskKind.EXTERNAL_PROGRAM)
    qlik.run_elsewhere(failing.id)
    clock.advance(60)
    encoded = quote(wanted)
    status, rows = call(qlik, "GET", f"/qrs/task/full?filter={encoded}&orderby=name")
    assert (status, [row["name"] for row in rows]) == (200, names)
    assert call(qlik, "GET", f"/qrs/task/count?filter={encoded}") == (200, {"value": len(names)})


def test_mistakes_in_a_query_are_said_as_the_server_says_them(qlik) -> None:
    """An unescaped quote, and an ampersand that was not encoded (docs/qlik.md)."""
    status, text = call(qlik, "GET", "/qrs/task/full?filter=name%20eq%20'it's'")
    assert status == 400 and text.startswith("Cannot parse the expression")
    assert call(qlik, "GET", "/qrs/task/count?filter=name%20eq%20'it's'")[0] == 400
    assert call(qlik, "GET", "/qrs/task/full?filter=name%20eq%20'A&B'") == (
        400,
        "Missing parameter value(s)",
    )
    assert call(qlik, "GET", "/qrs/nothing") == (404, "No matching endpoint found")


def test_results_are_sorted_by_what_the_client_asks_for(qlik, clock) -> None:
    for seconds in (9, 100, 20):
        task = qlik.add_task(f"T{seconds}", duration_s=seconds)
        qlik.run_elsewhere(task.id)
        clock.advance(200)
        qlik.site.advance()
    for order, wanted in (("duration", [9, 20, 100]), ("duration%20desc", [100, 20, 9])):
        _, rows = call(qlik, "GET", f"/qrs/executionresult/full?orderby={order}")
        assert [row["duration"] // 1000 for row in rows] == wanted
    _, rows = call(qlik, "GET", "/qrs/executionresult?orderby=starttime%20desc")
    assert [row["duration"] // 1000 for row in rows] == [20, 100, 9]


def test_a_user_without_rights_sees_an_empty_site(qlik) -> None:
    task = qlik.add_task("A")
    qlik.rightless_users.add("INTERNAL\\sa_repository")
    assert call(qlik, "GET", "/qrs/about")[0] == 200
    for path in ("task", "task/full", "reloadtask", "executionresult/full"):
        assert call(qlik, "GET", f"/qrs/{path}") == (200, [])
    assert call(qlik, "GET", "/qrs/task/count") == (200, {"value": 0})
    assert call(qlik, "POST", f"/qrs/task/{task.id}/start")[0] == 403
    status, text = call(qlik, "POST", "/qrs/task/start?name=A")
    assert status == 400 and text.startswith("Cannot find a task with the following name")
    assert not qlik.site.sessions()


# --- starts --------------------------------------------------------------------------------------


def test_a_task_is_started_by_its_name(qlik) -> None:
    task = qlik.add_task("Über & more")
    name = "%C3%9Cber%20%26%20more"
    status, answer = call(qlik, "POST", f"/qrs/task/start/synchronous?name={name}")
    assert status == 201 and answer["value"] == qlik.site.sessions()[0].execution_id
    qlik.site.finish(task.id)
    assert call(qlik, "POST", f"/qrs/task/start?name={name}") == (204, "")
    assert qlik.starts(task.id) == 2 and len(qlik.site.sessions()) == 1
    status, text = call(qlik, "POST", "/qrs/task/start?name=nothing")
    assert status == 400 and text.startswith("Cannot find a task with the following name")


def test_a_name_that_two_tasks_have_starts_neither(qlik) -> None:
    qlik.add_task("A")
    qlik.add_task("A")
    for path in ("start", "start/synchronous"):
        assert call(qlik, "POST", f"/qrs/task/{path}?name=A")[0] == 400
    assert not qlik.site.sessions()


def test_many_are_started_and_stopped_with_one_call(qlik, clock) -> None:
    tasks = [qlik.add_task(name, duration_s=600) for name in "ABC"]
    ids = json.dumps([tasks[0].id.upper(), UNKNOWN, tasks[1].id])
    assert call(qlik, "POST", "/qrs/task/start/many", ids) == (204, "")
    assert [run.task for run in qlik.site.sessions()] == tasks[:2]
    assert [qlik.starts(task.id) for task in tasks] == [1, 1, 0]
    assert call(qlik, "POST", "/qrs/task/stop/many", ids) == (204, "")
    clock.advance(1)
    assert not qlik.site.sessions()
    for body in ("", "{}", "[1]", '"x"', b"\xff"):
        assert call(qlik, "POST", "/qrs/task/start/many", body)[0] == 400


def test_an_app_is_reloaded_by_a_task_that_is_kept(qlik, clock) -> None:
    qlik.add_task("A", app_id=UNKNOWN, app_name="Sales")
    for _ in range(2):
        assert call(qlik, "POST", f"/qrs/app/{UNKNOWN.upper()}/reload") == (204, "")
        clock.advance(60)
    _, rows = call(qlik, "GET", "/qrs/reloadtask/full?filter=isManuallyTriggered%20eq%20true")
    assert [row["name"] for row in rows] == ["Manually triggered reload of Sales"]
    assert call(qlik, "GET", "/qrs/executionresult/count") == (200, {"value": 2})
    assert call(qlik, "POST", f"/qrs/app/{UNKNOWN.replace('1', '2')}/reload")[0] == 404


def test_a_reload_task_is_created_for_an_app_of_the_site(qlik) -> None:
    qlik.add_task("A", app_id=UNKNOWN, app_name="Sales")
    bundle = {"task": {"name": "New", "app": {"id": UNKNOWN}, "enabled": True, "maxRetries": 2}}
    status, row = call(qlik, "POST", "/qrs/reloadtask/create", json.dumps(bundle))
    assert (status, row["name"], row["app"]["name"], row["maxRetries"]) == (201, "New", "Sales", 2)
    assert call(qlik, "GET", f"/qrs/reloadtask/{row['id']}")[0] == 200
    bundle["task"]["app"]["id"] = UNKNOWN.replace("1", "2")
    for body in ("", "[]", '{"task": {"name": 1}}', json.dumps(bundle)):
        assert call(qlik, "POST", "/qrs/reloadtask/create", body)[0] == 400
    assert len(qlik.site.tasks) == 2


def test_the_same_paths_are_there_behind_a_virtual_proxy(qlik) -> None:
    qlik.add_task("A")
    headers = {"hdr-usr": "DOM\\user", "X-Qlik-User": None}
    for path in ("about", "task/count", "reloadtask"):
        assert call(qlik, "GET", f"/hdr/qrs/{path}", headers=headers)[0] == 200


def test_the_address_of_the_embedded_server_is_in_the_log(caplog) -> None:
    """Other programs can be pointed at the server of the demo and of edition ``simulated``."""
    caplog.set_level("INFO", logger="appliance.qlik.embedded")
    client = EmbeddedQlik()
    try:
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/qrs", caplog.text)
        port = int(url.rpartition(":")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        fields = {"X-Qlik-Xrfkey": KEY, "X-Qlik-User": "UserDirectory=INTERNAL;UserID=anna"}
        connection.request("GET", f"/qrs/task/count?xrfkey={KEY}", headers=fields)
        assert json.loads(connection.getresponse().read())["value"] > 0
        connection.close()
    finally:
        client.close()
