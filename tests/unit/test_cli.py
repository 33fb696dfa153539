"""What the command line promises: exit codes, help that teaches, no traceback for a mistake."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import certificates
import pytest
from appliance_process import free_port
from cryptography.hazmat.primitives import serialization

from wine import SLOWNESS

from appliance import __version__, cli, errors
from appliance.broker.users import Users
from appliance.commands import run as run_command
from appliance.commands.user import read_password
from appliance.config.reading import load
from appliance.errors import UsageError
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.repository import EVENTS
from appliance.qlik.simulated.site import SimulatedChain, Status
from appliance.ui.keys import TABLE
from appliance.process.ui_settings import ui_settings

ROOT = Path(__file__).parents[2]
COMMANDS = ("run", "demo", "init", "check", "user", "session", "publish", "start", "explain", "hold", "release", "list", "freshness", "export", "rehearse", "tasks", "selftest",
            "completion", "manual",
            "health", "reload", "acknowledge", "log-level", "backup", "restore")  # fmt: skip


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def appliance(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls the command line in an empty folder and tells exit code and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = cli.main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(code, out, err)

    return call


def in_process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        cwd=ROOT,
        check=False,
        **options,
    )


def test_version_is_printed_without_loading_the_appliance() -> None:
    """`appliance --version` answers at once: it loads nothing beyond the command line itself."""
    code = (
        "import sys; from appliance.cli import main; assert main(['--version']) == 0;"
        "print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, _, modules = done.stdout.partition("\n")
    assert first == f"appliance {__version__}"
    loaded = set(re.findall(r"'([\w.]+)'", modules))
    assert {each for each in loaded if each.startswith("appliance")} == {
        "appliance",
        "appliance.cli",
        "appliance.errors",
        "appliance.process",
        "appliance.process.interrupts",
    }
    heavy = {"asyncio", "textual", "amqtt", "msgspec", "requests", "ssl", "sqlite3", "logging"}
    assert not loaded & heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(appliance, command: str) -> None:
    """`--help` of each command says what it is for and shows how it is used."""
    done = appliance(command, "--help")
    assert done.code == 0
    assert "examples:" in done.out
    assert f"  appliance {command}" in done.out


def test_without_a_command_the_help_says_how_to_begin(appliance) -> None:
    """`appliance` alone shows the first commands and the exit codes."""
    done = appliance()
    assert done.code == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}\b", done.out, re.MULTILINE)
    assert "appliance demo" in done.out
    assert "78 wrong configuration" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "did you mean check"),
        (["dance"], "the commands are: run, demo"),
        (["run", "--runfor", "3"], "did you mean --run-for in place of --runfor?"),
        (["run", "--xyzzy"], "unrecognized arguments: --xyzzy"),
        (["publish", "--topc", "a", "-m", "x"], "did you mean --topic in place of --topc?"),
        (["session", "end", "a", "--ys"], "did you mean --yes"),
        (["user", "lst"], "did you mean list?"),
        (["log-level", "debg"], "did you mean debug?"),
        (["run", "-c"], "expected one argument"),
        (["user"], "ACTION"),
        (["user", "add"], "NAME"),
        (["user", "add", "a b", "--password-stdin"], "letters, digits"),
        (["publish", "-t", "a"], "-m"),
        (["publish", "-t", "a/#", "-m", "x"], "no wildcards"),
        (["publish", "-t", "a", "-m", "x", "-q", "3"], "choose from"),
        (
            ["publish", "-t", "a", "-m", "x", "--host", "h", "--timeout", "soon"],
            "not a duration",
        ),
        (["publish", "-t", "a", "-m", "x", "--host", "h", "--port", "0"], "1 to 65535"),
        (["publish", "-t", "a", "--file", "none", "--host", "h"], "No such file"),
        (["export", "-t", "a/#/b"], "stands alone"),
        (["export", "--since", "yesterday"], "write how long ago"),
        (["export", "--limit", "0"], "above zero"),
        (["start", "a\udcff", "--host", "127.0.0.1"], "not UTF-8 text"),
        (["--debug"], None),
    ],
)
def test_wrong_usage_is_64_with_a_sentence(appliance, arguments: list[str], said: str) -> None:
    """A slip on the command line ends with code 64, says what is wrong and where help is."""
    if "user" in arguments:
        appliance("init")
    done = appliance(*arguments)
    assert done.code == 64
    assert said is None or said in done.err


UNFINISHED = """
[access]
users_file = "users.txt"
[[access.rule]]
publish = ["a/#/b"]
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "client-managed"
password = "${NOT_SET_ANYWHERE}"
[[trigger]]
topic = "x"
[ui]
theme = "none such"
[nonsense]
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["user", "add", "plc-7", "--password-stdin"], 0, "is added"),
        (["user", "list"], 0, ""),
        (["publish", "-t", "a", "-m", "x"], 69, "nothing listens at 127.0.0.1:"),
        (["export"], 69, "there is no journal"),
        (["backup", "copy"], 69, "there is nothing to back up"),
        (["restore", "copy"], 69, ""),
        (["health"], 69, "no appliance runs"),
        (["session", "list"], 69, "No appliance runs"),
        (["reload"], 69, "No appliance runs"),
        (["tasks"], 78, "[qlik] `url`"),
        (["check"], 78, "[[trigger]] 1 `task`: this key is missing"),
    ],
)
def test_a_command_reads_only_the_tables_that_it_needs(
    appliance, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """An unfinished table stops the commands that need it, and no other one."""
    (tmp_path / "config.toml").write_text(UNFINISHED.replace("PORT", str(free_port())))
    done = appliance(*arguments, stdin=b"secret\n")
    assert said in done.out + done.err
    assert done.code == code or arguments[0] == "restore"
    assert ("nonsense" in done.err) == (arguments == ["check"])
    assert ("[[trigger]]" in done.err) == (arguments == ["check"])


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (["*"], 'for user "*" allow'),
        (["", "plc"], 'for user "" allow'),
        (["", "*"], 'for user "" or user "*" allow'),
        (["plc"], "no rule is for clients without a name"),
    ],
)
def test_check_says_which_rules_clients_without_a_name_have(
    appliance, tmp_path: Path, users: list[str], said: str
) -> None:
    """`check` compares the users of rules with a missing name as the broker does."""
    rules = "".join(f'[[access.rule]]\nuser = "{user}"\npublish = ["#"]\n' for user in users)
    config = f'[access]\nanonymous = true\n{rules}[[listener]]\nbind = "127.0.0.1:1883"\n'
    (tmp_path / "config.toml").write_text(config)
    done = appliance("check")
    assert done.code == 0
    assert said in done.out
    assert ("clients without a name: publish #" in done.out) == ("" in users)


@pytest.mark.parametrize("text", ["soon", "0s", "10", "-1s"])
def test_run_for_wants_a_time(appliance, text: str) -> None:
    """`--run-for` says how a time is written, before anything is started."""
    appliance("init")
    done = appliance("run", "--headless", f"--run-for={text}")
    assert done.code == 64
    assert f"--run-for {text}: " in done.err


def test_init_writes_what_check_accepts_and_never_overwrites(appliance, tmp_path: Path) -> None:
    """From nothing to a valid configuration in one command; a second one destroys nothing."""
    done = appliance("init")
    assert done.code == 0
    assert "appliance check" in done.out
    assert appliance("check").code == 0
    file = tmp_path / "config.toml"
    file.write_text("# mine\n")
    done = appliance("init")
    assert done.code == 64
    assert "exists" in done.err
    assert file.read_text() == "# mine\n"
    done = appliance("init", "new/plant.toml")
    assert done.code == 0
    assert "-c new/plant.toml" in done.out
    assert appliance("check", "-c", "new/plant.toml").code == 0


def test_the_documented_example_is_what_init_writes(appliance, tmp_path: Path) -> None:
    """config.toml at the top of the project is valid as it stands and is the one text there is."""
    appliance("init")
    assert (tmp_path / "config.toml").read_bytes() == (ROOT / "config.toml").read_bytes()
    done = appliance("check", "-c", str(ROOT / "config.toml"))
    assert done.code == 0
    assert "qliksense/start_task starts the task that the payload names" in done.out


def test_check_says_what_a_configuration_means(appliance, tmp_path: Path) -> None:
    """Listeners, access, rules, triggers and recorders are told in words."""
    (tmp_path / "config.toml").write_text(r"""
[service]
name = "plant-7"
run_for = "8h"
[[listener]]
name = "machines"
bind = "127.0.0.1:1884"
[[listener]]
transport = "websocket"
bind = "0.0.0.0:8083"
[access]
users_file = "users.txt"
[[access.rule]]
user = "plc-*"
publish = ["plant/%u/#"]
[qlik]
edition = "cloud"
url = "https://tenant.eu.qlikcloud.com"
api_key = "hunter2-api-key"
[[trigger]]
name = "orders"
topic = "plant/+/order"
task = {tag = "mqtt"}
when = {state = "done"}
debounce = "90s"
cooldown = "5m"
fresh_within = "15m"
[[recorder]]
topic = "plant/#"
path = "plant.csv"
format = "csv"
metadata = true
""")
    assert appliance("user", "add", "plc-1", "--password-stdin", stdin=b"pw\n").code == 0
    done = appliance("check")
    assert done.code == 0, done.err
    for line in (
        rf"service +plant-7, data in {re.escape(str(tmp_path / 'data'))}, stops after 8h",
        r"listener +machines: MQTT at 127.0.0.1:1884, no TLS, this machine only",
        r"listener +ws: WebSocket at 0.0.0.0:8083, no TLS, other machines too",
        r"access +clients must sign in; 1 user in ",
        r"rule +user plc-\*: publish plant/%u/#, subscribe nothing",
        r"qlik +cloud at https://tenant.eu.qlikcloud.com, with an API key",
        r"trigger +orders: a message on plant/\+/order starts all tasks with tag mqtt, "
        r"when state fit, after 1m30s of quiet, at most once in 5m, "
        r"data is late after 15m",
        r"recorder +plant/# to .*plant.csv as csv with time, topic and client",
        r"listener\]\] 2 .* has no `tls`",
    ):
        assert re.search(line, done.out), line
    assert "hunter2" not in done.out + done.err


def test_check_names_every_problem_and_ends_with_78(appliance, tmp_path: Path) -> None:
    """A wrong configuration, a missing certificate, a bad condition: one line each, code 78."""
    file = tmp_path / "config.toml"
    file.write_text("[service]\nnmae = 1\n[journal]\nsync = 'never'\n")
    done = appliance("check")
    assert done.code == 78
    assert len(done.err.splitlines()) == 2
    (tmp_path / "k.pem").write_text("this is no key")
    (tmp_path / "users.txt").write_text("plc:hunter2\n")
    file.write_text(
        "[access]\nusers_file = 'users.txt'\n[qlik]\nedition = 'simulated'\n"
        "[[trigger]]\ntopic = 'a'\ntask = 'payload'\nwhen = {state = {almost = 1}}\n"
        "[[listener]]\nbind = '127.0.0.1:1'\ntls = {certfile = 'none.pem', keyfile = 'k.pem'}\n"
        "[[listener]]\nbind = '127.0.0.1:2'\ntls = {certfile = 'k.pem', keyfile = 'k.pem'}\n"
    )
    done = appliance("check")
    assert done.code == 78
    assert "none.pem does not exist" in done.err
    said = f"[[listener]] 2 `tls.certfile`: {tmp_path / 'k.pem'} holds no certificate"
    assert said in done.err
    assert "almost" in done.err
    assert "users.txt, line 1" in done.err
    assert "hunter2" not in done.err


def test_check_tells_what_is_odd_about_client_ids(appliance, tmp_path: Path) -> None:
    """Patterns that can't fit are errors; those that leave a user another's id are advised on."""
    file = tmp_path / "config.toml"
    file.write_text("[access]\nclient_ids = ['', '%c-1', '$SYS', '%u']\n")
    done = appliance("check")
    assert done.code == 78
    assert [line.split("`")[1] for line in done.err.splitlines()] == [
        "client_ids[1]", "client_ids[2]", "client_ids[3]"
    ]  # fmt: skip
    file.write_text("[access]\nclient_ids = ['%u-*']\n")
    assert "%u is a name that no password proves" in appliance("check").out
    (tmp_path / "users.txt").write_text("")
    users = Users(str(tmp_path / "users.txt"))
    for name in ("press", "press-7"):
        users.add(name, b"secret")
    access = "[access]\nusers_file = 'users.txt'\noperators = ['press']\nclient_ids = "
    file.write_text(f"{access}['%u-*']\n")
    done = appliance("check")
    assert done.code == 0
    assert re.search(r"client ids +%u-\*; no others", done.out)
    assert (
        'user press may use a client id that is meant for user press-7, for example "press-7-1"'
        in (done.out)
    )
    assert "no pattern fits the client ids that `appliance attach` makes up" in done.out
    file.write_text(f"{access}['%u', '%u:*', 'terminal-*']\n")
    assert "`client_ids`" not in appliance("check").out
    users_only = "[access]\nusers_file = 'users.txt'\n"
    for rule, is_odd in (
        ("user = 'p*'\npublish = ['plant/%c/#']", True),
        ("client_id = 'line-*'\nsubscribe = ['plant/#']", True),
        ("user = 'press'\npublish = ['plant/%c/#']", False),
        ("publish = ['plant/%u/#']", False),
        ("publish = ['plant/#']\n[[access.rule]]\ndeny = ['plant/%c/key']", False),
    ):
        file.write_text(f"{users_only}[[access.rule]]\n{rule}\n")
        told = "[[access.rule]] 1 gives rights by the client id" in appliance("check").out
        assert told is is_odd, rule


@pytest.mark.parametrize(
    ("certfile", "keyfile", "said"),
    [
        ("client.pem", "client_key.pem", ""),
        ("client.pem", "root.pem", "root.pem holds no private key"),
        ("client_key.pem", "client_key.pem", "client_key.pem holds no certificate"),
        ("client.pem", "server_key.pem", "certificate and key don't belong together"),
        ("client.pem", "locked.pem", "locked.pem is protected by a passphrase"),
    ],
)
def test_check_tries_the_certificate_for_the_qlik_server(
    appliance, tmp_path: Path, certfile: str, keyfile: str, said: str
) -> None:
    """A key file that is no key is told by `check`, not by the service that does not start."""
    certificates.make(tmp_path)
    locked = serialization.load_pem_private_key((tmp_path / "client_key.pem").read_bytes(), None)
    (tmp_path / "locked.pem").write_bytes(
        locked.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    (tmp_path / "config.toml").write_text(
        "[qlik]\nedition = 'client-managed'\nurl = 'https://sense.example.com:4242'\n"
        "user = 'INTERNAL\\sa_repository'\nca_file = 'root.pem'\n"
        f"certificate = {{certfile = '{certfile}', keyfile = '{keyfile}'}}\n"
    )
    done = appliance("check")
    assert done.code == (78 if said else 0), done.err
    if said:
        assert "[qlik] `certificate`: " in done.err
        assert said in done.err


@pytest.mark.parametrize("name", ["file", "x" * 300], ids=["a file", "too long"])
def test_check_names_a_data_directory_that_can_not_be_one(appliance, tmp_path: Path, name) -> None:
    """A start would end there. For a name that is too long, Windows says that there is no folder."""
    (tmp_path / "file").touch()
    (tmp_path / "config.toml").write_text(f"[service]\ndata_dir = '{name}'\n")
    done = appliance("check")
    if name == "file" or sys.platform != "win32":
        assert done.code == 78
        assert "[service] `data_dir`: " in done.err
        assert "name a folder" in done.err


def test_check_tries_the_authority_of_the_qlik_server(appliance, tmp_path: Path) -> None:
    """An authority's file without a certificate in it is told by `check`, with its key."""
    (tmp_path / "root.pem").write_text("this is no certificate")
    (tmp_path / "config.toml").write_text(
        "[qlik]\nedition = 'cloud'\nurl = 'https://t.eu.qlikcloud.com'\napi_key = 'k'\n"
        "ca_file = 'root.pem'\n"
    )
    done = appliance("check")
    assert done.code == 78
    assert "[qlik] `ca_file`: " in done.err


def test_check_connect_tries_the_server(appliance) -> None:
    """`check --connect` signs in and says how many tasks can be seen; here the simulated ones."""
    appliance("init")
    done = appliance("check", "--connect")
    assert done.code == 0
    assert "tasks are visible" in done.out


def test_check_connect_to_nothing_is_69(appliance, tmp_path: Path) -> None:
    """A server that is not there is told apart from a wrong configuration."""
    (tmp_path / "config.toml").write_text(
        f"[qlik]\nedition = 'cloud'\nurl = 'http://127.0.0.1:{free_port()}'\napi_key = 'k'\n"
    )
    done = appliance("check", "--connect")
    assert done.code == 69
    assert re.search(r"bad +.*127\.0\.0\.1", done.out)


def test_tasks_lists_and_searches(appliance) -> None:
    """`appliance tasks` shows ids and names; a text narrows the list; --json is for programs."""
    appliance("init")
    done = appliance("tasks")
    assert done.code == 0
    assert re.search(r"^[0-9a-f-]{36}  Reload sales  ", done.out, re.MULTILINE)
    [task] = json.loads(appliance("tasks", "SALES", "--json").out)
    assert task["name"] == "Reload sales"
    done = appliance("tasks", "no such task")
    assert (done.code, done.out) == (0, "")
    assert "no task with 'no such task' in its name" in done.err


QLIK = (
    "[qlik]\nedition = 'client-managed'\nurl = '{url}'\nheader = {{name = 'X-Qlik-User', "
    "value = 'UserDirectory=INTERNAL;UserId=sa_repository'}}\n"
)


def test_tasks_with_what_starts_them(appliance, tmp_path: Path) -> None:
    """--long is a table, --tree has each task below its chain's, --json has all of it."""
    with SimulatedQlik() as qlik:
        sales = qlik.add_task("Sales", every_s=7200)
        report = qlik.add_task("A report\x1b[2J\u202e")
        end = ((sales.id, Status.SUCCESS),)
        qlik.site.add_chain(SimulatedChain("Then", report.id, end))
        (tmp_path / "config.toml").write_text(
            QLIK.format(url=qlik.url)
            + f"[[trigger]]\ntopic = 'sales/done'\ntask = '{sales.id}'\nname = 'from sales'\n"
            "[[timer]]\nname = 'nightly'\ncron = '0 3 * * *'\ntask = {name = 'Sales'}\n"
        )
        heading, first, second = appliance("tasks", "--long").out.splitlines()
        assert heading.split() == [
            "ID",
            "TASK",
            "LAST",
            "SINCE",
            "USUALLY",
            "NEXT",
            "STARTED",
            "BY",
        ]
        assert first.startswith(report.id)
        assert "\x1b" not in first
        assert first.endswith("after Sales")
        assert second.startswith(f"{sales.id}  Sales")
        assert second.endswith("rule from sales, Qlik Schedule of Sales, timer nightly")

        _, above, below = appliance("tasks", "--tree").out.splitlines()
        assert above.startswith(f"{sales.id}  Sales ")
        assert below.startswith(f"{report.id}  └ A report")
        # What a search wants stands below what leads to it.
        assert len(appliance("tasks", "report", "--tree").out.splitlines()) == 3
        assert len(appliance("tasks", "sales", "--tree").out.splitlines()) == 2

        found = json.loads(appliance("tasks", "report", "--json").out)
        assert [one["id"] for one in found] == [report.id]
        assert found[0]["starters"] == [
            {
                "kind": "chain",
                "name": "Then",
                "detail": "",
                "enabled": True,
                "next": None,
                "after": [{"id": sales.id, "end": "succeeded"}],
            }
        ]


def test_tasks_are_listed_whatever_is_wrong_elsewhere(appliance, tmp_path: Path) -> None:
    """A broken rule, and a server that does not tell its triggers, cost a line each."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Sales")
        qlik.repository.hidden_events = set(EVENTS)
        (tmp_path / "config.toml").write_text(
            QLIK.format(url=qlik.url) + "[[trigger]]\ntopic = 'a'\ntask = 'no id'\n"
        )
        done = appliance("tasks", "--long")
        assert done.code == 0
        assert done.out.splitlines()[1].startswith(task.id)
        assert "Rules and timers are left out" in done.err
        (tmp_path / "config.toml").write_text(QLIK.format(url=qlik.url))
        done = appliance("tasks", "--json")
        assert [one["id"] for one in json.loads(done.out)] == [task.id]
        assert "can't be read" in done.err


def test_tasks_are_found_by_whatever_a_trigger_names_them_by(appliance, tmp_path: Path) -> None:
    """A search looks at tags and properties too, and says what [allow] does not let start."""
    with SimulatedQlik() as qlik:
        qlik.add_task("Reload sales", tags=("nightly",), properties=(("plant", "north"),))
        qlik.add_task("Reload HR")
        (tmp_path / "config.toml").write_text(
            f"[qlik]\nedition = 'client-managed'\nurl = '{qlik.url}'\nheader = {{name = "
            "'X-Qlik-User', value = 'UserDirectory=INTERNAL;UserId=sa_repository'}\n"
            "[allow]\ntags = ['nightly']\n"
        )
        for search in ("NIGHT", "plant=north"):
            (line,) = appliance("tasks", search).out.splitlines()
            assert "Reload sales" in line
            assert "tags nightly; plant=north" in line
            assert "[allow]" not in line
        (line,) = appliance("tasks", "hr").out.splitlines()
        assert "not in [allow]" in line


def test_users_are_added_listed_and_removed(appliance, tmp_path: Path) -> None:
    """The users file is managed by commands; the password comes from input and stays out of it."""
    appliance("init")
    done = appliance("user", "add", "plc-7", "--password-stdin", stdin=b"s3cret\r\nmore\n")
    assert done.code == 0
    assert "no client can connect without a password" in done.out
    assert "s3cret" not in (tmp_path / "users.txt").read_text() + done.out
    done = appliance("user", "add", "plc-7", "--password-stdin", stdin=b"other\n")
    assert "new password" in done.out
    assert appliance("user", "list").out == "plc-7\n"
    assert appliance("user", "remove", "plc-7").code == 0
    done = appliance("user", "remove", "plc-7")
    assert done.code == 64
    assert "no user plc-7" in done.err
    done = appliance("user", "add", "x", "--password-stdin", stdin=b"\n")
    assert done.code == 64
    done = appliance("user", "add", "x", stdin=b"piped\n")
    assert done.code == 64
    assert "--password-stdin" in done.err


def test_users_need_a_users_file(appliance, tmp_path: Path) -> None:
    """Without the key, the command says which line is missing."""
    (tmp_path / "config.toml").write_text("")
    done = appliance("user", "list")
    assert done.code == 78
    assert 'users_file = "users.txt"' in done.err


def test_a_typed_password_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing mistake in a new password is caught before it is stored."""
    typed = iter(["one", "two", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    class Options:
        password_stdin = False

    monkeypatch.setattr(sys, "stdin", type("Tty", (), {"isatty": lambda self: True})())
    with pytest.raises(UsageError, match="differ"):
        read_password(Options, "Password: ", twice=True)
    assert read_password(Options, "Password: ", twice=True) == b"same"


@pytest.mark.parametrize("command", ["run", "check", "tasks", "export", "user list"])
def test_without_a_configuration_78_and_the_way_to_one(appliance, command: str) -> None:
    """Each command that needs a configuration says how to get one."""
    done = appliance(*command.split())
    assert done.code == 78
    assert "appliance init" in done.err


def test_run_refuses_missing_files_before_anything_starts(appliance, tmp_path: Path) -> None:
    """A missing certificate ends the start with code 78, and no data folder appears."""
    (tmp_path / "config.toml").write_text(
        "[[listener]]\ntls = {certfile = 'a.pem', keyfile = 'b.pem'}\n"
    )
    done = appliance("run", "--headless")
    assert done.code == 78
    assert done.err.count("does not exist") == 2
    assert not (tmp_path / "data").exists()


def test_a_defect_is_70_and_shows_its_place_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An unexpected error is one sentence; with --debug the traceback is there to report."""
    monkeypatch.chdir(tmp_path)

    def fails(options: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("appliance.commands.init.execute", fails)
    assert cli.main(["init"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "--debug" in err
    assert cli.main(["init", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "denied", "/x"), 77), (OSError(28, "No space left", "/x"), 69)],
)
def test_what_the_system_refuses_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, code: int
) -> None:
    """A full disk or a missing right that no command foresaw still ends with a sentence."""

    def fails(options: object) -> int:
        raise error

    monkeypatch.setattr("appliance.commands.init.execute", fails)
    assert cli.main(["init"]) == code
    err = capsys.readouterr().err
    assert err.startswith("appliance: /x: ")
    assert "Traceback" not in err


def test_a_reader_that_has_enough_is_no_error() -> None:
    """`appliance tasks | head -1` ends in silence."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "appliance", "check"],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_interrupted_commands_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl+C at a question ends the command with the shell's usual code, without a traceback."""

    def interrupted(options: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr("appliance.commands.init.execute", interrupted)
    assert cli.main(["init"]) == 130
    assert "interrupted" in capsys.readouterr().err


_INTERRUPTED_WHEN_IMPORTED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                signal.raise_signal(signal.SIGINT)
                for _ in range(1000):
                    pass
            except KeyboardInterrupt:  # a library may do so around an import of its own
                pass

sys.meta_path.insert(0, Finder())
sys.argv = ["appliance", "run", "--headless", "--run-for", "1ms"]
runpy.run_module("appliance", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "name", ["appliance.cli", "argparse", "appliance.commands.run", "appliance.config",
             "appliance.process.run", "appliance.broker.server"],
)  # fmt: skip
def test_ctrl_c_while_the_program_is_loaded_ends_it_without_a_traceback(
    name: str, tmp_path: Path
) -> None:
    """From the first import to the last one, Ctrl+C is exit code 130 and one line."""
    (tmp_path / "config.toml").write_text("[[listener]]\nbind = '127.0.0.1:0'\n")
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_WHEN_IMPORTED.format(name=name)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "appliance: interrupted")
    assert "Traceback" not in done.stderr


def test_no_terminal_means_headless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI is shown only where a terminal can show it."""
    terminal = type("Tty", (), {"isatty": lambda self: True})()
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert run_command.is_headless(True)
    assert not run_command.is_headless(False)
    monkeypatch.setenv("TERM", "dumb")
    assert run_command.is_headless(False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run_command.is_headless(False)


def test_every_key_that_the_ui_has_itself_may_be_chosen(appliance, tmp_path: Path) -> None:
    """What the help and the table of keys name is accepted, and characters as they are."""
    known = {key for each in TABLE for key in each.keys.split(",")}
    known |= {"+", "ctrl+plus", "ü", "/", "f12", "shift+tab", "ctrl+shift+f5", "comma", "minus"}
    for key in sorted(known):
        (tmp_path / "config.toml").write_text(f"[ui]\nkeys = {{pause = '{key}'}}\n", "utf-8")
        ui_settings(load(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("[ui]\nkeys = {pause = 'ctrl+alt+p'}\n")
    # As Textual reports it, or the key would do nothing.
    assert ui_settings(load(tmp_path / "config.toml")).keys == {"pause": ("alt+ctrl+p",)}


@pytest.mark.campaign
def test_selftest_finds_this_installation_whole() -> None:
    """Every module loads, a database is written, a password is hashed, TLS is there."""
    done = in_process("selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("theme = 'appliance-drak'", 'did you mean "appliance-dark"?'),
        ("keys = {puase = 'f5'}", 'there is no such action; did you mean "pause"?'),
        ("keys = {pause = ' , '}", 'write for example pause = "f5"'),
        ("keys = {pause = 'ctrl+alt+zork'}", 'no key has this name; write for example "f5"'),
        ("keys = {pause = 'f5, ctrl+escpe'}", 'did you mean "ctrl+escape"?'),
        ("keys = {pause = 'strg+p'}", 'there is no modifier "strg"; write for example "f5"'),
    ],
)
def test_a_slip_in_the_ui_s_table_is_told_before_anything_starts(
    appliance, tmp_path: Path, text: str, said: str
) -> None:
    """A theme or an action that there is not is a configuration error with a way to fix it."""
    (tmp_path / "config.toml").write_text(f"[ui]\n{text}\n")
    done = appliance("check")
    assert done.code == 78
    assert said in done.err


@pytest.mark.parametrize("arguments", [["manual"], ["list", "--url", "http://127.0.0.1:1"]])
def test_a_closed_standard_output_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """``appliance stats >&-``, or a program without a console: Python has no streams then."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    code = cli.main(arguments)
    sys.stdout.close()
    sys.stderr.close()
    assert code != errors.EXIT_SOFTWARE
