"""``appliance explain`` against an appliance process with a simulated Qlik server over HTTP."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from appliance_process import QUICK, ApplianceProcess

from appliance import cli
from appliance.broker.users import Users
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
viewers = ["anna"]
[qlik]
edition = "client-managed"
url = "QLIK"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
[allow]
names = ["Reload Sales"]
[[trigger]]
name = "quality"
topic = "plant/+/done"
task = {name = "Reload Sales"}
when = {state = "done", rows = {">" = 3}}
debounce = "1h"
[[trigger]]
topic = "secret"
task = {name = "Secret"}
"""
DONE = '{"state": "done", "rows": 5}'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("explain")
    tasks = [SimulatedTask("Reload Sales"), SimulatedTask("Secret")]
    with SimulatedQlik(tasks) as server:
        process = ApplianceProcess(folder, CONFIG.replace("QLIK", server.url), program=QUICK)
        for name in ("anna", "plc"):
            Users(str(folder / "users.txt")).add(name, b"secret")
        with process:
            yield process.start()


@pytest.fixture
def call(capfd, monkeypatch):
    def run(process: ApplianceProcess, *arguments: str, user: str = "anna"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
        connection = ("-c", str(process.config), "-u", user, "--password-stdin")
        code = cli.main(["explain", *arguments, *connection])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in out + err
        return code, out, err

    return run


def test_it_ends_in_what_would_start_and_when(running, call) -> None:
    """A viewer may ask. Every field is there; the last line names the task and the time."""
    code, out, _ = call(running, "-t", "plant/7/done", "-m", DONE)
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith("Would start Reload Sales at ")
    for field in ("redelivery", "replay", "topic", "when", "asks for", "task", "[allow]",
                  "debounce", "cooldown", "what runs", "server"):  # fmt: skip
        assert f" {field} " in out, field
    assert "rows > 3; found 5" in out


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("plant/7/done", '{"state": "no"}', 'state = "done" does not hold: found "no".'),
        ("hall/\x1b[31mdoor", "", "No trigger listens on its topic."),
        ("secret", "", "[allow] table"),
    ],
)
def test_it_ends_in_what_stands_in_the_way(running, call, topic, payload, why) -> None:
    code, out, _ = call(running, "-t", topic, "-m", payload)
    assert code == 0
    assert "Would" in out.splitlines()[-1]
    assert "not start" in out.splitlines()[-1] or "nothing" in out.splitlines()[-1]
    assert why in out.splitlines()[-1]


def test_programs_get_json(running, call) -> None:
    code, out, _ = call(running, "-t", "plant/7/done", "-m", DONE, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["conclusion"][0].startswith("Would start Reload Sales at")
    (rule,) = found["explanation"]["rules"]
    assert rule["starts"][0]["effect"] == "start"


def test_a_message_of_the_journal_says_why_it_started_nothing(running, call) -> None:
    """Message 1 is the appliance's own status."""
    code, out, _ = call(running, "--seq", "1")
    assert code == 0
    assert "It started nothing. No trigger listens on its topic." in out
    assert "If it came again now:" not in out


def test_without_an_appliance_the_rules_answer_and_it_is_said(tmp_path: Path, capfd) -> None:
    config = tmp_path / "new.toml"
    config.write_text(CONFIG.replace("PORT", "1").replace("QLIK", "https://127.0.0.1:1"))
    (tmp_path / "users.txt").write_text("")
    for offline in ([], ["--offline"]):
        code = cli.main(["explain", "-t", "plant/7/done", "-m", DONE, "-c", str(config), *offline])
        out, _ = capfd.readouterr()
        assert code == 0
        assert "Would ask for a start. Trigger quality: it asks for" in out
        assert "Only the rules of" in out.splitlines()[-1]
        assert ("no appliance answers" in out) is not bool(offline)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a topic"),
        (["-t", "plant/#"], "wildcards"),
        (["--seq", "1", "-t", "x"], "its own topic"),
        (["--seq", "1", "--offline"], "--offline needs"),
    ],
)
def test_a_mistake_gets_a_clear_answer(tmp_path, monkeypatch, capfd, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", *arguments]) == 64
    assert said in capfd.readouterr().err


def test_others_may_not_ask(running, call) -> None:
    """A user who is neither operator nor viewer learns nothing of the rules."""
    code, out, err = call(running, "-t", "plant/7/done", "-m", DONE, user="plc")
    assert (code, out) == (77, "")
    assert "[access]" in err
