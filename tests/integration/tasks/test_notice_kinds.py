"""Which notices a table gets, how many, in which words, and with which log."""

from __future__ import annotations

import base64
import gzip
import socket
from pathlib import Path

import msgspec
import pytest
from notice_rig import Inbox, Sender, notice, notify, task_list
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.config.tables import ByProperty, NoticeKind, NotifyConfig
from appliance.counters import Counter
from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.tasks.notice import LogKnown, Notice
from appliance.tasks.notice_texts import NoticeTexts
from appliance.tasks.task_facts import TaskFacts

# Apprise loads every one of its plugins, and some of them use what Python has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ABORTED = Execution(2, "id", "Reload sales", ExecutionState.ABORTED, Cause("operator"), 0)


def titles(inbox: Inbox, count: int) -> list[str]:
    return [one["title"] for one in inbox.wait_for(count)]


def told(webhook: Inbox, tables: list[NotifyConfig], *news: Notice) -> list[str]:
    """The titles that arrive, of these and of a last one."""
    with Sender(*tables) as sender:
        for one in (*news, notice("end", "lost")):
            sender.notices.offer(one)
        sender.counted.wait_for(len(webhook.arrived) or 1)
        while "end: outcome lost" not in titles(webhook, 1):
            webhook.wait_for(len(webhook.arrived) + 1)
        return [one["title"] for one in webhook.arrived if "end" not in one["title"]]


@pytest.mark.parametrize(
    ("on", "told_of"),
    [
        (["failed"], 1),  # as it was before there was ``aborted``
        (["aborted"], 1),
        (["recovered"], 0),
    ],
)
def test_an_abort_is_a_failure_where_no_table_lists_it(
    webhook: Inbox, on: list[NoticeKind], told_of: int
) -> None:
    found = told(webhook, [notify(webhook.url, on=(*on, "lost"))], Notice("aborted", ABORTED))
    assert found == ["Reload sales aborted"] * told_of


def test_late_data_is_told_to_those_who_ask_for_it(webhook: Inbox) -> None:
    """Its text is the reason: since when, by which message, and what stands in the way."""
    reason = "Its data is stale for 16 min: no successful run began after message 12. It runs."
    late = Execution(
        7, "id", "Reload sales", ExecutionState.RUNNING, Cause("message", 12), 0, reason=reason
    )
    with Sender(notify(webhook.url, on=("stale",))) as sender:
        sender.notices.offer(Notice("failed", ABORTED))
        sender.notices.offer(Notice("stale", late))
        (arrived,) = webhook.wait_for(1)
    assert arrived["title"] == "Reload sales is stale"
    assert arrived["message"] == f"{reason}\nTask id"


@pytest.mark.parametrize(("tasks", "by_failed"), [(("reload *",), 0), (("other",), 1)])
def test_an_abort_that_another_table_lists_is_no_failure(
    webhook: Inbox, mailbox: Inbox, tasks: tuple[str, ...], by_failed: int
) -> None:
    """If that table is for another task, nobody else would be told, so it is a failure again."""
    tables = [
        notify(webhook.url, on=("failed", "lost")),
        notify(mailbox.url, on=("aborted",), tasks=tasks),
    ]
    assert len(told(webhook, tables, Notice("aborted", ABORTED))) == by_failed
    if not by_failed:
        assert "Reload sales aborted" in mailbox.letters(1)[0]["Subject"]


def test_each_success_is_told_where_it_is_asked_for(webhook: Inbox, tmp_path: Path) -> None:
    """The first after a failure as what it is; with ``recovered`` alone, no other one."""
    both = notify(webhook.url, on=("succeeded", "recovered"), title="both: {task} {state}")
    plain = notify(webhook.url, on=("succeeded",), title="each: {task} {state}")
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Sales", duration_s=0.02)
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(both, plain)) as rig:
            rig.engine.tasks()  # so that names are known
            for number, outcome in enumerate((Outcome.SUCCESS, Outcome.FAIL, Outcome.SUCCESS), 1):
                task.outcomes = (outcome,)
                rig.source.put(START_TOPIC, task.id)
                rig.wait_until(
                    lambda n=number: [one.is_final for one in rig.states()] == [True] * n
                )
            found = titles(webhook, 4)
    assert sorted(found) == ["both: Sales succeeded"] * 2 + ["each: Sales succeeded"] * 2


def test_a_thousand_successes_are_a_few_notices(webhook: Inbox) -> None:
    """What is beyond ``at_most`` is one sum. What came too fast to wait is counted."""
    with Sender(notify(webhook.url, on=("succeeded",), at_most=3)) as sender:
        for number in range(1000):
            sender.notices.offer(notice(f"Task {number}", "succeeded"))
        sender.counted.wait_for(1000)
        sender.now_s = 3601.0
        summary = webhook.wait_for(4)[3]["message"]
        counted = sender.counted.arrived
    left_out = counted.count(Counter.NOTICES_LEFT_OUT)
    assert left_out + counted.count(Counter.NOTICES_DROPPED) == 997
    assert summary.startswith(f"{left_out} notices were left out")
    assert f"{left_out - 20} others" in summary


def test_a_task_that_fails_every_minute_is_one_notice_in_a_while(webhook: Inbox) -> None:
    """``every``: one of a kind for each task; another kind or task is told. When the time is over,
    one notice says what was left out."""
    with Sender(notify(webhook.url, on=("failed", "lost"), every=600.0)) as sender:
        for one in ("A", "A", "B", "A", "B"):
            execution = msgspec.structs.replace(notice(one).execution, task_id=one)
            sender.notices.offer(Notice("failed", execution))
        sender.notices.offer(notice("A", "lost"))
        sender.counted.wait_for(6)
        assert sorted(titles(webhook, 3)) == ["A failed", "A: outcome lost", "B failed"]
        sender.now_s = 599.0
        sender.notices.offer(notice("C"))
        assert titles(webhook, 4)[-1] == "C failed"
        sender.now_s = 600.0
        summary = webhook.wait_for(5)[-1]
        sender.notices.offer(Notice("failed", execution))
        assert titles(webhook, 6)[-1] == "B failed"
    assert summary["message"].splitlines()[1:] == ["2 x A failed", "1 x B failed"]


# --- words ----------------------------------------------------------------------------------------


def test_title_and_text_are_those_of_the_template() -> None:
    """With values of the execution; names of others stay on their line, and braces in them mean
    nothing."""
    config = notify("json://x", title="[{appliance}] {task}", text="{app}: {reason}\n{log}")
    execution = Execution(
        3,
        "t",
        "Sales\r\nBcc: {reason}",
        ExecutionState.FAILED,
        Cause("timer", rule="nightly"),
        0,
        reason="no\x1b[2Jtable\nin 2 lines",
        log_tail=("one", "two {task}"),
    )
    texts = NoticeTexts(config, "plant-7")
    found = Notice("failed", execution)
    assert texts.title(found, None) == "[plant-7] Sales\\r\\nBcc: {reason}"
    assert texts.text(found, Task("t", "Sales", app_name="Shop\n")).splitlines() == [
        "Shop\\n: no\\x1b[2Jtable",
        "in 2 lines",
        "one",
        "two {task}",
    ]
    assert len(texts.title(notice("x" * 9000), None)) <= 250
    empty = NoticeTexts(notify("json://x", title="{reason}"), "plant-7")
    assert empty.title(notice(), None) == "Reload sales failed"


# --- script logs ----------------------------------------------------------------------------------


def known(lines: int = 12, **fields: object) -> LogKnown:
    tail = tuple(f"line {number}" for number in range(lines))
    return LogKnown(msgspec.structs.replace(notice().execution, log_tail=tail, **fields))


def test_a_notice_waits_for_the_log_and_not_for_long(webhook: Inbox) -> None:
    """It has the last lines if they come in time; otherwise it goes without, and is not repeated."""
    with Sender(notify(webhook.url, log_lines=2)) as sender:
        sender.notices.offer(notice(awaits_log=True))
        sender.notices.offer(notice("Other", "lost"))
        assert titles(webhook, 1) == ["Other: outcome lost"]
        sender.notices.offer(known())
        assert webhook.wait_for(2)[1]["message"].splitlines()[-2:] == ["line 10", "line 11"]
        sender.notices.offer(notice(awaits_log=True))
        sender.notices.offer(notice("Other", "lost"))
        webhook.wait_for(3)
        sender.now_s = 30.0
        assert "line" not in webhook.wait_for(4)[3]["message"]
        sender.notices.offer(known())
        sender.notices.offer(notice("Other", "lost"))
        assert titles(webhook, 5)[-1] == "Other: outcome lost"


def test_a_stop_does_not_swallow_what_waits_for_a_log(webhook: Inbox) -> None:
    with Sender(notify(webhook.url)) as sender:
        sender.notices.offer(notice(awaits_log=True))
        sender.notices.offer(notice("Other", "lost"))
        webhook.wait_for(1)
    assert titles(webhook, 2)[1] == "Reload sales failed"


def test_a_log_that_nobody_wants_is_not_waited_for(webhook: Inbox) -> None:
    with Sender(notify(webhook.url, log="none")) as sender:
        sender.notices.offer(notice(awaits_log=True))
        assert titles(webhook, 1) == ["Reload sales failed"]


def attached(part: dict) -> bytes:
    return base64.b64decode(part["base64"])


@pytest.mark.parametrize(
    ("lines", "suffix"),
    [(50, ".log"), pytest.param(30_000, ".log.gz", marks=pytest.mark.campaign)],
)
def test_the_whole_log_is_attached(
    webhook: Inbox, mailbox: Inbox, tmp_path: Path, lines: int, suffix: str
) -> None:
    """To mail and webhook, with its masks; a large one is compressed."""
    log = tuple(f"{number:06} {'x' * 40}" for number in range(lines))
    tables = notify(webhook.url, log="attach"), notify(mailbox.url, log="attach")
    with SimulatedQlik() as qlik:
        task = qlik.add_task(
            "Sales/2026", duration_s=0.02, outcomes=(Outcome.FAIL,), log=(*log, "pwd=secret1")
        )
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=tables) as rig:
            rig.engine.tasks()  # so that names are known
            rig.source.put(START_TOPIC, task.id)
            (said,) = webhook.wait_for(1)
            (letter,) = mailbox.letters(1)
    (file,) = said["attachments"]
    content = attached(file)
    (part,) = [one for one in letter.walk() if one.get_filename()]
    assert part.get_filename() == file["filename"]
    assert file["filename"].endswith(f"_1_Sales_2026{suffix}")
    assert part.get_payload(decode=True).replace(b"\r\n", b"\n") == content.replace(b"\r\n", b"\n")
    text = (gzip.decompress(content) if suffix.endswith("gz") else content).decode()
    assert text.splitlines() == [*log, "pwd=***"]
    assert "xxxx" not in said["message"]


@pytest.mark.campaign  # Apprise waits some seconds between two mails.
def test_a_letter_that_is_too_big_goes_without_its_file(mailbox: Inbox, tmp_path: Path) -> None:
    """The last try has the last lines in the text instead."""
    mailbox.most_bytes = 20_000
    path = tmp_path / "1.log"
    path.write_text("x" * 40_000)
    table = notify(mailbox.url, log="attach")
    with Sender(table, log_path=lambda _: path) as sender:
        sender.notices.offer(notice(awaits_log=True))
        sender.notices.offer(known(log_file="1.log"))
        (letter,) = mailbox.letters(1)
    assert not [one for one in letter.walk() if one.get_filename()]
    assert "line 11" in letter.as_string()


def test_a_log_that_hangs_delays_the_notice_and_no_start(webhook: Inbox, tmp_path: Path) -> None:
    """Other tasks are started and told meanwhile."""
    with SimulatedQlik() as qlik:
        failing = qlik.add_task("Bad", duration_s=0.02, outcomes=(Outcome.FAIL,))
        fine = qlik.add_task("Good", duration_s=0.02)
        qlik.fail(FaultKind.HANG, path="/qrs/download/")
        table = notify(webhook.url, on=("failed", "succeeded"))
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(table,)) as rig:
            rig.engine.tasks()  # so that names are known
            rig.source.put(START_TOPIC, failing.id)
            rig.broker.wait_for(failing.id, "failed")
            rig.source.put(START_TOPIC, fine.id)
            assert titles(webhook, 1) == ["Good succeeded"]
            qlik.heal()
        assert titles(webhook, 2)[1] == "Bad failed"


def test_a_mail_server_that_hangs_delays_nothing_else(webhook: Inbox, tmp_path: Path) -> None:
    """Starts go on, other receivers are told, and the stop does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent, SimulatedQlik() as qlik:
        url = f"mailto://127.0.0.1:{silent.getsockname()[1]}?from=a@example.com&mode=insecure"
        tables = notify(url, on=("succeeded",)), notify(webhook.url, on=("succeeded",))
        task = qlik.add_task("Good", duration_s=0.02)
        rig = Rig(tmp_path / "tasks.db", client_of(qlik), notify=tables)
        with rig:
            for count in (1, 2, 3):
                rig.source.put(START_TOPIC, task.id)
                rig.broker.wait_for(task.id, "succeeded", count)
            webhook.wait_for(3)
            silent.accept()[0].close()


def test_tags_and_properties_choose_tasks(webhook: Inbox) -> None:
    """One of all is enough. A task that the server does not list has none of them."""
    tasks = task_list(
        Task("a", "A", tags=("critical",)),
        Task("b", "B", properties=(("Alert", "Yes"),)),
        Task("c", "C", tags=("Critical",), properties=(("Alert", "No"),)),
    )
    alert = ByProperty(property="Alert", value="Yes")
    table = notify(webhook.url, tags=("critical",), properties=(alert,))
    with Sender(table, facts=TaskFacts(tasks, None)) as sender:
        for name in "acbx":
            execution = msgspec.structs.replace(notice(name.upper()).execution, task_id=name)
            sender.notices.offer(Notice("failed", execution))
        assert titles(webhook, 2) == ["A failed", "B failed"]
