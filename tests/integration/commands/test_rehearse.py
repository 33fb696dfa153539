"""``appliance rehearse``: what rules would have started, beside what a task engine really did."""

import contextlib
import json
import re
import sqlite3
import time

import pytest

from manual_engine import BEGIN, IDS, ManualEngine, S, rule

from appliance import cli
from appliance.engine import databases
from appliance.journal import FILE_NAME, chunks
from appliance.journal.store import Store
from appliance.model import ExecutionState
from appliance.commands import rehearsal_text
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks.rehearsed import Tally

HOUR = 3600 * S


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that ran for a day: each hour a message of the sales system, and an order."""
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    data.mkdir()
    engine = ManualEngine(
        data / "tasks.db", (rule("sales/done", {"name": "Sales"}, name="sales"),), outcomes=()
    )
    engine.lasts = [(600, ExecutionState.SUCCEEDED)] * 48
    for hour in range(24):
        engine.wait_until(BEGIN + hour * HOUR)
        for after_s, topic in (0, "sales/done"), (60, "sales/done"), (120, "sales/done"):
            engine.wait_until(BEGIN + hour * HOUR + after_s * S)
            engine.put(topic, b"{}")
            engine.settle()
        engine.wait_until(BEGIN + hour * HOUR + 180 * S)
        engine.put("orders/1", b'{"state": "done"}' if hour % 2 else b'{"state": "begun"}')
        engine.settle()
    engine.wait_until(BEGIN + 24 * HOUR)
    engine.close()
    write_journal(data, engine.journal)
    (folder / "config.toml").write_text(
        '[service]\ndata_dir = "data"\n[qlik]\nedition = "simulated"\n'
        '[[trigger]]\nname = "sales"\ntopic = "sales/done"\ntask = {name = "Sales"}\n'
    )
    (folder / "new.toml").write_text(
        '[service]\ndata_dir = "elsewhere"\n[qlik]\nedition = "simulated"\n'
        '[[trigger]]\nname = "sales"\ntopic = "sales/done"\ntask = {name = "Sales"}\n'
        'debounce = "5m"\n'
        '[[trigger]]\nname = "orders"\ntopic = "orders/+"\ntask = {name = "Press"}\n'
        'when = {state = "done"}\n'
        '[[trigger]]\nname = "never"\ntopic = "orders/+"\ntask = {name = "Press"}\n'
        'when = {state = "ended"}\n'
        '[[trigger]]\nname = "wrong"\ntopic = "orders/+"\ntask = "payload"\n'
        '[[trigger]]\nname = "quiet"\ntopic = "nobody/#"\ntask = {tag = "nightly"}\n'
    )
    return folder


def write_journal(data, messages, a_chunk=7):
    store = Store(data / FILE_NAME, "os")
    for tables in databases.JOURNAL_TABLES:
        store.database.add_tables(tables)
    connection = store.open(0)
    for start in range(0, len(messages), a_chunk):
        for row in chunks.encode(messages[start : start + a_chunk], 0):
            connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    store.close()


@pytest.fixture
def rehearse(site, monkeypatch, capfdbinary):
    """Calls the command in the site's folder; returns code, standard output, standard error."""
    monkeypatch.chdir(site)

    def run(*arguments, since=BEGIN, until=BEGIN + 24 * HOUR):
        times = ["--since", iso(since), "--until", iso(until)] if since else []
        code = cli.main(["rehearse", *times, *arguments])
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return code, out.decode(), err.decode()

    return run


def iso(at_ns):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ns // S))


def test_the_present_rules_give_what_happened(rehearse):
    """The same rules over the same messages: the numbers are those of the task engine."""
    code, out, _ = rehearse("--json")
    found = json.loads(out)
    assert code == 0
    assert found["would"]["total"] == found["really"]["total"]
    assert found["would"]["rulesAndTasks"] == found["really"]["rulesAndTasks"]
    assert found["would"]["total"] == {
        "starts": 48, "merged": 24, "rejected": 0, "skipped": 0, "expired": 0
    }  # fmt: skip
    hours = {one["time"]: one["counts"]["starts"] for one in found["would"]["hours"]}
    assert sum(hours.values()) == 48
    assert hours == {one["time"]: one["counts"]["starts"] for one in found["really"]["hours"]}


def test_a_new_rule_is_tried_on_the_past(rehearse, site):
    """Would my new rule have worked: how often, beside what happened, and why others would not."""
    before = {path: path.stat().st_mtime_ns for path in (site / "data").iterdir()}
    code, out, err = rehearse("-c", "new.toml", "--against", "config.toml")
    assert (code, err) == (0, "")
    assert re.search(r"Rule sales would have started Sales 24 times.* Really: 48 times\.", out)
    assert re.search(r"Rule orders would have started Press 12 times.* Really it did not\.", out)
    assert "Rule wrong would have started nothing: 24 messages met it; 24 rejected." in out
    assert "Rule quiet would have started nothing: no message came on its topic." in out
    assert re.search(
        r"Rule never would have started nothing: 24 messages came on its topic and none met it; "
        r'message \d+: state = "ended" does not hold: found "begun"\.', out
    )  # fmt: skip
    assert "24 x names no task, wrong: An object in the payload must have" in out
    assert "Not among them, taken for granted: Press" in out
    assert {path: path.stat().st_mtime_ns for path in (site / "data").iterdir()} == before


def test_it_says_where_the_tasks_come_from_and_how_long_runs_take(rehearse):
    _, out, _ = rehearse("--offline")
    assert "those that tasks.db knows (--offline)" in out
    assert (
        "A run takes as long as it really took for the same message, else as long as usual" in out
    )


def test_a_data_directory_can_be_named_itself(rehearse):
    code, out, _ = rehearse("-c", "new.toml", "--against", "data", "--json")
    assert code == 0
    assert json.loads(out)["would"]["rules"]["sales"]["starts"] == 24


def test_without_the_tasks_database_there_is_no_past(rehearse, site, tmp_path):
    """The journal alone tells what rules would start; what really happened is said to be missing."""
    (tmp_path / FILE_NAME).write_bytes((site / "data" / FILE_NAME).read_bytes())
    code, out, _ = rehearse("--against", str(tmp_path))
    assert code == 0
    assert "There is no tasks.db, so what really happened is not known" in out
    assert "really)" not in out
    assert "Rule sales would have started Sales" in out


def test_a_time_without_messages_is_said(rehearse):
    code, out, _ = rehearse(since=BEGIN + 48 * HOUR, until=BEGIN + 72 * HOUR)
    assert code == 0
    assert "No message came in this time: the journal goes from" in out
    code, out, _ = rehearse(since=BEGIN - 48 * HOUR)
    assert "The journal begins at" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-c", "new.toml"], 69, "there is no journal in"),
        (["--against", "nothing.toml"], 78, "nothing.toml: there is no such file"),
        (["-c", "bad.toml"], 78, "bad.toml"),
        (["-c", "worse.toml"], 78, "unknown comparison"),
        (["--top", "0"], 64, "--top 0: write a number above zero"),
    ],
)
def test_a_mistake_gets_an_answer(rehearse, site, arguments, code, says):
    """No journal there, no such file, a configuration with errors: what, where, what to do."""
    (site / "bad.toml").write_text('[[trigger]]\ntopc = "a"\ntask = "payload"\n')
    (site / "worse.toml").write_text(
        '[service]\ndata_dir = "data"\n[qlik]\nedition = "simulated"\n'
        '[[trigger]]\ntopic = "a"\ntask = "payload"\nwhen = {n = {near = 1}}\n'
    )
    found, _, err = rehearse(*arguments)
    assert found == code
    assert says in err


def test_times_that_fit_nothing_are_a_mistake(rehearse):
    code, _, err = rehearse(since=BEGIN + HOUR, until=BEGIN)
    assert code == 64
    assert "is not before --until, so no message fits" in err


def test_a_damaged_chunk_costs_only_its_messages(site, tmp_path, monkeypatch, capfd, caplog):
    (tmp_path / FILE_NAME).write_bytes((site / "data" / FILE_NAME).read_bytes())
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE chunk SET body = x'93c1' WHERE first_seq = 1")
    monkeypatch.chdir(site)
    times = ["--since", iso(BEGIN), "--until", iso(BEGIN + 24 * HOUR)]
    assert cli.main(["rehearse", *times, "--against", str(tmp_path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["would"]["total"]["starts"] > 40
    assert "Messages 1 to 7" in caplog.text
    assert "are damaged and were left out" in caplog.text


def client_managed(folder, url):
    """The new rules, for a server that is there."""
    text = (
        (folder / "new.toml")
        .read_text()
        .replace(
            'edition = "simulated"',
            f"edition = 'client-managed'\nurl = '{url}'\n"
            "header = {name = 'X-Qlik-User', value = 'UserDirectory=INTERNAL;UserId=sa_repository'}",
        )
    )
    (folder / "server.toml").write_text(text)
    return "-c", "server.toml", "--against", "config.toml"


def test_the_servers_list_decides_which_tasks_there_are(rehearse, site):
    """The server is asked for its tasks and for nothing else; what it lacks is rejected."""
    with SimulatedQlik() as qlik:
        qlik.add_task("Sales")
        qlik.add_task("Presses")
        code, out, _ = rehearse(*client_managed(site, qlik.url))
        assert all(one.method == "GET" for one in qlik.requests)
    assert code == 0
    assert "The tasks are the 2 tasks of 127.0.0.1" in out
    assert "Rule sales would have started Sales 24 times" in out
    assert "Rule orders would have started nothing: 12 messages met it; 12 rejected." in out
    assert '12 x unknown task, orders: The server lists no task "Press". Is "Presses" meant?' in out


def test_a_server_out_of_reach_is_said_and_tasks_db_takes_its_place(rehearse, site):
    with SimulatedQlik() as qlik:
        options = client_managed(site, qlik.url)
    code, out, _ = rehearse(*options)
    assert code == 0
    assert "The tasks are those that tasks.db knows (the server: " in out
    assert "Rule sales would have started Sales 24 times" in out


def test_a_certificate_that_is_not_here_keeps_nobody_from_rehearsing(rehearse, site):
    """On a colleague's machine the rules can be tried without the way in to the server."""
    text = (
        (site / "new.toml")
        .read_text()
        .replace(
            'edition = "simulated"',
            "edition = 'client-managed'\nurl = 'https://sense.invalid:4242'\nuser = 'A\\b'\n"
            "certificate = {certfile = 'none.pem', keyfile = 'none.key'}",
        )
    )
    (site / "elsewhere.toml").write_text(text)
    code, out, _ = rehearse("-c", "elsewhere.toml", "--against", "config.toml")
    assert code == 0
    assert "tasks.db knows (the server: " in out
    assert "none.pem" in out


def test_a_merged_request_counts_for_the_task_that_it_names(rehearse):
    """While it waits for quiet the task is not looked up: its name is the one of the rule."""
    _, out, _ = rehearse("-c", "new.toml", "--against", "config.toml", "--json")
    tasks = json.loads(out)["would"]["tasks"]
    assert tasks["Sales"]["merged"] == 48
    assert not [name for name in tasks if '"' in name]


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize(
    ("minutes", "shows"), [(5, "each hour starts"), (30, "Starts in each hour:")]
)
def test_a_terminal_gets_the_answer_first_and_lines_that_fit(monkeypatch, columns, minutes, shows):
    """Also where all is in one hour, of which no plot can be drawn."""
    monkeypatch.setenv("COLUMNS", str(columns))
    would = Tally(BEGIN)
    for what in "starts", "merged", "rejected":
        would.count(what, "a rule with a long name", "a task with a long name", BEGIN)
    found = rehearsal_text.Rehearsed(
        BEGIN, BEGIN + minutes * 60 * S, (BEGIN, BEGIN + HOUR), ["a rule with a long name"], {}, {},
        would, would, BEGIN, 0, "those of a server", [], [],
    )  # fmt: skip
    lines = list(rehearsal_text.lines(found, 10, is_terminal=True))
    assert max(map(len, lines)) <= columns
    told = " ".join(" ".join(lines).split())
    assert told.index("would have led to 1 start (really: 1)") < told.index("How this was found")
    assert shows in told
