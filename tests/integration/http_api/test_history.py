"""What ``GET /messages`` promises: everything once, by a cursor, for whoever may read it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_site import HttpSite


def publish(site: HttpSite, topic: str, *payloads: bytes, user: str | None = None) -> list[int]:
    return [
        site.ask("POST", f"/messages/{topic}", user, data=each).json()["seq"] for each in payloads
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpSite]:
    with HttpSite(tmp_path_factory.mktemp("site")) as found:
        publish(found, "plant/1/oven", *(b'{"temperature": %d}' % n for n in range(25)))
        publish(found, "plant/2/oven", b"text", b"\xff\x00", '{"ö": "ü"}'.encode())
        yield found


def ask(site: HttpSite, query: str, status: int = 200) -> dict:
    answer = site.ask("GET", f"/messages?{query}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_pages_have_every_message_once_and_in_order(site: HttpSite) -> None:
    """By the address of the next page, in the body and in the header."""
    url, seen = "/messages?topic=plant/%23&limit=7", []
    while url:
        answer = site.ask("GET", url)
        page = answer.json()
        seen += [one["seq"] for one in page["messages"]]
        assert answer.links.get("next", {}).get("url") == page["next"]
        assert answer.headers["appliance-cursor"] == page["cursor"]
        url = page["next"] and page["next"].removeprefix(site.url)
    assert seen == [one["seq"] for one in ask(site, "topic=plant/%23&limit=0")["messages"]]
    assert len(seen) == 28


def test_a_cursor_gives_what_came_since(site: HttpSite) -> None:
    """Also the cursor of a page without messages; a message's number is one, too."""
    page = ask(site, "topic=tail/%23")
    assert page["messages"] == []
    assert page["next"] is None
    publish(site, "other", b"")
    again = ask(site, f"topic=tail/%23&cursor={page['cursor']}")
    assert again["messages"] == []
    first, second = publish(site, "tail/a", b"1", b"2")
    news = ask(site, f"topic=tail/%23&cursor={again['cursor']}")
    assert [one["seq"] for one in news["messages"]] == [first, second]
    assert [one["seq"] for one in ask(site, f"topic=tail/a&cursor={first}")["messages"]] == [second]
    assert news["missed"] == 0


@pytest.mark.parametrize("limit", [0, 1000])
def test_the_forms_are_those_of_an_export(site: HttpSite, limit: int) -> None:
    asked = f"/messages?topic=plant/2/%23&limit={limit}"
    values = [{"$text": "text"}, {"$base64": "/wA="}, {"ö": "ü"}]
    answer = site.ask("GET", asked)
    assert answer.headers["content-type"] == "application/json"
    messages = answer.json()["messages"]
    assert [one["payload"] for one in messages] == values
    assert messages[0].keys() == {"seq", "time", "topic", "client", "qos", "retain", "payload"}

    answer = site.ask("GET", f"{asked}&format=jsonl")
    assert [json.loads(line) for line in answer.text.splitlines()] == messages
    answer = site.ask("GET", f"{asked}&payload=text")
    assert answer.json()["messages"][2]["payload"] == '{"ö": "ü"}'

    answer = site.ask("GET", f"/messages?topic=plant/1/%23&limit={limit}&format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["temperature"] for row in rows] == [str(n) for n in range(25)]
    answer = site.ask("GET", f"{asked}&format=csv&payload=text")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["payload"] for row in rows] == ["text", '{"$base64": "/wA="}', '{"ö": "ü"}']
    nothing = site.ask("GET", "/messages?topic=nothing&format=csv").text
    assert nothing == "seq,time,topic,client,qos,retain,payload\r\n"


def test_times_clients_and_texts_hold_together(site: HttpSite) -> None:
    (seq,) = publish(site, "times/a", b"needle in the haystack")
    with site.client(client_id="press-9") as client:
        client.publish("times/a", b"needle of press 9", qos=1, retain=False)
    at = ask(site, f"topic=times/a&cursor={seq - 1}")["messages"][0]["time"]
    found = ask(site, f"topic=times/a&since={at}")["messages"]
    assert [one["client"] for one in found] == ["$http", "press-9"]
    assert ask(site, f"topic=times/%2B&until={at}")["messages"] == []
    assert len(ask(site, "topic=times/a&since=1h&client=press&text=NEEDLE")["messages"]) == 1
    assert ask(site, "topic=times/a&text=needle&text=nowhere")["messages"] == []
    zone = at.replace("Z", "+00:00")  # a plus sign that was not encoded
    assert ask(site, f"topic=times/a&since={zone}")["messages"] == found


@pytest.mark.parametrize(
    ("query", "status", "part"),
    [
        ("limit=10001", 400, "up to 10000"),
        ("limit=-1", 400, "write a number"),
        ("format=xml", 400, "json, jsonl, csv"),
        ("payload=x", 400, "json, text"),
        ("topic=a/%23/b", 400, "topic=a/#/b"),
        ("since=yesterday", 400, "24h"),
        ("since=1h&until=2h", 400, "not before"),
        ("tpoic=a", 400, "'tpoic'"),
        ("limit=1&limit=2", 400, "give it once"),
        ("cursor=x", 400, "cursor=x"),
        ("cursor=999999", 409, "another journal"),
        ("cursor=1-abcdefgh", 409, "another journal"),
    ],
)
def test_what_is_wrong_is_said(site: HttpSite, query: str, status: int, part: str) -> None:
    answer = site.ask("GET", f"/messages?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert part in answer.json()["detail"]


def test_the_retained_message_of_a_topic(site: HttpSite) -> None:
    status = site.ask("GET", "/retained/appliance/status").json()
    assert status["payload"]["status"] == "online"
    assert status["retain"] is True
    as_text = site.ask("GET", "/retained/appliance/status?payload=text").json()["payload"]
    assert json.loads(as_text) == status["payload"]
    assert site.ask("GET", "/retained/plant/1/oven").status_code == 404
    assert site.ask("GET", "/retained/plant/+").status_code == 400


RULES = """
[[access.rule]]
user = "anna"
publish = ["#"]
subscribe = ["#"]
[[access.rule]]
user = "other"
publish = ["x"]
[[access.rule]]
user = "press"
subscribe = ["plant/+/oven", "line/#"]
deny = ["line/secret"]
"""


def test_a_user_gets_what_it_may_subscribe_to(tmp_path: Path) -> None:
    """Whatever it asks for; what it may not read counts neither as a message nor as missed."""
    with HttpSite(tmp_path, RULES, users=("anna", "press", "other")) as site:
        for topic in ("plant/1/oven", "plant/1/safe", "line/a", "line/secret", "x"):
            publish(site, topic, b"1", user="anna")

        def topics(query: str) -> list[str]:
            answer = site.ask("GET", f"/messages?{query}", "press")
            return [one["topic"] for one in answer.json()["messages"]]

        for query in ("", "topic=%23", "topic=%23&topic=x", "limit=0"):
            assert topics(query) == ["plant/1/oven", "line/a"]
        assert topics("topic=line/%23") == ["line/a"]
        assert topics("topic=x&topic=plant/%23") == ["plant/1/oven"]
        for path in ("/messages?topic=line/secret", "/messages?topic=x", "/retained/x"):
            assert site.ask("GET", path, "press").status_code == 403
        assert site.ask("GET", "/messages", "other").status_code == 403
        assert site.ask("GET", "/messages").status_code == 401
