"""The other screens and the acts, driven by keys."""

import json
import threading
from datetime import datetime

import msgspec
import tomli

import pytest
from fake_engine import T0, TASKS, Clock, FakeEngine, S, story
from screens import NARROW, WIDE, has_focus, settle, until

from textual.widgets import Input

from appliance.errors import UnavailableError
from appliance.model import APP, Cause, Execution, ExecutionState, ReloadOptions
from appliance.engine_api import Engine, Health, TopicState
from appliance.ui import topic_tree
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings
from appliance.ui.views import topic as topic_view


def app_for(engine, **settings):
    return ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


async def called(pilot, engine):
    """Wait until the UI's worker has asked the engine for something."""
    for _ in range(500):
        if engine.called.is_set():
            await pilot.pause()
            return engine.calls[-1]
        await pilot.pause(0.01)
    raise AssertionError(f"nothing was asked for; the screen was:\n{await settle(pilot)}")


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_digits_show_every_screen(size):
    """1 to 6 from anywhere, also out of a detail that lies over a screen."""
    async with app_for(story()).run_test(size=size) as pilot:
        await settle(pilot)
        for key, mark, inside in [
            ("2", "[2]Topics", "hall/east/door"),
            ("3", "[3]Tasks", "RULE / TIMER"),
            ("4", "[4]Clients", "hmi-east"),
            ("5", "[5]Log", "slow subscriber"),
            ("6", "[6]Server", "after Reload Stock"),
            ("1", "[1]Live", "→ TASK"),
        ]:
            await pilot.press(key)
            assert mark in await until(pilot, inside)
        await pilot.press("enter")
        await until(pilot, "What it led to")
        await pilot.press("3")
        assert "RULE / TIMER" in await settle(pilot)
        await pilot.press("1")
        assert "What it led to" not in await settle(pilot)


class TestTasks:
    async def test_what_went_wrong_is_in_view(self):
        """The error text of the chosen execution stands at the foot, its message too."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("3")
            text = await settle(pilot)
            assert "table HR.Employees was not found" in text
            assert "message 13" in text
            assert "qliksense/start_task" in text

    async def test_the_detail_of_an_execution(self):
        """Cause, times, reason, script log; m goes to the message."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("3", "enter")
            text = await settle(pilot)
            assert "Check the connection HR." in text
            assert "10:21:10 Error" in text
            await pilot.press("m")
            assert TASKS[2].id in await until(pilot, "── Message 13")

    async def test_durations_of_earlier_runs_are_drawn(self):
        """Bars for good runs, a sign for a failed one."""
        engine = story()
        for number in range(100, 110):
            failed = number == 105
            engine.put(
                Execution(
                    number,
                    TASKS[0].id,
                    TASKS[0].name,
                    ExecutionState.FAILED if failed else ExecutionState.SUCCEEDED,
                    Cause("timer", rule="nightly"),
                    T0,
                    started_ns=T0,
                    ended_ns=T0 + (number - 90) * S,
                )
            )
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("3", "enter")
            text = await until(pilot, "11 runs")
            row = next(line for line in text.split("\n") if "11 runs" in line)
            assert "█" in row
            assert "✗" in row
            assert "1 failed" in row

    async def test_starting_a_task_with_the_picker(self):
        """t, a part of the name, Enter: the start goes through the engine with who asked."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("t")
            await until(pilot, "6 tasks")
            await pilot.press(*"export", "enter")
            call = await called(pilot, engine)
            assert call[:2] == ("start_task", TASKS[3].id)
            assert call[2].endswith("at the terminal")

    async def test_a_refused_start_says_why(self):
        """The engine's own text comes to the operator."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("t")
            await until(pilot, "6 tasks")
            await pilot.press(*"retired", "enter")
            await until(pilot, "is disabled")

    async def test_acts_ask_first(self):
        """Nothing is done on Enter, the safe answer; on y the engine is asked."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            for keys, question, expected in [
                (["3", "down", "x"], "Stop Reload Stock?", "stop_execution"),
                (["r"], "Start Reload Stock again?", "start_task"),
                (["shift+tab", "down", "down", "f"], "Do now what nightly-sync", "fire_timer"),
                (["4", "down", "x"], "Disconnect hmi-east?", "disconnect"),
                (["X"], "End the session of hmi-east?", "end_session"),
                (
                    ["2", "slash", *"line2", "enter", "end", "delete"],
                    "Remove the",
                    "clear_retained",
                ),
            ]:
                engine.called.clear()
                asked = len(engine.calls)
                for key in keys:
                    await pilot.press(key)
                assert question in await settle(pilot)
                await pilot.press("enter")
                assert question not in await settle(pilot)
                assert len(engine.calls) == asked
                await pilot.press(keys[-1], "y")
                assert (await called(pilot, engine))[0] == expected

    async def test_a_run_is_started_again_as_it_was(self):
        """With its variables, which the screen shows; an app without a task is named as one."""
        engine = story()
        reload = ReloadOptions(partial=True, variables=(("vDay", "2026-11-29"),))
        for task_id, key in ((TASKS[0].id, "taskId"), (f"{APP}{TASKS[0].id}", "appId")):
            number = max(engine.runs, default=0) + 1
            cause = Cause("operator", rule="ann")
            engine.put(
                Execution(number, task_id, "Sales", ExecutionState.FAILED, cause, T0, reload=reload)
            )
            async with app_for(engine).run_test(size=NARROW) as pilot:
                await settle(pilot)
                await pilot.press("3")
                await until(pilot, "Sales")
                await pilot.press("enter")
                await until(pilot, "partial, vDay = 2026-11-29")
                await pilot.press("escape", "r")
                await until(pilot, "again (partial, vDay = 2026-11-29)?")
                await pilot.press("y")
                call = await called(pilot, engine)
            assert call[0] == "request_starts"
            assert msgspec.json.decode(call[1]) == {
                key: TASKS[0].id,
                "partial": True,
                "variables": {"vDay": "2026-11-29"},
            }
            engine.called.clear()

    async def test_a_timer_is_paused_with_space(self):
        """Pausing needs no question: it is undone by the same key."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("3", "shift+tab", "down", "down", "space")
            call = await called(pilot, engine)
            assert call[:3] == ("pause_timer", "nightly-sync", True)

    async def test_filtering_executions(self):
        """The same words as on Live."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("3", "slash", *"state:running", "enter")
            text = await settle(pilot)
            assert "Reload Stock" in text
            assert "Reload Sales" not in text


class TestLiveActs:
    async def test_repeating_what_a_message_caused(self):
        """r on a message that started something; on another one it says that there is nothing."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("r")
            await until(pilot, "nothing to repeat")
            await pilot.press("slash", *"task:hr", "enter")
            await settle(pilot)
            await pilot.press("r")
            assert "Do again what message 13" in await settle(pilot)
            await pilot.press("y")
            assert (await called(pilot, engine))[:2] == ("repeat", 13)

    async def test_publishing_a_message(self):
        """Topic, payload, QoS, retain; a wildcard is refused with the reason; ↑ brings it back."""
        engine = story()
        app = app_for(engine)
        async with app.run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("n")
            await has_focus(pilot, "#topic")
            await pilot.press(*"a/#", "enter")
            await has_focus(pilot, "#payload-text")
            await pilot.press(*"hello")
            await pilot.click("#publish")
            assert "no wildcards" in await settle(pilot)
            await pilot.click("#topic")
            await has_focus(pilot, "#topic")
            await pilot.press("end", "backspace", *"b")
            await pilot.click("#qos")
            await pilot.click("#retain")
            while pilot.app.screen.query_one("#publish").has_class("-active"):
                await pilot.pause(0.01)  # for 0.2 s after a click, Textual ignores the next one
            await pilot.click("#publish")
            assert (await called(pilot, engine))[:5] == ("publish", "a/b", b"hello", 1, True)
            assert app.remembered.publish_topics == ["a/b"]
            await pilot.press("n")
            await has_focus(pilot, "#topic")
            await pilot.press("end", "c", "up")
            text = await until(pilot, "hello")
            assert "QoS 1" in text
            assert "retain: yes" in text
            assert app.screen.query_one("#topic", Input).value == "a/b"

    async def test_searching_back_in_the_journal(self):
        """Messages that left the memory long ago are found, in chunks, without the UI waiting."""
        engine = FakeEngine(Clock())
        for number in range(9000):
            engine.publish_from("old/needle" if number % 3000 == 7 else "old/hay", b"x")
        engine.old = list(engine.ring)
        engine.ring.clear()
        engine.publish_from("new", b"x")
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            engine.changes["journal"] = engine.snapshot().journal
            await pilot.press("slash", *"old/needle", "enter", "b")
            text = await until(pilot, "── all ─")
            assert "3 found" in text
            assert "9,001 looked at" in text
            assert text.count("old/needle ") >= 3
            assert len([call for call in engine.calls if call[0] == "search"]) > 4

    async def test_exporting_the_filtered_view(self, tmp_path):
        """One JSON object a line, in the data directory, payloads whole, times as dates too."""
        engine = story()
        engine.changes["data_dir"] = str(tmp_path)
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("slash", *"plant/#", "enter", "e")
            await until(pilot, "written to")
        (path,) = (tmp_path / "exports").iterdir()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["topic"].split("/")[0] for row in rows} == {"plant"}
        assert any("payload_hex" in row for row in rows)
        assert rows[0]["received"] == "2026-11-18T12:06:37.000000000Z"
        assert datetime.fromisoformat(rows[0]["received"]).timestamp() == (
            rows[0]["received_ns"] / 1e9
        )

    async def test_exported_messages_have_their_outcomes(self, tmp_path):
        """What a message led to stands beside it: state, task, reason, times."""
        engine = story()
        engine.changes["data_dir"] = str(tmp_path)
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("slash", *"state:failed", "enter", "e")
            await until(pilot, "1 message written to")
        (path,) = (tmp_path / "exports").iterdir()
        outcome = json.loads(path.read_text())["outcome"]
        assert (outcome["state"], outcome["task_name"]) == ("failed", "Reload HR")
        assert outcome["reason"].startswith("The reload failed: table HR.Employees was not found")
        assert outcome["started"] == "2026-11-18T12:08:39.100000000Z"

    async def test_exported_executions_have_dates(self, tmp_path):
        """Each time of an execution and of its steps is a date too."""
        engine = story()
        engine.changes["data_dir"] = str(tmp_path)
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("3", "slash", *"state:failed", "enter", "e")
            await until(pilot, "1 execution written to")
        (path,) = (tmp_path / "exports").iterdir()
        row = json.loads(path.read_text())
        assert row["requested"] == "2026-11-18T12:08:39.000000000Z"
        assert row["ended"] == "2026-11-18T12:08:42.500000000Z"
        assert row["next_attempt"] is None

    async def test_an_export_that_cannot_be_written_says_so(self, tmp_path):
        """A file in the way is named, nothing else happens."""
        engine = story()
        (tmp_path / "exports").write_text("")
        engine.changes["data_dir"] = str(tmp_path)
        async with app_for(engine).run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("e")
            await until(pilot, "be written")

    async def test_a_browser_gets_no_files(self, tmp_path):
        """They would be on another machine than the person; it is said what to do instead."""
        engine = story()
        engine.changes["data_dir"] = str(tmp_path)
        app = app_for(engine, in_browser=True)
        async with app.run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("e")
            await until(pilot, "appliance export")
        assert not list(tmp_path.iterdir())

    async def test_copying(self):
        """c takes the payload, C the topic."""
        app = app_for(story())
        async with app.run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("c")
            await pilot.pause()
            assert app.clipboard == '{"value":21.4,"unit":"C"}'
            await pilot.press("C")
            await pilot.pause()
            assert app.clipboard == "plant/line1/sensor7/state"

    async def test_the_command_palette_knows_every_key(self):
        """^p finds an act by its name, with its key, and does it."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("ctrl+p", *"pause")
            await until(pilot, "space p")
            await pilot.press("enter")
            await until(pilot, "PAUSED")

    async def test_losses_are_a_problem_until_they_are_acknowledged(self):
        """The alert line names them, and a command of the palette acknowledges them."""
        engine = story()
        loss = "The journal ends at message 21, recordings or tasks have read message 282."
        engine.changes["data"] = Health("bad", loss)
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await until(pilot, "data: The journal ends at message 21")
            await pilot.press("ctrl+p", *"acknowledge")
            await until(pilot, "Acknowledge losses")
            await pilot.press("enter")
            assert "read message 282" in await until(pilot, "Acknowledge this?")
            await pilot.press("y")
            assert (await called(pilot, engine))[0] == "acknowledge"


class TestTopics:
    async def test_the_tree_folds_and_sorts(self):
        """Left folds, right unfolds, s sorts, O closes all."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("2")
            text = await settle(pilot)
            assert "▾ plant" in text
            assert "line2/sensor1/state" in text
            await pilot.press("left")
            text = await settle(pilot)
            assert "▸ plant (5)" in text
            assert "line2/sensor1/state" not in text
            await pilot.press("o", "s")
            text = await settle(pilot)
            assert "line2/sensor1/state" in text
            assert "TOPIC▼" in text

    async def test_enter_shows_the_messages_of_a_branch(self):
        """The Live screen with the branch as its filter."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("2")
            await settle(pilot)
            await pilot.press("enter")
            text = await settle(pilot)
            assert "filter plant/#" in text
            assert "hall/east" not in text

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"topics_known": 5400}, "the busiest of 5,400"),
            ({"topics_known": 8, "topics_forgotten": 500}, "the latest of more"),
        ],
    )
    async def test_more_topics_than_are_shown(self, changes, said):
        """Where topics are missing on the screen, it says so, and what a filter does not find is
        not told to be no topic."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("2")
            assert "▲" not in (await settle(pilot)).split("\n")[2]
            engine.changes.update(changes)
            engine.clock_ns.go(2)
            assert said in (await until(pilot, said)).split("\n")[2]
            await pilot.press("slash", *"brandnew", "enter")
            assert "The filter takes none of the topics" in await until(pilot, "takes none")

    async def test_what_floods_the_broker(self):
        """Sorted by bytes, the topic with most of them is on top, with its part of all."""
        engine = story()
        engine.topics = lambda _limit: [
            TopicState("chatty", 9_000, 90.0, 1, 1, bytes=90_000, byte_rate=900.0),
            TopicState("camera/1", 1_000, 10.0, 1, 2, bytes=910_000, byte_rate=9_100.0),
        ]
        async with app_for(engine).run_test(size=WIDE) as pilot:
            await settle(pilot)
            await pilot.press("2", *"ss")
            text = await settle(pilot)
            assert "B/s▼" in text
            rows = [row for row in text.split("\n") if "camera/1" in row or "chatty" in row]
            assert "91%" in rows[0]
            assert "camera/1" in rows[0]
            assert "9%" in rows[1]
            await pilot.press("s")
            text = await settle(pilot)
            assert "90%" in next(row for row in text.split("\n") if "chatty" in row)

    @pytest.mark.campaign
    async def test_very_many_topics_are_put_in_order_by_a_thread(self):
        """Among 20,000 topics the busiest are on Live, and the tree is on Topics."""
        engine = story()
        callers = set()
        states = [
            TopicState(f"hall/{n % 100}/cell/{n}", n % 7 + 1, float(n == 4711), 1, 1, bytes=n)
            for n in range(20_000)
        ]

        def topics(limit):
            callers.add(threading.current_thread() is threading.main_thread())
            return sorted(states, key=lambda one: -one.rate)[:limit]

        engine.topics = topics
        engine.changes["topics_known"] = 20_000
        async with app_for(engine).run_test(size=WIDE) as pilot:
            await until(pilot, "hall/11/cell/4711")
            await pilot.press("2")
            text = await until(pilot, "20,000 topics")
            assert "▸ hall (20000)" in text
            await pilot.press("right", "s")
            assert "▸ 10/cell (200)" in await until(pilot, "TOPIC▼")
        assert callers == {False}

    async def test_an_engine_without_topic_counts(self):
        """The tree is made of the messages at hand then."""
        engine = story()
        engine.topics = lambda limit: Engine.topics(engine, limit)
        with pytest.raises(UnavailableError):
            engine.topics(1)
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("2")
            assert "hall/east/door" in await settle(pilot)

    def test_chains_of_levels_are_one_row(self):
        """a/b/c/d without branches takes one row; an empty first level stays visible."""
        engine = story()
        rows = topic_tree.rows(topic_tree.build(engine.topics(100)), set(), "name")
        assert [node.label for node in rows] == [
            "/demo/integers",
            "hall/east/door",
            "plant",
            "qliksense/start_task",
        ]

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"21.5", ("value", 21.5)),
            (b'{"a":"x","t":3}', ("t", 3.0)),
            (b'{"Generated number": "7"}', ("Generated number", 7.0)),
            (b"true", None),
            (b"NaN", None),
            (b"1e999", None),
            (b"[" * 5000, None),
            (b"\xff", None),
        ],
    )
    def test_numbers_in_payloads(self, data, expected):
        """A curve is drawn of numbers only; no payload makes it fail."""
        assert topic_view.number_in(data) == expected


class TestClientsAndLog:
    async def test_who_floods_the_broker_is_on_top(self):
        """Rates come from two looks; the busiest client is the first row."""
        import msgspec

        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("4")
            await settle(pilot)
            engine.clock_ns.go(2)
            engine.client_list = tuple(
                msgspec.structs.replace(one, messages_in=one.messages_in + 1000)
                if one.client_id == "plc-07"
                else one
                for one in engine.client_list
            )
            lines = (await settle(pilot)).split("\n")
            assert "plc-07" in lines[3]
            assert "500" in lines[3]

    async def test_the_health_of_every_part(self):
        """Listeners, journal, recorders, and every bound that bit with its count."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("4")
            text = await settle(pilot)
            for part in ("0.0.0.0:8883", "tcp TLS", "journal 88 MB", "integers.json", "3  refused"):
                assert part in text

    async def test_log_levels_and_words(self):
        """l goes through the levels, / finds words, space stands still."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("5", "l", "l")
            text = await settle(pilot)
            assert "ERROR and up" in text
            assert "slow subscriber" not in text
            await pilot.press("l", "l", "slash", *"done", "enter", "space")
            engine.say(20, "tasks", "another one done")
            text = await settle(pilot)
            assert "Reload Sales done" in text
            assert "another one" not in text
            await pilot.press("space")
            assert "another one" in await settle(pilot)


class TestTheTableOfKeys:
    PAGES = (
        "live.LiveScreen",
        "topics.TopicsScreen",
        "tasks.TasksScreen",
        "clients.ClientsScreen",
        "log.LogScreen",
        "message.MessageScreen",
        "execution.ExecutionScreen",
        "search.SearchScreen",
    )

    @pytest.mark.parametrize("name", PAGES)
    def test_every_key_of_a_screen_does_one_thing_that_exists(self, name):
        """No key stands for two acts on one screen, and none of them leads nowhere."""
        from importlib import import_module

        from appliance.ui import keys
        from appliance.ui.widgets.rows import Rows

        module, page_name = name.split(".")
        page = getattr(import_module(f"appliance.ui.screens.{module}"), page_name)
        seen = {}
        for key in keys.of(*page.SCOPES, keys.EVERYWHERE):
            for one in key.keys.split(","):
                assert one not in seen, f"{one} is both {seen.get(one)} and {key.name}"
                seen[one] = key.name
            action = "action_" + key.action.split("(")[0]
            assert any(hasattr(place, action) for place in (page, Rows, ApplianceApp)), key.name


class TestNamesAndCounts:
    """Small texts that say what is there."""

    async def test_topics_show_the_names_of_tasks(self):
        """The appliance's own topics have a task's id as a level: its name stands there."""
        engine = story()
        for task in (TASKS[0], TASKS[5]):  # one that ran, one that only the server's list has
            topic = f"appliance/tasks/{task.id}/execution"
            engine.publish_from(topic, b"{}", client_id="$appliance")
            engine.publish_from(topic.replace("execution", "last"), b"{}", client_id="$appliance")
        async with app_for(engine).run_test(size=WIDE) as pilot:
            await pilot.press("2")
            await until(pilot, "Reload Sales 00000001…")
            pilot.app.screen._built_ns = 0
            text = await until(pilot, "Retired report 00000006…")
            assert TASKS[0].id not in text.split("── ")[1]
            await pilot.press("slash", *"retired", "enter")
            assert "2 topics" in await until(pilot, "Retired report 00000006…")

    async def test_a_filter_that_hides_all_clients_says_so(self):
        """No client is shown, but four are connected: the list says what hides them."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await pilot.press("4", "slash", *"nothing-has-this", "enter")
            text = await until(pilot, "4 clients hidden by the filter. Esc clears it.")
            assert "No client is connected" not in text
            await pilot.press("escape")
            await until(pilot, "hmi-east")
            engine.client_list = ()
            await pilot.press("s")
            await until(pilot, "No client is connected.")

    async def test_one_of_a_thing_has_no_plural(self):
        """One topic, one message, one row."""
        engine = FakeEngine(Clock())
        engine.publish_from("one/topic", b"1")
        async with app_for(engine).run_test(size=WIDE) as pilot:
            assert " 1 row " in await settle(pilot)
            await pilot.press("2")
            assert "── 1 topic ── 1 message ──" in await until(pilot, "── 1 topic")

    async def test_a_new_message_begins_as_the_selected_one(self):
        """n on Live: the topic and the QoS of the message under the cursor."""
        engine = story()
        async with app_for(engine).run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("up")  # plant/line3/sensor2/state, QoS 2
            await pilot.press("n")
            text = await until(pilot, "New message")
            assert "plant/line3/sensor2/state" in text
            assert "QoS 2" in text

    async def test_ending_a_session_is_in_the_footer(self):
        """X can be found at 80 columns."""
        async with app_for(story()).run_test(size=NARROW) as pilot:
            await pilot.press("4")
            assert "X end session" in (await until(pilot, "x disconnect")).split("\n")[-1]


class TestCopyingConfiguration:
    """y offers pieces of the configuration; one key more copies one."""

    async def copied(self, *pressed, said):
        app = app_for(story())
        async with app.run_test(size=NARROW, notifications=True) as pilot:
            await settle(pilot)
            await pilot.press(*pressed[:-1])
            await until(pilot, said)
            await pilot.press(pressed[-1])
            await until(pilot, "Copied")
            return tomli.loads(app.clipboard) if "[[" in app.clipboard else app.clipboard

    async def test_of_a_message(self):
        """The rule has the topic, the recorder too, with a format for the payload."""
        said = "Copy for the configuration"
        rule = await self.copied("y", "t", said=said)
        assert rule["trigger"] == [
            {"topic": "plant/line1/sensor7/state", "task": {"name": "NAME OF THE TASK"}}
        ]
        recorder = (await self.copied("enter", "y", "r", said=said))["recorder"][0]
        assert (recorder["topic"], recorder["format"]) == ("plant/line1/sensor7/state", "csv")

    async def test_of_a_branch_of_topics(self):
        """Also with all topics below it."""
        block = await self.copied("2", "g", "y", "T", said="a [[trigger]] for plant/#")
        assert block["trigger"][0]["topic"].endswith("/#")

    async def test_the_menu_goes_by_arrows_too(self):
        """Down and Enter take the second entry; Esc takes none."""
        recorder = await self.copied("y", "down", "enter", said="Copy for")
        assert "recorder" in recorder
        app = app_for(story())
        async with app.run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("y", "escape")
            assert "Copy for" not in await settle(pilot)
            assert not app.clipboard

    async def test_a_task_gives_its_selector(self):
        """By name or by id, on the list and in the detail."""
        assert (await self.copied("3", "y", "1", said="by its name")).startswith("task = {name = ")
        assert (await self.copied("3", "enter", "y", "2", said="by its id")).startswith('task = "0')
