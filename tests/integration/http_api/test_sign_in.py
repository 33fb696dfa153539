"""Who is let in over HTTP: by password, token or without; wrong guesses delay nobody else."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import sys
import json
import threading
import time

import plugins_for_tests
import pytest
from appliance_process import until
from hypothesis import given
from hypothesis import strategies as st
from http_site import PASSWORD, HttpSite

from appliance.broker.tokens import MOST, PREFIX, Tokens
from appliance.broker.users import Users
from appliance.cli import main
from appliance.counters import Counter
from appliance.errors import UsageError
from appliance.http_api.credentials import Basic, Bearer, credentials_of
from appliance.http_api.problem import ProblemError
from appliance.log.sanitize import SecretMasker

DAY_S = 86400.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An appliance with users."""
    with HttpSite(tmp_path_factory.mktemp("shared"), users=("etl", "other")) as site:
        yield site


@pytest.fixture
def guarded(tmp_path):
    """One whose users the test may change."""
    with HttpSite(tmp_path, users=("etl", "other")) as site:
        yield site


def users_of(site):
    return Users(site.folder / "users.txt")


def publish(site, user=None, password=PASSWORD, **headers):
    return site.ask("POST", "/messages/a", user, password, data=b"1", headers=headers)


def by(token):
    return {"Authorization": f"Bearer {token}"}


def basic(text):
    data = text if isinstance(text, bytes) else text.encode()
    return "Basic " + base64.b64encode(data).decode()


# --- passwords --------------------------------------------------------------------------------


def test_a_password_is_needed_where_there_are_users(shared):
    refused = publish(shared)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="appliance", charset="UTF-8"'
    assert refused.headers["content-type"] == "application/problem+json"
    assert publish(shared, "etl").status_code == 200
    assert publish(shared, "etl", "wrong").status_code == 401
    assert publish(shared, "nobody").status_code == 401


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Digest x",
        "Bearer",
        "etl:password",
        basic("etl:" + "x" * 5000),
        basic("x" * 2000 + ":x"),
        basic(b"\xff\x00:\xff"),
        basic(f"etl\0:{PASSWORD}"),
    ],
)
def test_credentials_that_are_none_are_refused(shared, value):
    assert publish(shared, Authorization=value).status_code == 401
    assert shared.appliance.counters[Counter.INTERNAL_ERRORS] == 0


@given(st.text(min_size=1).filter(lambda name: ":" not in name), st.text())
def test_basic_is_read_as_it_was_written(name, password):
    written = f"{name}:{password}".encode()
    assert credentials_of([basic(written)]) == Basic(name, password.encode())


@given(st.text())
def test_any_header_is_read_or_refused(value):
    with contextlib.suppress(ProblemError):
        assert isinstance(credentials_of([value]), (Basic, Bearer))


def test_old_clients_send_latin_1(shared):
    users_of(shared).add("jürg", "schön".encode())
    for charset in ("utf-8", "latin-1"):
        value = basic("jürg:schön".encode(charset))
        assert publish(shared, Authorization=value).status_code == 200


def test_a_changed_password_and_a_removed_user_count_at_once(guarded):
    assert publish(guarded, "etl").status_code == 200
    users_of(guarded).add("etl", b"another")
    until(lambda: publish(guarded, "etl").status_code == 401, "the old password is refused")
    assert publish(guarded, "etl", "another").status_code == 200
    users_of(guarded).remove("etl")
    until(lambda: publish(guarded, "etl", "another").status_code == 401, "the user is refused")
    assert publish(guarded, "other").status_code == 200


def test_without_users_everybody_on_this_machine_is_let_in(tmp_path):
    with HttpSite(tmp_path) as site:
        assert publish(site).status_code == 200
        assert publish(site, "any", "thing").status_code == 200
        found = site.appliance.journal.read(0, 100)
    assert [one.username for one in found if one.topic == "a"] == [None, "any"]


def test_beyond_loopback_users_are_needed(tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text('[http]\nbind = "0.0.0.0:8080"\n', "utf-8")
    assert main(["check", "-c", str(config)]) != 0
    said = capsys.readouterr().err
    assert "[http] `bind`" in said
    assert "so clients must sign in" in said


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_pages_of_other_sites_are_refused(tmp_path, headers):
    with HttpSite(tmp_path) as site:
        before = site.appliance.journal.last_seq
        assert publish(site, **headers).status_code == 403
        assert publish(site, **{"Sec-Fetch-Site": "none"}).status_code == 200
        assert site.appliance.journal.last_seq == before + 1


# --- guesses ----------------------------------------------------------------------------------


def guess(site, password="wrong"):  # noqa: S107 - a wrong one
    """A request with a wrong password, whose answer is not waited for."""
    found = socket.create_connection(("127.0.0.1", site.port), timeout=60)
    found.sendall(
        b"POST /messages/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Authorization: " + basic(f"etl:{password}").encode() + b"\r\n\r\nx"
    )
    return found


def test_wrong_guesses_are_held_and_delay_no_right_password(guarded):
    access = guarded.appliance.access
    assert publish(guarded, "etl").status_code == 200  # known from now on
    guesses = [guess(guarded, f"wrong {number}") for number in range(12)]
    until(lambda: access.logins >= 6, "guesses wait for their answers")
    assert publish(guarded, "etl").status_code == 200
    assert publish(guarded, "other").status_code == 200
    assert access.logins >= 1, "the guesses were answered first"
    for each in guesses:
        each.close()
    until(lambda: access.logins == 0, "who has gone is not held any more")


def test_guessers_do_not_take_all_connections(tmp_path):
    with HttpSite(tmp_path, users=("etl",), http="max_connections = 20") as site:
        guesses = [guess(site, f"wrong {number}") for number in range(14)]
        until(lambda: site.appliance.counters[Counter.LOGINS_REFUSED] >= 8, "they are refused")
        assert publish(site, "etl").status_code == 200
        for each in guesses:
            each.close()


# --- tokens -----------------------------------------------------------------------------------


def test_a_token_lets_its_user_in_until_it_is_removed(guarded, capsys):
    config = str(guarded.folder / "config.toml")
    assert main(["user", "token", "add", "etl", "--label", "nightly", "-c", config]) == 0
    token = capsys.readouterr().out.strip()
    assert token.startswith(PREFIX)
    until(lambda: publish(guarded, **by(token)).status_code == 200, "the token counts")
    (message,) = [one for one in guarded.appliance.journal.read(0, 100) if one.topic == "a"][-1:]
    assert message.username == "etl"
    main(["user", "token", "list", "-c", config])
    listed = capsys.readouterr().out
    assert "nightly" in listed
    assert token[-4:] in listed
    assert token not in listed
    assert main(["user", "token", "remove", "etl", "nightly", "-c", config]) == 0
    until(lambda: publish(guarded, **by(token)).status_code == 401, "it is refused")
    refused = publish(guarded, **by(token))
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert token not in refused.text


def test_tokens_go_with_their_user(guarded):
    users = users_of(guarded)
    token = users.tokens.add("etl", "x", time.time(), None)
    until(lambda: publish(guarded, **by(token)).status_code == 200, "the token counts")
    users.remove("etl")
    until(lambda: publish(guarded, **by(token)).status_code == 401, "it is refused")
    users.add("etl", b"again")
    assert users.tokens.of("etl") == []


def test_a_token_has_the_rights_of_its_user(tmp_path):
    rules = '[[access.rule]]\nuser = "etl"\npublish = ["b"]\n'
    with HttpSite(tmp_path, rules, users=("etl",)) as site:
        token = users_of(site).tokens.add("etl", "x", time.time(), None)
        until(lambda: publish(site, **by(token)).status_code == 403, "the token counts")


def test_a_token_is_no_password_over_mqtt_or_basic(guarded):
    token = users_of(guarded).tokens.add("etl", "x", time.time(), None)
    assert publish(guarded, "etl", token).status_code == 401


def test_a_token_expires_at_the_end_of_its_last_day(tmp_path):
    tokens = Tokens(tmp_path / "users.txt")
    token = tokens.find(tokens.add("etl", "x", 10 * DAY_S + 5, 90))
    assert token.counts(100 * DAY_S + DAY_S - 1)
    assert not token.counts(101 * DAY_S)


def test_tokens_of_a_user_are_bounded_and_expired_ones_make_room(tmp_path):
    tokens = Tokens(tmp_path / "users.txt")
    for number in range(MOST):
        tokens.add("etl", f"n{number}", 0.0, 1)
    tokens.add("other", "x", 0.0, None)
    with pytest.raises(UsageError, match="remove one first"):
        tokens.add("etl", "more", 0.0, None)
    tokens.add("etl", "more", 5 * DAY_S, None)
    assert [token.label for token in tokens.of("etl")] == ["more"]
    assert [token.label for token in tokens.of("other")] == ["x"]


@pytest.mark.parametrize("label", ["", "x" * 65, "a\nb", " a"])
def test_a_label_is_one_visible_line(tmp_path, label):
    with pytest.raises(UsageError, match="label"):
        Tokens(tmp_path / "users.txt").add("etl", label, 0.0, None)


def test_the_file_has_no_token_and_the_rights_of_the_users_file(tmp_path):
    users = Users(tmp_path / "users.txt")
    users.add("etl", b"x")
    token = users.tokens.add("etl", "a: b", 0.0, None)
    file = users.tokens.file.path
    assert token not in file.read_text("utf-8")
    assert token[len(PREFIX) : -4] not in file.read_text("utf-8")
    assert users.tokens.of()[0].label == "a: b"
    if sys.platform != "win32":
        assert file.stat().st_mode == os.stat(users.path).st_mode


def test_a_mistake_in_the_file_is_told_without_the_line(tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text('[access]\nusers_file = "users.txt"\n', "utf-8")
    Users(tmp_path / "users.txt").add("etl", b"x")
    (tmp_path / "users.txt.tokens").write_text("# mine\napl_secret\n", "utf-8")
    assert main(["check", "-c", str(config)]) != 0
    said = capsys.readouterr().err
    assert "line 2: this is no token's line" in said
    assert "apl_secret" not in said


def test_tokens_in_a_log_are_masked(tmp_path):
    token = Tokens(tmp_path / "users.txt").add("etl", "x", 0.0, None)
    assert SecretMasker().apply(f"of {token} and") == "of apl_*** and"


# --- plugins ----------------------------------------------------------------------------------

PLUGINS = """
[[access.plugins]]
class = "plugins_for_tests.Auth"
settings = {how = "password"}
[[access.plugins]]
class = "plugins_for_tests.Topics"
"""


def test_plugins_decide_about_whom_the_file_does_not_know(tmp_path):
    plugins_for_tests.forget()
    with HttpSite(tmp_path, PLUGINS, users=("etl",)) as site:
        for user, password, topic, status in (
            ("anna", "yes", "yes/a", 200),
            ("anna", "no", "yes/a", 401),
            ("anna", "yes", "no/a", 403),
            ("anna", "yes", "raise/a", 503),
            ("anna", "raise", "yes/a", 503),
            ("etl", PASSWORD, "yes/a", 200),
            ("etl", PASSWORD, "no/a", 403),
            ("etl", "yes", "yes/a", 401),
        ):
            answer = site.ask("POST", f"/messages/{topic}", user, password, data=b"1")
            assert answer.status_code == status, (user, password, topic, answer.text)
        asked = [each for each in plugins_for_tests.ASKED if each[0] == "authenticate"]
        assert [each[1:3] for each in asked][0] == ("$http", "anna")
        rights = len(plugins_for_tests.ASKED)
        assert site.ask("POST", "/messages/yes/a", "anna", "yes", data=b"1").status_code == 200
        assert len(plugins_for_tests.ASKED) == rights, "answers count for plugin_cache"
        token = users_of(site).tokens.add("etl", "x", time.time(), None)
        until(lambda: publish(site, **by(token)).status_code == 200, "the token counts")


def test_plugins_decide_what_is_read(tmp_path):
    """As for a subscriber: the journal and retained messages show nothing that they refuse, in
    pages and as a stream, and an answer is not made where a plugin does not answer."""
    plugins_for_tests.forget()
    with HttpSite(tmp_path, PLUGINS, users=("etl",)) as site:
        for topic in ("yes/a", "unheard/a", "unread/a", "yes/b"):
            answer = site.ask("POST", f"/messages/{topic}?retain=true", "anna", "yes", data=b"1")
            assert answer.status_code == 200, answer.text
        for limit in (2, 0):
            path = f"/messages?topic=yes/%23&topic=unheard/%23&topic=unread/%23&format=jsonl&limit={limit}"
            rows = site.ask("GET", path, "anna", "yes").text.splitlines()
            assert [json.loads(row)["topic"] for row in rows if row] == ["yes/a", "yes/b"]
        for topic, status in (("yes/a", 200), ("unheard/a", 403), ("unread/a", 403)):
            assert site.ask("GET", f"/retained/{topic}", "anna", "yes").status_code == status
        assert site.ask("GET", "/retained/raise/a", "anna", "yes").status_code == 503


def test_many_requests_of_one_password_are_checked_once(shared):
    """Thousands of requests would else take the threads that check passwords."""
    before = shared.appliance.access.logins
    threads = [threading.Thread(target=publish, args=(shared, "etl")) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert shared.appliance.access.logins == before
    assert shared.appliance.access.remembered("etl", PASSWORD.encode()) is not None
