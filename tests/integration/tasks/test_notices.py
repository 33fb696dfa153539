"""People are told by webhook and mail, at real local endpoints."""

from __future__ import annotations

import email
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from notice_rig import Sender, notice, notify
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.counters import Counter
from appliance.cli import main
from appliance.errors import EXIT_CONFIG, ConfigError
from appliance.model import Cause, Execution, ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.tasks.notice import LogKnown, Notice, notice_of
from appliance.tasks.notices import Notices
from appliance.tasks.records import Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options
from appliance.config.tables import AllowConfig, NotifyConfig, TriggerConfig

# Apprise loads every one of its plugins, and some of them use what Python has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
        tables = (notify(webhook.url), notify(mailbox.url, tasks=("reload *",), on=("failed",)))
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=tables) as rig:
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


def test_other_people_are_told_without_a_restart(webhook, mailbox, tmp_path: Path) -> None:
    """When [[notify]] changes under way, a target that is new is told from then on, one that is
    gone is not, and one that stays keeps its count of the hour."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Reload sales", duration_s=0.05, outcomes=(Outcome.FAIL,))
        mail, hook = notify(mailbox.url, on=("recovered",)), notify(webhook.url, at_most=2)
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(hook,)) as rig:

            def fail(count: int) -> None:
                rig.source.put(START_TOPIC, task.id)
                rig.broker.wait_for(task.id, "failed", count)

            def tell(*tables: NotifyConfig) -> None:
                rule = TriggerConfig(topic=START_TOPIC, task="payload")
                rig.engine.take(rig.engine.rules_of((rule,), (), AllowConfig(), tables))

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
                tell(notify("nonsense"))


def test_a_flood_of_failures_is_not_a_flood_of_mail(webhook) -> None:
    """Beyond ``at_most`` an hour notices are counted, and summed up when there is room again."""
    with Sender(notify(webhook.url, at_most=2)) as sender:
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
    mail = notify(f"{mailbox.url}&format=html")
    for target in Notices((notify(webhook.url), mail), lambda *_: None).targets:
        target._tell(Notice("failed", execution), threading.Event())
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
    gone = notify("json://user:topsecret@127.0.0.1:9/hook", on=("lost",))
    with Sender(notify(webhook.url), gone) as sender:
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
    with Sender(notify(webhook.url, on=("failed",), tasks=("* sales", "id-7"))) as sender:
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
    with Sender(notify("mailtoo://user:topsecret@example.com")) as sender:
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
        Notices([notify("nonsense-topsecret")], print)
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
    assert notice_of(record, execution) == Notice("failed", execution)
    known = msgspec.structs.replace(execution, **news)
    assert notice_of(record, known) == LogKnown(known)
