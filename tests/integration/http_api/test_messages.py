"""``POST /messages``: what is answered with 200 is on disk, once for each key, and as it was sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import threading
from urllib.parse import quote

import pytest
from appliance_process import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from http_site import HttpProcess, HttpSite, session

from appliance.broker import publication_keys
from appliance.counters import Counter
from appliance.http_api import entrance
from appliance.http_api.batch import MOST
from appliance.mqtt.topics import topic_problem

RULES = """
[[access.rule]]
user = "etl"
publish = ["plant/#"]
[[access.rule]]
user = "http-only"
client_id = "$http"
publish = ["plant/#"]
[[access.rule]]
user = "press"
client_id = "press-*"
publish = ["plant/#"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An appliance on loopback without users."""
    with HttpSite(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """One with users and rules."""
    users = ("etl", "http-only", "press")
    with HttpSite(tmp_path_factory.mktemp("guarded"), RULES, users=users) as found:
        yield found


def stored(site, answer):
    """The messages that an answer names, as the journal has them."""
    body = answer.json()
    assert answer.status_code == 200, body
    first = body.get("seq") or body["first_seq"]
    return site.appliance.journal.read(first - 1, body.get("messages", 1))


def refused(answer, status, *words):
    """A problem with this status that says these words."""
    body = answer.json()
    assert (answer.status_code, body["status"]) == (status, status), body
    assert answer.headers["content-type"] == "application/problem+json"
    for word in words:
        assert word in body["detail"]
    return body


# --- one message ------------------------------------------------------------------------------


def test_the_body_is_the_payload_byte_by_byte(site):
    payload = bytes(range(256))
    answer = site.ask("POST", "/messages/plant/press", data=payload)
    assert answer.json()["topic"] == "plant/press"
    (message,) = stored(site, answer)
    assert (message.payload, message.topic, message.qos, message.retain) == (
        payload,
        "plant/press",
        1,
        False,
    )
    assert (message.client_id, message.username, message.properties) == ("$http", None, None)
    assert message.address.startswith("127.0.0.1:")


def test_options_are_those_of_a_publish(site):
    (message,) = stored(
        site,
        site.ask(
            "POST",
            "/messages/kept?qos=0&retain=true&expiry=3600",
            data='{"a": "ä"}'.encode(),
            headers={"Content-Type": "application/json; charset=UTF-8"},
        ),
    )
    properties = message.properties.decoded()
    assert (message.qos, message.retain, properties.message_expiry_s) == (0, True, 3600)
    assert properties.content_type == "application/json; charset=UTF-8"
    assert properties.payload_format == 1
    assert site.appliance.journal.query("SELECT 1 FROM retained WHERE topic = 'kept'")


@pytest.mark.parametrize(
    ("content_type", "payload", "is_text"),
    [
        ("text/plain", b"on", True),
        ("text/csv; charset=utf-8", "ä".encode(), True),
        ("application/problem+json", b"{}", True),
        ("text/plain; charset=iso-8859-1", b"on", False),
        ("text/plain", b"\xff", False),
        ("application/octet-stream", b"on", False),
    ],
)
def test_text_is_said_to_be_text_only_if_it_is(site, content_type, payload, is_text):
    (message,) = stored(
        site,
        site.ask("POST", "/messages/t", data=payload, headers={"Content-Type": content_type}),
    )
    assert message.properties.decoded().payload_format == is_text
    assert message.properties.decoded().content_type == content_type


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(
        st.one_of(st.sampled_from("/%?&#+ ;.~\n\r\\"), st.characters(exclude_categories=["Cs"])),
        min_size=1,
        max_size=30,
    )
)
def test_a_topic_comes_through_the_path_as_it_is(site, topic):
    plain = raw(site, f"/messages/{quote(topic, safe='/')}")
    everything = raw(site, f"/messages/{quote(topic, safe='')}")
    if topic_problem(topic) or topic.startswith(("$", "appliance/")) or topic == "appliance":
        assert {plain[0], everything[0]} <= {400, 403}
        return
    assert (plain[0], everything[0]) == (200, 200), plain
    assert json.loads(plain[1])["topic"] == json.loads(everything[1])["topic"] == topic


def raw(site, path):
    """A POST whose path no library makes prettier."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    try:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", "1")
        connection.endheaders(b"x")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/messages/", 400, "at least one character"),
        ("/messages/a%00b", 400, "null character"),
        ("/messages/plant/%2B", 400, "wildcards"),
        ("/messages/%FF", 400, "UTF-8"),
        ("/messages/" + "x" * 2000, 400, "limits.max_topic_length"),
        ("/messages/" + "/".join("x" * 40), 400, "limits.max_topic_levels"),
        ("/messages/appliance/status", 403, "the appliance's own"),
        ("/messages/$SYS/x", 403, "belong to the broker"),
        ("/messages/a?qos=3", 400, "0, 1 or 2"),
        ("/messages/a?retain=yes", 400, "true or false"),
        ("/messages/a?expiry=-1", 400, "whole number"),
        ("/messages/a?expiry=4294967296", 400, "4294967295"),
        ("/messages/a?retained=true", 400, "did you mean retain?"),
        ("/messages/a?qos=1&qos=1", 400, "more than once"),
    ],
)
def test_what_can_not_be_published_is_told(site, path, status, words):
    before = site.appliance.journal.last_seq
    refused(site.ask("POST", path, data=b"x"), status, words)
    assert site.appliance.journal.last_seq == before


def test_a_message_that_mqtt_would_not_take_is_too_large_here(tmp_path):
    with HttpSite(tmp_path, "[limits]\nmax_packet_size = 1000", http='max_body = "64KiB"') as small:
        refused(small.ask("POST", "/messages/a", data=bytes(2000)), 413, "limits.max_packet_size")
        stored(small, small.ask("POST", "/messages/a", data=bytes(900)))


def test_a_subscriber_gets_it(site):
    with site.client() as client:
        client.subscribe("heard/#")
        site.ask("POST", "/messages/heard/x", data=b"7")
        assert client.receive(60) == ("heard/x", b"7")


# --- rights -----------------------------------------------------------------------------------


def test_rules_count_and_the_refusal_says_what_to_add(guarded):
    stored(guarded, guarded.ask("POST", "/messages/plant/x", "etl", data=b"1"))
    body = refused(
        guarded.ask("POST", "/messages/office/x", "etl", data=b"1"),
        403,
        "User etl",
        '[[access.rule]] with user = "etl" and publish = ["office/x"]',
    )
    assert body["topic"] == "office/x"


def test_rules_know_http_by_its_client_id(guarded):
    stored(guarded, guarded.ask("POST", "/messages/plant/x", "http-only", data=b"1"))
    refused(guarded.ask("POST", "/messages/plant/x", "press", data=b"1"), 403)


# --- batches ----------------------------------------------------------------------------------


def test_a_batch_is_stored_in_its_order(site):
    items = [
        {"topic": "b/1", "payload": "text"},
        {"topic": "b/2", "payload": {"a": [1, 2.50]}, "retain": True},
        {"topic": "b/3", "payload_base64": "AP8=", "qos": 0, "content_type": "image/x"},
        {"topic": "b/4"},
    ]
    lines = "\n".join(json.dumps(item) for item in items) + "\r\n\n"
    for body in (json.dumps(items), lines):
        found = stored(site, site.ask("POST", "/messages", data=body.encode()))
        assert [one.topic for one in found] == ["b/1", "b/2", "b/3", "b/4"]
        assert [one.payload for one in found] == [b"text", b'{"a": [1, 2.5]}', b"\0\xff", b""]
        assert found[1].properties.decoded().content_type == "application/json"
        assert (found[2].qos, found[2].properties.decoded().content_type) == (0, "image/x")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no message"),
        (b"[]", 400, "no message"),
        (b"[1", 400, "no JSON array"),
        (b'[{"topic": "a"}, {"topic": "b", "qos": 7}]', 400, "Message 2"),
        (b'{"topic": "a"}\n{"topik": "b"}', 400, "Message 2"),
        (b'[{"topic": "a", "payload": 1, "payload_base64": ""}]', 400, "both"),
        (b'[{"topic": "a", "payload_base64": "?"}]', 400, "no base64"),
        (b'[{"topic": "a"}, {"topic": "appliance/x"}]', 403, "appliance"),
        (b'[{"topic": "a"}, {"topic": "b/#"}]', 400, "wildcards"),
        (b"[" * 100_000, 400, "no JSON array"),
        (b'{"topic": "a"}\n' * (MOST + 1), 413, "at most"),
    ],
)
def test_a_batch_with_a_mistake_is_not_stored_at_all(site, body, status, words):
    before = site.appliance.journal.last_seq
    refused(site.ask("POST", "/messages", data=body), status, words)
    assert site.appliance.journal.last_seq == before


# --- Idempotency-Key --------------------------------------------------------------------------


def test_a_repeat_with_its_key_gets_the_first_answer(site):
    ask = {"data": b"1", "headers": {"Idempotency-Key": '"order-7"'}}
    first = site.ask("POST", "/messages/key/a", **ask)
    again = site.ask("POST", "/messages/key/a", data=b"1", headers={"Idempotency-Key": "order-7"})
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert site.appliance.journal.last_seq == first.json()["seq"]


@pytest.mark.parametrize(
    ("path", "payload"), [("/messages/key/d", b"1"), ("/messages/key/c", b"2")]
)
def test_a_key_with_another_request_is_refused(site, path, payload):
    headers = {"Idempotency-Key": "one-request"}
    site.ask("POST", "/messages/key/c", data=b"1", headers=headers)
    refused(site.ask("POST", path, data=payload, headers=headers), 422, "another request")


def test_a_key_belongs_to_its_user(guarded):
    headers = {"Idempotency-Key": "same"}
    first = guarded.ask("POST", "/messages/plant/u", "etl", data=b"1", headers=headers)
    other = guarded.ask("POST", "/messages/plant/u", "http-only", data=b"1", headers=headers)
    assert other.status_code == first.status_code == 200
    assert other.json() != first.json()


@pytest.mark.parametrize("key", ["", "ä", "x" * 256, "a\tb"])
def test_what_is_no_key_is_told(site, key):
    answer = site.ask(
        "POST", "/messages/a", data=b"1", headers={"Idempotency-Key": key.encode("utf-8")}
    )
    refused(answer, 400, "Idempotency-Key")


def test_a_batch_has_a_key_too(site):
    body = json.dumps([{"topic": "bk", "payload": n} for n in range(3)]).encode()
    answers = [
        site.ask("POST", "/messages", data=body, headers={"Idempotency-Key": "batch"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert site.appliance.journal.last_seq == answers[0].json()["last_seq"]


def test_requests_with_one_key_at_the_same_time_are_one_message(site):
    answers, start = [], threading.Barrier(8)

    def ask():
        with session() as client:
            start.wait()
            answers.append(
                client.post(
                    f"{site.url}/messages/race", data=b"1", headers={"Idempotency-Key": "race"}
                )
            )

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({answer.json()["seq"] for answer in answers}) == 1
    assert [one.headers.get("Idempotency-Replayed") for one in answers].count(None) == 1
    assert [one.topic for one in site.appliance.journal.read(0, 10_000)].count("race") == 1


@pytest.mark.campaign
def test_keys_outlive_a_kill_and_no_message_doubles(tmp_path):
    """Each request is repeated until it is answered, as a script does; the process is killed."""
    keys = [f"k{number}" for number in range(100)]
    answers: dict[str, int] = {}
    with HttpProcess(tmp_path) as process:
        process.start()
        worker = threading.Thread(target=publish_all, args=(process.url, keys, answers))
        worker.start()
        until(lambda: len(answers) > 20, "some are answered")
        process.kill()
        worker.join()
        known = dict(answers)
        process.start()
        publish_all(process.url, keys, answers)
        process.kill()
    assert {key: answers[key] for key in known} == known
    assert len(set(answers.values())) == len(keys)
    assert payloads(tmp_path) == sorted(key.encode() for key in keys)


def publish_all(url, keys, answers):
    with session() as client:
        for key in keys:
            try:
                answer = client.post(
                    f"{url}/messages/k", data=key, headers={"Idempotency-Key": key}, timeout=60
                )
            except OSError:
                return
            assert answer.status_code == 200
            answers[key] = answer.json()["seq"]


def payloads(folder):
    """What the topic ``k`` has in the journal."""
    with HttpSite(folder) as site:
        found = site.appliance.journal.read(0, 100_000)
    return sorted(one.payload for one in found if one.topic == "k")


def test_keys_are_bounded_in_number_and_age(site, monkeypatch):
    monkeypatch.setattr(publication_keys, "MOST", 3)
    journal = site.appliance.journal
    for number in range(10):
        site.ask("POST", "/messages/n", data=b"1", headers={"Idempotency-Key": f"n{number}"})
    now_ns = site.appliance.clock_ns()
    beyond = publication_keys.overdue(journal, 0, 3)
    assert beyond.early == kept(journal) - 3
    everything = publication_keys.overdue(journal, now_ns, 1000)
    assert (everything.first_seq, everything.early) == (newest(journal), 0)


def kept(journal):
    return journal.query("SELECT count(*) FROM publication_key")[0][0]


def newest(journal):
    return journal.query("SELECT max(first_seq) FROM publication_key")[0][0]


# --- when the appliance can't take it ----------------------------------------------------------


def test_a_full_disk_is_told(tmp_path):
    with HttpSite(tmp_path) as site:
        free_bytes = site.appliance._free_bytes
        site.appliance._free_bytes = lambda _: 1000
        (answer,) = until(lambda: full(site), "the floor is seen")
        refused(answer, 507, "limits.min_free_disk")
        assert answer.headers["Retry-After"]
        counters = site.appliance.counters
        until(lambda: counters[Counter.HTTP_PUBLISHES_REFUSED_BEHIND], "it is counted")
        site.appliance._free_bytes = free_bytes
        until(lambda: not full(site), "messages are taken again")


def full(site):
    answer = site.ask("POST", "/messages/full", data=b"1")
    return [answer] if answer.status_code == 507 else None


@contextlib.contextmanager
def stuck_journal(site):
    """Nothing can be committed, as on a disk that does not answer."""
    path = site.folder / "data" / "journal.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        until(lambda: other.execute("BEGIN IMMEDIATE"), "the journal is locked")
        yield


def ask_later(site, answers, payload, **headers):
    """A request in a thread of its own, which may wait."""

    def ask():
        with session() as client:
            url = f"{site.url}/messages/held"
            answers.append(client.post(url, data=payload, headers=headers, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_beyond_max_pending_requests_wait_and_go_on(tmp_path):
    """The port waits as other publishers do."""
    payload = bytes(50_000)
    answers: list = []
    with HttpSite(tmp_path, '[limits]\nmax_pending = "64KiB"') as site:
        with stuck_journal(site):
            asked = [ask_later(site, answers, payload) for _ in range(2)]
            until(lambda: site.appliance.journal.pending_bytes > 65536, "the port is paused")
            asked.append(ask_later(site, answers, b"1"))
            until(lambda: site.appliance.counters[Counter.PUBLISHERS_SLOWED], "it is counted")
            assert not answers
        for each in asked:
            each.join()
        assert [answer.status_code for answer in answers] == [200] * 3


def test_a_message_that_is_late_counts_once_with_its_key(tmp_path, monkeypatch):
    """503 says that it may still be stored; a repeat finds out."""
    monkeypatch.setattr(entrance, "PATIENCE_S", 0.2)
    headers = {"Idempotency-Key": "late"}
    with HttpSite(tmp_path) as site:
        with stuck_journal(site):
            for _ in range(2):
                late = site.ask("POST", "/messages/held", data=b"1", headers=headers)
                refused(late, 503, "same Idempotency-Key")
        monkeypatch.setattr(entrance, "PATIENCE_S", 60)
        answer = until(lambda: known(site, headers), "the key is known")
        assert answer.headers["Idempotency-Replayed"] == "true"
        assert [one.topic for one in site.appliance.journal.read(0, 100)].count("held") == 1


def known(site, headers):
    answer = site.ask("POST", "/messages/held", data=b"1", headers=headers)
    return answer if answer.status_code == 200 else None
