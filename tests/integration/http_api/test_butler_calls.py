"""Butler's REST calls, answer by answer: ``tests/butler_calls.py`` has the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import butler_calls
import pytest
from butler_calls import (
    APP,
    COSTS,
    DENIED_TAG,
    DENIED_VALUE,
    GROUP,
    LATE_TAG,
    NIGHTLY,
    NONE,
    SALES,
    SECRET,
    STOCK,
    TABLES,
    TIMER,
    UNKNOWN,
    VALUE,
    Row,
    Text,
    agrees,
)
from http_site import HttpSite

from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask


CONFIG = f"""
[qlik]
edition = "client-managed"
url = "QLIK"
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}}
[[timer]]
name = "{TIMER}"
cron = "30 4 * * *"
task = "{SALES["taskId"]}"
[allow]
tasks = ["{SALES["taskId"]}", "{STOCK["taskId"]}", "{UNKNOWN}"]
tags = ["{NIGHTLY}"]
properties = [{{property = "{GROUP}", value = "{VALUE}"}}]
apps = ["{APP}"]
"""


def tasks() -> list[SimulatedTask]:
    def task(named: dict[str, str], **more: Any) -> SimulatedTask:
        return SimulatedTask(named["taskName"], id=named["taskId"], duration_s=0.05, **more)

    return [
        task(SALES, tags=(NIGHTLY,)),
        task(STOCK, tags=(NIGHTLY,)),
        task(COSTS, tags=(LATE_TAG,), properties=((GROUP, VALUE),), app_id=APP, app_name="Costs"),
        task(SECRET, tags=(DENIED_TAG,), properties=((GROUP, DENIED_VALUE),)),
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpSite]:
    """One appliance for all calls."""
    with (
        SimulatedQlik(tasks()) as qlik,
        HttpSite(tmp_path_factory.mktemp("butler"), CONFIG.replace("QLIK", qlik.url)) as running,
    ):
        yield running


def ask(site: HttpSite, row: Row) -> tuple[int, Any]:
    """The status and the body of the answer."""
    found = site.ask(row.method, row.path, data=row.content, headers=row.sent_headers)
    if not found.content:
        return found.status_code, NONE
    if found.headers["content-type"].startswith("text/plain"):
        return found.status_code, Text(found.text)
    assert found.headers["content-type"] == "application/json; charset=utf-8"
    return found.status_code, json.loads(found.content)


@pytest.mark.parametrize("title", TABLES)
def test_each_call_is_answered_as_the_table_says(site, title):
    """Status, members, their order and their values, one call after the other."""
    wrong = []
    for row in TABLES[title]:
        status, body = ask(site, row)
        if status != row.answer[0] or not agrees(body, row.answer[1]):
            wrong.append(f"{row.method} {row.path} {row.body}: {status} {body}, not {row.answer}")
    assert not wrong, "\n".join(wrong)


def test_the_page_has_the_table():
    """``python tests/butler_calls.py`` writes it."""
    assert butler_calls.PAGE.read_text("utf-8") == butler_calls.page()


def test_what_differs_says_why():
    assert all(row.why for rows in TABLES.values() for row in rows if row.given is not None)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"data": b"a" * 1_100_000, "headers": {"Content-Type": "application/json"}},
            (413, "Payload Too Large", "FST_ERR_CTP_BODY_TOO_LARGE"),
        ),
        ({"json": [], "headers": {"Host": "another.example"}}, (421, "Misdirected Request", None)),
    ],
)
def test_what_the_port_refuses_has_butlers_form(site, more, expected):
    found = site.ask("PUT", "/v4/reloadtask/-/start", **more)
    body = found.json()
    assert (found.status_code, body["error"], body.get("code")) == expected
    assert list(body) == ["statusCode", *(["code"] if "code" in body else []), "error", "message"]
