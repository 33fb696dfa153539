"""People are told by webhook and mail, at real local endpoints."""

from __future__ import annotations

import email
import json
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from tasks_rig import START_TOPIC, Rig, client_of

from wine import SLOWNESS

from appliance.counters import Counter
from appliance.cli import main
from appliance.errors import EXIT_CONFIG, ConfigError
from appliance.secret import Secret
from appliance.model import Cause, Execution, ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.tasks.notices import Notice, Notices, notice_of
from appliance.tasks.records import Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options
from appliance.config.tables import AllowConfig, NotifyConfig, TriggerConfig

# Apprise loads every one of its plugins, and some of them use what Python has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Inbox:
    """What arrived at an endpoint."""

    def __init__(self) -> None:
        self.arrived: list = []
        self.refusals = 0
        self._changed = threading.Condition()

    def add(self, item: object) -> None:
        with self._changed:
            self.arrived.append(item)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrived) >= count, 20 * SLOWNESS), (
                self.arrived
            )
            return self.arrived


@pytest.fixture
def webhook():
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if inbox.refusals:
                inbox.refusals -= 1
                self.send_error(500)
                return
            self.send_response(200)
            self.end_headers()
            inbox.add(json.loads(body))

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        inbox.url = f"json://127.0.0.1:{server.server_port}/hook"
        yield inbox
        server.shutdown()


@pytest.fixture
def mailbox():
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 local\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    letter = b""
                    while (text := self.rfile.readline()) != b".\r\n":
                        letter += text
                    inbox.add(letter.decode())
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_address[1]
        inbox.url = (
            f"mailto://127.0.0.1:{port}?from=appliance@example.com&to=ops@example.com&mode=insecure"
        )
        yield inbox
        server.shutdown()


def config(url: str, **fields: object) -> NotifyConfig:
    return NotifyConfig(url=Secret(url), **fields)


def test_people_hear_of_a_failure_and_of_the_recovery(webhook, mailbox, tmp_path: Path) -> None:
    """By webhook and by mail: the task, why it failed, who asked; then that it succeeds again.
    An ordinary success is no news."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task(
            "Reload sales",
            duration_s=0.05,
            outcomes=(Outcome.SUCCESS,),
            error_text="Table not found",
        )
        notify = (config(webhook.url), config(mailbox.url, tasks=("reload *",), on=("failed",)))
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=notify) as rig:
            for number, outcome in enumerate([Outcome.SUCCESS, Outcome.FAIL, Outcome.SUCCESS], 1):
                task.outcomes = (outcome,)
                rig.source.put(START_TOPIC, task.id)
                rig.broker.wait_until(
                    lambda n=number: (
                        rig.broker.states(task.id).count("succeeded")
                        + rig.broker.states(task.id).count("failed")
                        == n
                    )
                )
            failed, recovered = webhook.wait_for(2)
            assert failed["title"] == "Reload sales failed"
            assert "Table not found" in failed["message"]
            assert f"message 2 on {START_TOPIC} from plc-1" in failed["message"]
            assert recovered["title"] == "Reload sales succeeds again"
            letters = mailbox.wait_for(1)
            assert "ops@example.com" in letters[0]
            assert "Reload sales failed" in letters[0]


def notice(name: str = "Reload sales", kind: str = "failed") -> Notice:
    execution = Execution(1, "id", name, ExecutionState.FAILED, Cause("operator", rule="ann"), 0)
    return Notice(kind, execution)


class Sender:
    """A running ``Notices`` with a clock of its own."""

    def __init__(self, *configs: NotifyConfig) -> None:
        self.counted = Inbox()
        self.now_s = 0.0
        self.stopped = threading.Event()
        self.notices = Notices(
            configs, self.counted.add, monotonic=lambda: self.now_s, retry_s=0.01
        )
        self.threads = [
            threading.Thread(target=one.run, args=(self.stopped,)) for one in self.notices.targets
        ]

    def __enter__(self) -> Sender:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_other_people_are_told_without_a_restart(webhook, mailbox, tmp_path: Path) -> None:
    """When [[notify]] changes under way, a target that is new is told from then on, one that is
    gone is not, and one that stays keeps its count of the hour."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Reload sales", duration_s=0.05, outcomes=(Outcome.FAIL,))
        mail, hook = config(mailbox.url, on=("recovered",)), config(webhook.url, at_most=2)
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(hook,)) as rig:

            def fail(count: int) -> None:
                rig.source.put(START_TOPIC, task.id)
                rig.broker.wait_for(task.id, "failed", count)

            def tell(*notify: NotifyConfig) -> None:
                rule = TriggerConfig(topic=START_TOPIC, task="payload")
                rig.engine.take(rig.engine.rules_of((rule,), (), AllowConfig(), notify))

            fail(1)
            webhook.wait_for(1)
            tell(hook, mail)
            fail(2)
            webhook.wait_for(2)
            fail(3)
            rig.wait_until(lambda: rig.engine.counters().get(Counter.NOTICES_LEFT_OUT))
            tell(mail)
            task.outcomes = (Outcome.SUCCESS,)
            rig.source.put(START_TOPIC, task.id)
            assert "succeeds again" in mailbox.wait_for(1)[0]
            assert len(webhook.arrived) == 2
            assert rig.engine.counters()[Counter.NOTICES_LEFT_OUT] == 1
            with pytest.raises(ConfigError):
                tell(config("nonsense"))


def test_a_flood_of_failures_is_not_a_flood_of_mail(webhook) -> None:
    """Beyond ``at_most`` an hour notices are counted, and summed up when there is room again."""
    with Sender(config(webhook.url, at_most=2)) as sender:
        for _ in range(5):
            sender.notices.offer(notice())
        sender.counted.wait_for(5)
        sender.now_s = 3601.0
        summary = webhook.wait_for(3)[2]
        assert summary["title"] == "Notices left out"
        assert summary["message"].startswith("3 notices")
        assert sender.counted.arrived.count(Counter.NOTICES_LEFT_OUT) == 3


def test_names_of_others_are_text_in_a_notice(webhook, mailbox) -> None:
    """A topic, a client id or a reason begins no line, steers no terminal, and is no HTML of a mail."""
    cause = Cause("message", 7, "plant/<img src=x>\x1b[2J", "plc\u202e\n1")
    execution = Execution(
        3, "t", "Sales\r\nBcc: all", ExecutionState.FAILED, cause, 0, reason="no\u200btable\x9b1m"
    )
    mail = config(f"{mailbox.url}&format=html")
    for target in Notices((config(webhook.url), mail), lambda *_: None).targets:
        notice = Notice("failed", execution)
        target._tell(notice.title, notice.body, threading.Event())
    (said,) = webhook.wait_for(1)
    assert said["title"] == "Sales\\r\\nBcc: all failed"
    assert said["message"].splitlines() == [
        "no\\u200btable\\x9b1m",
        "Asked for by message 7 on plant/<img src=x>\\x1b[2J from plc\\u202e\\n1",
        "Task t, execution 3",
    ]
    (letter,) = mailbox.wait_for(1)
    read = email.message_from_string(letter)
    assert read["Bcc"] is None
    pages = [part for part in read.walk() if part.get_content_type() == "text/html"]
    assert pages
    assert not any(b"<img" in part.get_payload(decode=True) for part in pages)


def test_a_notice_is_tried_again_and_then_left(webhook, caplog) -> None:
    """Two refusals are bridged; an endpoint that is gone is one line in the log, without the URL."""
    webhook.refusals = 2
    gone = config("json://user:topsecret@127.0.0.1:9/hook", on=("lost",))
    with Sender(config(webhook.url), gone) as sender:
        sender.notices.offer(notice())
        webhook.wait_for(1)
        sender.notices.offer(notice(kind="lost"))
        webhook.wait_for(2)
        sender.counted.wait_for(3)
    assert Counter.NOTICES_FAILED in sender.counted.arrived
    assert "notify 2 (json) could not be told" in caplog.text
    assert "topsecret" not in caplog.text


def test_only_what_was_asked_for_is_told(webhook) -> None:
    """``on`` and ``tasks`` choose; what no target wants is not even kept."""
    with Sender(config(webhook.url, on=("failed",), tasks=("* sales", "id-7"))) as sender:
        sender.notices.offer(notice("Reload stock"))
        sender.notices.offer(notice(kind="slow"))
        sender.notices.offer(notice("Reload Sales"))
        webhook.wait_for(1)
    assert [one["title"] for one in webhook.arrived] == ["Reload Sales failed"]


def test_a_start_does_not_import_apprise(tmp_path: Path) -> None:
    """Making the targets costs neither the time nor the memory of Apprise's 150 services."""
    (tmp_path / "url").write_text("mailto://user:password@example.com")
    program = f"""
import sys
from appliance.config.tables import NotifyConfig
from appliance.secret import Secret
from appliance.tasks.notices import Notices
urls = NotifyConfig(url=Secret("json://127.0.0.1")), NotifyConfig(url_file={str(tmp_path / "url")!r})
assert len(Notices(urls, print).targets) == 2
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in ("apprise", "paho"))
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_service_that_is_not_known_is_told_at_the_first_notice(caplog) -> None:
    """A start accepts its form; the first notice is counted as failed, with a line that says which
    table, and without the URL."""
    with Sender(config("mailtoo://user:topsecret@example.com")) as sender:
        sender.notices.offer(notice())
        assert sender.counted.wait_for(1) == [Counter.NOTICES_FAILED]
    assert "notify 1: the URL is not one that Apprise understands" in caplog.text
    assert "topsecret" not in caplog.text


@pytest.mark.parametrize("url", ["mailtoo://user:topsecret@example.com", "mailto://", "topsecret"])
def test_check_asks_apprise_about_each_url(url: str, tmp_path: Path, capfd) -> None:
    """``appliance check`` refuses a service that Apprise does not know, and an incomplete URL."""
    path = tmp_path / "config.toml"
    path.write_text(f'[[notify]]\nurl = "json://127.0.0.1"\n[[notify]]\nurl = "{url}"\n')
    assert main(["check", "-c", str(path)]) == EXIT_CONFIG
    told = capfd.readouterr().err
    assert f"{path}: notify 2: the URL is not one that Apprise understands" in told
    assert "notify 1" not in told
    assert "topsecret" not in told


def test_a_url_that_means_nothing_is_a_configuration_error(tmp_path: Path) -> None:
    """The error names the table and the fix, never the URL, which has secrets."""
    with pytest.raises(ConfigError, match="notify 1: the URL is not one") as caught:
        Notices([config("nonsense-topsecret")], print)
    assert "topsecret" not in str(caught.value)
    with pytest.raises(ConfigError, match="either url or url_file"):
        Notices([NotifyConfig()], print)
    with pytest.raises(ConfigError, match="can't be read"):
        Notices([NotifyConfig(url_file=str(tmp_path / "none"))], print)
    (tmp_path / "url").write_text("json://127.0.0.1:9/x\n")
    assert Notices([NotifyConfig(url_file=str(tmp_path / "url"))], print).targets


@pytest.mark.parametrize("news", [{"log_tail": ("a line",)}, {"log_problem": "404"}])
def test_what_becomes_of_the_script_log_is_no_second_notice(news) -> None:
    """The failure was told when it was known."""
    execution = Execution(1, "id", "A", ExecutionState.FAILED, Cause("operator"), 0)
    record = Record(execution, TaskSelector("id", "id"), Options(), 0, 0)
    assert notice_of(record, execution) is not None
    assert notice_of(record, msgspec.structs.replace(execution, **news)) is None
