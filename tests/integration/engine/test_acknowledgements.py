"""What an operator acknowledged stays so over restarts, and comes back when it happens again."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager

import msgspec
import pytest
from appliance_process import until
from quick_appliance import LIMITS, WAITS

from appliance.config.reading import load
from appliance.counters import Counter
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.errors import UsageError
from appliance.ops import acknowledging, health
from appliance.ops.control_file import Request
from appliance.problems import acknowledged, problems
from appliance.qlik.simulated import Outcome, SimulatedQlik, SimulatedTask
from appliance.tasks.engine import TaskEngine
from appliance.tasks.acknowledgements import KIND, MAX_KEPT

CONFIG = """
[service]
data_dir = "{folder}/data"
[[listener]]
bind = "127.0.0.1:0"
[[timer]]
name = "press 7 is quiet"
silence = "1h"
topic = "plant/press7"
"""
TIMER = "press 7 is quiet"


@pytest.fixture
def life(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=tmp_path.as_posix()), "utf-8")

    @contextmanager
    def living():
        one = Appliance(load(config))
        one.start()
        try:
            yield View(one)
        finally:
            one.stop()
            assert one.wait(20)

    return living


def acknowledge(view, note=""):
    (one,) = problems(view.snapshot())
    return view.acknowledge_problem(one.kind, one.name, one.occurrence, note, "anna")


def test_an_alarm_is_known_over_a_restart_until_it_is_raised_again(life, caplog):
    """Who, when and why are kept; the next silence is a problem again."""
    with life() as view:
        view.fire_timer(TIMER, "test")
        assert health.report(view.snapshot()).status == "warn"
        made = acknowledge(view, "  the press is serviced till Friday ")
        assert (made.by, made.note) == ("anna", "the press is serviced till Friday")
        assert (
            "anna acknowledges: timer press 7 is quiet: no message on plant/press7" in caplog.text
        )
        assert problems(view.snapshot()) == []
        assert health.report(view.snapshot()).status == "ok"
    with life() as view:
        assert problems(view.snapshot()) == []
        assert acknowledged(view.snapshot()) == [made]
        view.publish("plant/press7", b"hello", 1, False, "test")
        until(lambda: not any(one.is_alarm for one in view.snapshot().timers), "it is over")
        assert acknowledged(view.snapshot()) == []
        view.fire_timer(TIMER, "test")
        (again,) = problems(view.snapshot())
        assert again.headline == f"alarm {TIMER}"
        with pytest.raises(UsageError, match="happened again"):
            view.acknowledge_problem(made.kind, made.name, made.occurrence, "", "anna")


def test_an_acknowledgement_can_be_taken_back(life):
    with life() as view:
        view.fire_timer(TIMER, "test")
        made = acknowledge(view)
        view.unacknowledge_problem(made.kind, made.name, "anna")
        (found,) = problems(view.snapshot())
        assert found.identity == (made.kind, made.name, made.occurrence)
        with pytest.raises(UsageError, match="not acknowledged"):
            view.unacknowledge_problem(made.kind, made.name, "anna")
    with life() as view:
        assert len(problems(view.snapshot())) == 1


def test_what_is_no_problem_or_has_a_long_note_is_refused(life):
    with life() as view:
        with pytest.raises(UsageError, match="no problem any more"):
            view.acknowledge_problem("task", "x", "1", "", "anna")
        view.fire_timer(TIMER, "test")
        with pytest.raises(UsageError, match="at most 500 characters"):
            acknowledge(view, "x" * 501)
        assert acknowledge(view, "half a \ud800 character").note == "half a ? character"


def test_names_of_the_command_line_mean_timers_and_counters(life):
    """``appliance acknowledge NAME``, ``--list`` and ``--take-back``, as the appliance answers."""
    counter = Counter.NOTICES_FAILED
    with life() as view:
        view.fire_timer(TIMER, "test")
        view._appliance.bites.look({counter: 2}, view.snapshot().taken_ns)
        listed = acknowledging.listed(view.snapshot())
        assert [line.partition(":")[0] for line in listed] == [TIMER, counter.label]

        def asked(do, *names, note=""):
            request = Request("1", "acknowledge", names=names, note=note, by="anna")
            return do(view, request)

        done, lines = asked(acknowledging.acknowledge, "Press 7 IS quiet", "nonsense", note="n")
        assert not done
        assert lines[0].startswith(f"acknowledged: timer {TIMER}")
        assert lines[1] == (
            f"Nothing that is called nonsense needs attention. These can be acknowledged: "
            f"{counter.label}."
        )
        assert asked(acknowledging.acknowledge, counter.metric)[0]
        assert problems(view.snapshot()) == []
        text = "\n".join(acknowledging.listed(view.snapshot()))
        assert "acknowledged by anna at " in text
        assert ", n: timer" in text
        done, lines = asked(acknowledging.take_back, TIMER)
        assert (done, lines[0][:12]) == (True, "shown again:")
        assert not asked(acknowledging.take_back, TIMER)[0]
        (found,) = problems(view.snapshot())
        assert found.name == TIMER


def test_what_is_gone_is_forgotten_and_what_stands_is_not(life):
    """The second look forgets: a bridge is away for a moment while it is changed."""
    with life() as view:
        attention = view._appliance.attention
        view.fire_timer(TIMER, "test")
        made = acknowledge(view)
        for _ in range(3):
            attention.forget_gone()
        assert view.snapshot().acknowledged == (made,)
        view.publish("plant/press7", b"hello", 1, False, "test")
        until(lambda: not any(one.is_alarm for one in view.snapshot().timers), "it is over")
        attention.forget_gone()
        attention.forget_gone()
        assert view.snapshot().acknowledged == ()


def test_damaged_and_surplus_rows_cost_no_start(life, tmp_path, caplog):
    """A row that can't be read is said; beyond a thousand the oldest go."""
    with life() as view:
        view.fire_timer(TIMER, "test")
        made = acknowledge(view)
    with sqlite3.connect(tmp_path / "data" / "tasks.db") as database:
        rows = [(KIND, "task x", b"\xc1"), (KIND, "task y", msgspec.msgpack.encode({"kind": 7}))]
        for number in range(MAX_KEPT + 5):
            one = msgspec.structs.replace(
                made, kind="gap", name=f"b{number}", at_ns=number, text="t" * 500, note="n" * 500
            )
            rows.append((KIND, f"gap b{number}", msgspec.msgpack.encode(one)))
        database.executemany("INSERT INTO kept VALUES (?, ?, ?)", rows)
    database.close()
    with life() as view:
        assert caplog.text.count("can't be read, so its problem is shown") == 2
        assert problems(view.snapshot()) == []
        view.unacknowledge_problem(made.kind, made.name, "anna")
        acknowledge(view)
        listed = view.snapshot().acknowledged
        assert len(listed) == MAX_KEPT
        assert len(msgspec.msgpack.encode(listed)) < 400_000


def test_a_failed_task_is_a_problem_again_when_it_fails_again(tmp_path, monkeypatch):
    """Another run, another occurrence; the command calls the task by its name."""
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
    tasks = [SimulatedTask("Reload HR", duration_s=0.01, outcomes=(Outcome.FAIL,))]
    with SimulatedQlik(tasks) as qlik:
        config = tmp_path / "config.toml"
        text = CONFIG.format(folder=tmp_path.as_posix()) + (
            f'[qlik]\nedition = "client-managed"\nurl = "{qlik.url}"\n'
            'header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL;UserId=sa"}\n'
        )
        config.write_text(text, "utf-8")
        one = Appliance(load(config), task_limits=LIMITS)
        one.start()
        try:
            view = View(one)
            view.tasks()
            view.start_task(tasks[0].id, "test")

            def failing():
                return [found for found in problems(view.snapshot()) if found.kind == "task"]

            (first,) = until(failing, "it failed")
            request = Request("1", "acknowledge", names=("reload hr",), by="anna")
            assert acknowledging.acknowledge(view, request)[0]
            assert view.snapshot().failing_acknowledged == 1
            assert failing() == []
            view.start_task(tasks[0].id, "test")
            (again,) = until(failing, "it failed again")
            assert again.name == first.name
            assert again.occurrence != first.occurrence
        finally:
            one.stop()
            assert one.wait(20)
