"""The Live screen, driven by keys as an operator drives it."""

import msgspec
import pytest
from fake_engine import HOSTILE, Clock, FakeEngine, S, story
from screens import NARROW, WIDE, settle, until

from appliance.counters import Counter
from appliance.model import ExecutionState
from appliance.engine_api import (
    BridgeState,
    BridgeSubscriptionState,
    Health,
    ListenerState,
    QlikState,
    TimerState,
)
from appliance.ui.app import ApplianceApp, UiEnd
from appliance.ui.settings import UiSettings


def app_for(engine, **settings):
    return ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_one_look_says_that_all_is_well(size):
    """The first line says it in words, with broker, Qlik and recorder."""
    async with app_for(story()).run_test(size=size) as pilot:
        first = (await settle(pilot)).split("\n")[0]
        assert "✓ all well" in first
        assert ":1883" in first
        assert "qlik01" in first
        assert "12:08:47" in first


async def test_one_look_says_what_is_wrong():
    """A part that fails changes the first word and gets a line that says what it is."""
    engine = story()
    engine.changes["qlik"] = QlikState("client-managed", "qlik01", Health("bad", "403 for user x"))
    async with app_for(engine).run_test(size=NARROW) as pilot:
        lines = (await settle(pilot)).split("\n")
        assert "✗ Qlik" in lines[0]
        assert "403 for user x" in lines[2]
        assert "more: !" in lines[2]
        engine.changes.clear()
        assert "403" not in await settle(pilot)


def silent(clock, **more):
    since = clock() - 25 * S
    detail = "no message on plant/line7/# since 2026-11-18 12:08:22 UTC"
    return TimerState("quiet", "silence", None, detail=detail, silent_since_ns=since, **more)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_raised_alarm_is_a_problem(size):
    """A silence alarm changes the first word, has the line that says what is wrong, and stands on
    top of the timers with its own sign and for how long it is silent; paused, it does not."""
    engine = story()
    timers = engine.snapshot().timers
    engine.changes["timers"] = (*timers, silent(engine.clock_ns))
    async with app_for(engine).run_test(size=size) as pilot:
        text = await settle(pilot)
        assert "✗ alarm quiet" in text.split("\n")[0]
        assert "timer quiet: no message on plant/line7/# since" in text.split("\n")[2]
        if size == WIDE:
            assert "✗ quiet" in text
        await pilot.press("3")
        rows = (await settle(pilot)).split("\n")
        row = next(number for number, row in enumerate(rows) if "✗ quiet" in row)
        assert "ALARM: silent for 0:25" in rows[row]
        assert "→ nightly-sync" in rows[row + 1]
        engine.changes["timers"] = (*timers, silent(engine.clock_ns, paused=True))
        text = await settle(pilot)
        assert "▲ quiet paused" in text.split("\n")[0]
        assert "alarm" not in text.split("\n")[0]


async def test_every_problem_has_its_words_on_the_clients_screen():
    """The first lines name and count the problems; screen 4 says what they are."""
    engine = story()
    engine.changes["qlik"] = QlikState("client-managed", "qlik01", Health("bad", "403 for user x"))
    engine.changes["timers"] = (silent(engine.clock_ns),)
    engine.changes["memory"] = Health("warn", "300 MiB of memory are in use")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "✗ Qlik, alarm quiet, memory" in text
        assert "+2 more: !" in text
        await pilot.press("4")
        text = await settle(pilot)
        assert "403 for user x" in text
        assert "timer quiet: no message on plant/line7/#" in text
        assert "memory: 300 MiB of memory are in use" in text


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("127.0.0.1", "● 127.0.0.1 0▶"),
        ("192.168.100.101", "● 192.168.100.101 0▶"),
        ("fe80::ff:fe00:1", "● fe80::ff:fe00:1 0▶"),
        ("qlik01.example.com", "● qlik01 0▶"),
    ],
)
async def test_a_server_is_called_by_its_name_or_its_whole_address(label, shown):
    """At 80 columns a host goes without its domain; of an address nothing is left out."""
    engine = story()
    engine.changes["qlik"] = QlikState("client-managed", label, Health("ok"))
    async with app_for(engine).run_test(size=NARROW) as pilot:
        first = (await settle(pilot)).split("\n")[0]
        assert shown in first
        assert "12:08:47" in first


async def test_the_sum_of_what_was_counted_accuses_nobody():
    """The bottom line says that something was noted; screen 4 says what it was."""
    engine = story()
    engine.changes["counters"] = (
        (Counter.POLLS_FAILED.metric, 2),
        (Counter.TOPICS_FORGOTTEN.metric, 500),
    )
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = (await settle(pilot)).split("\n")
        line = next(row for row in text if "pending" in row)
        assert "▲ 502 noted" in line
        assert "refused" not in line
        await pilot.press("4")
        assert "polls failed" in await settle(pilot)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_message_shows_what_it_started_and_how_that_ended(size):
    """Beside the message: running with its time, failed, done."""
    async with app_for(story()).run_test(size=size) as pilot:
        text = await settle(pilot)
        assert "▶ 0:19" in text
        assert "✗ failed" in text
        assert "✓ 11.8 s" in text or size == NARROW
        assert "The reload failed" in text


async def test_running_executions_count_up_against_their_usual_duration():
    """Elapsed time, a bar and the usual duration; late is said in words."""
    engine = story()
    async with app_for(engine).run_test(size=WIDE) as pilot:
        assert "0:19" in await settle(pilot)
        engine.clock_ns.go(5)
        text = await settle(pilot)
        assert "0:24" in text
        assert "~0:44" in text
        engine.clock_ns.go(60)
        assert "late" in await settle(pilot)


async def test_the_run_limit_and_timers_count_down():
    """Uptime, the end of the run and the next timer are on the screen and move."""
    engine = story()
    engine.changes["run_until_ns"] = engine.clock_ns() + 42 * S
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "ends in 0:42" in text
        assert "up 1:02:07" in text
        assert "nightly-sync 1:38" in text
        engine.clock_ns.go(2)
        assert "ends in 0:40" in await settle(pilot)


async def test_pause_freezes_and_counts_and_follow_goes_on():
    """Space freezes the rows, +N counts what came, space again shows it."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "FOLLOW" in await settle(pilot)
        await pilot.press("space")
        engine.publish_from("late/topic", b"1")
        text = await settle(pilot)
        assert "PAUSED +1" in text
        assert "late/topic" not in text
        await pilot.press("space")
        text = await settle(pilot)
        assert "FOLLOW" in text
        assert "late/topic" in text


@pytest.mark.parametrize("back", ["end", "G"])
async def test_moving_up_pauses_and_end_follows(back):
    """An operator who looks at a row keeps it under the cursor."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("up", "up")
        for _ in range(30):
            engine.publish_from("late/topic", b"1")
        text = await settle(pilot)
        assert "PAUSED +30" in text
        row = next(line for line in text.split("\n") if line.startswith("▌"))
        assert "hall/east/door" in row
        await pilot.press(back)
        assert "FOLLOW" in await settle(pilot)


async def test_filtering_while_typing():
    """/ opens the line, rows go as words come, Enter keeps, Esc clears."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"client:hmi")
        text = await settle(pilot)
        assert "hall/east/door" in text
        assert "sensor7" not in text
        await pilot.press("enter")
        assert "filter client:hmi" in await settle(pilot)
        await pilot.press("escape")
        assert "sensor7" in await settle(pilot)


async def test_keys_typed_faster_than_they_are_handled():
    """Of a filter that is pasted, no letter is taken for a command and none is lost."""
    from textual.events import Key

    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for letter in "/task:hr q":
            names = {"/": "slash", ":": "colon", " ": "space"}
            app.post_message(Key(names.get(letter, letter), letter))
        text = await settle(pilot)
        assert " filter task:hr q" in text.split("\n")[-2]
        assert "Stop the appliance?" not in text


@pytest.mark.parametrize("last", ["enter", "escape"])
async def test_a_key_behind_the_end_of_a_filter_is_no_text_of_it(last):
    """It does what it does on the page, even if it comes before the line is closed."""
    from textual.events import Key

    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        names = {"/": "slash", ":": "colon"}
        for letter in "/task:hr":
            app.post_message(Key(names.get(letter, letter), letter))
        app.post_message(Key(last, None))
        app.post_message(Key("2", "2"))
        text = await settle(pilot)
        assert "[2]Topics" in text
        await pilot.press("1")
        text = await settle(pilot)
        assert ("filter task:hr" in text) == (last == "enter")


async def test_a_filter_that_cannot_be_read_says_why():
    """The rows stay as they were and the line below says what is wrong."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"state:foo")
        text = await settle(pilot)
        assert "state:foo is not known" in text
        await pilot.press("escape")
        assert "state:foo" not in await settle(pilot)


async def test_escape_takes_back_what_was_typed():
    """The filter that held before holds again."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"hall", "enter", "slash", *"xyz", "escape")
        text = await settle(pilot)
        assert "filter hall" in text
        assert "hall/east/door" in text


async def test_the_detail_of_a_message():
    """Enter shows facts, the rule, where it is recorded, payload in three forms, the outcome."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"task:stock", "enter")
        await pilot.press("enter")
        text = await until(pilot, "Message 11")
        assert "qliksense/start_task" in text
        assert "the task that the payload names" in text
        assert "▶ Reload Stock" in text
        assert "201 in 12 ms" in text
        await pilot.press("x")
        assert "000000  30 30 30" in await settle(pilot)
        await pilot.press("p", "p")
        assert "── raw" in await settle(pilot)
        await pilot.press("escape")
        assert "── Tasks ──" in await settle(pilot)


async def test_the_detail_shows_the_whole_payload_from_the_journal():
    """What the list cut is fetched, without the UI waiting for it."""
    engine = story()
    seq = engine.publish_from("big", b'{"a": "start', full_size=90_000)
    whole = msgspec.structs.replace(engine.ring[-1], payload=b'{"a": "the very end"}')
    engine.whole[seq] = whole
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "<90 KB>" in await settle(pilot)
        await pilot.press("enter")
        assert '"a": "the very end"' in await until(pilot, "the very end")


async def test_next_and_previous_in_the_detail():
    """Left and right walk through the list that the detail was opened from."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter", "left")
        assert "line3/sensor2" in await until(pilot, "line3/sensor2")
        await pilot.press("right")
        assert "line1/sensor7" in await until(pilot, "line1/sensor7")


async def test_hostile_messages_do_not_touch_the_screen():
    """Escapes and bidi controls in topic, payload and client id are shown, not obeyed."""
    engine = story()
    topic, payload, client = HOSTILE
    engine.publish_from(topic, payload, client_id=client)
    async with app_for(engine).run_test(size=WIDE) as pilot:
        for keys in ([], ["enter"], ["x"], ["x", "p"]):
            await pilot.press(*keys)
            text = await settle(pilot)
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert "\x9b" not in text
        assert "␛[2J" in text


async def test_quit_asks_and_stops_the_engine():
    """q asks, n goes on, y stops the appliance through the engine, and the UI ends."""
    engine = story()
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("q")
        assert "Stop the appliance? The broker stops too." in await settle(pilot)
        await pilot.press("enter")  # the safe answer has the focus
        assert "Stop the appliance?" not in await settle(pilot)
        assert not engine.calls
        await pilot.press("q", "y")
        for _ in range(300):
            if engine.called.is_set():
                break
            await pilot.pause(0.01)
        app._frame()
        await pilot.pause()
    assert engine.calls == [("stop",)]
    assert app.return_value is UiEnd.QUIT


async def test_the_ui_ends_when_the_engine_stops_by_itself():
    """A run limit or a signal ends the UI, and it says so to its caller."""
    engine = story()
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        engine.stopping = True
        app._frame()
        await pilot.pause()
    assert app.return_value is UiEnd.STOPPING


async def test_the_first_run_says_what_to_do_next():
    """Nothing configured, no message: commands to copy, with the real address."""
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "mosquitto_pub -h 127.0.0.1 -p 1883 -t demo/hello" in text
        assert "appliance user add" in text
        assert "[qlik]" in text
        await pilot.press("c")
        await pilot.pause()
        assert app.clipboard.startswith("mosquitto_pub")
        engine.publish_from("demo/hello", b"1")
        text = await settle(pilot)
        assert "demo/hello" in text
        assert "mosquitto_pub" not in text


@pytest.mark.parametrize(
    ("transport", "tls", "wanted"),
    [
        ("tcp", True, "mosquitto_pub -h 127.0.0.1 -p 8883 --cafile CA.pem -t demo/hello"),
        ("websocket", False, "127.0.0.1:8883  (MQTT 3.1.1 or 5 over WebSocket)"),
    ],
)
async def test_the_first_run_names_the_way_in_that_there_is(transport, tls, wanted):
    """Without plain TCP: the address and the way of the listener that clients can reach."""
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    engine.changes["listeners"] = (
        ListenerState("only", "0.0.0.0:8883", transport, tls, Health("ok")),
    )
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert wanted in text
        assert "1883" not in text.split("Let other machines in")[0]
        await pilot.press("c")
        await settle(pilot)


BRIDGES = (
    BridgeState("hq", "elsewhere:1883", "3.1.1", Health("ok"), publishes=("#",)),
    BridgeState(
        "plant",
        "broker:1883",
        "3.1.1",
        Health("ok"),
        subscriptions=(BridgeSubscriptionState("plant/#"),),
    ),
)


async def test_the_first_run_names_bridges_that_bring_messages_beside_the_listener():
    """The page has both ways for a first message; a bridge that only sends is none."""
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    engine.changes["bridges"] = BRIDGES
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "127.0.0.1:1883  (MQTT" in text
        assert "Messages come by bridges  plant (broker:1883)" in text
        assert "/srv/appliance/data" in text  # the last line of the page


async def test_the_first_run_without_listeners_names_the_bridges():
    """No address is offered at which no one answers; publishing here goes on."""
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    engine.changes["listeners"] = ()
    engine.changes["bridges"] = BRIDGES
    async with app_for(engine).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "Messages come by bridges  plant (broker:1883)" in text
        assert "Publish a message here, with n" in text
        assert "No client can connect" in text
        assert "no listener 0/s" in text.splitlines()[0]
        assert "127.0.0.1:1883  (MQTT" not in text
        assert "mosquitto_pub" not in text


async def test_a_terminal_that_is_too_small_says_so():
    """Below 80x24 there is no broken layout; growing brings the screen back."""
    async with app_for(story()).run_test(size=(79, 24)) as pilot:
        assert "Too small: 79x24" in await settle(pilot)
        await pilot.resize_terminal(80, 24)
        assert "all well" in await settle(pilot)
        await pilot.resize_terminal(80, 10)
        assert "Too small: 80x10" in await settle(pilot)


@pytest.mark.parametrize("size", [(20, 8), (12, 10), (20, 2)])
async def test_the_notice_of_a_small_terminal_fits_it(size):
    """However small it is, no line of the notice is cut, and the size that is needed is there."""
    async with app_for(story()).run_test(size=size) as pilot:
        words = (await settle(pilot)).split()
        assert {f"{size[0]}x{size[1]}", "80x24"} <= set(words)
        assert "…" not in "".join(words)
        if size[1] > 2:
            assert "The appliance runs on. q asks to stop it." in " ".join(words)


@pytest.mark.campaign
async def test_a_storm_of_resizes_ends_in_a_right_screen():
    """The last size counts."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        for width, height in [(140, 40), (60, 10), (200, 60), (80, 24), (30, 5), (140, 40)]:
            await pilot.resize_terminal(width, height)
        assert "── Detail" in await until(pilot, "── Timers")


async def test_an_engine_that_fails_does_not_end_the_ui():
    """The fault is shown; when the engine answers again, so does the screen."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        engine.fail_with = RuntimeError("disk on fire")
        assert "disk on fire" in await until(pilot, "disk on fire")
        engine.fail_with = None
        engine.publish_from("after/all", b"1")
        assert "after/all" in await settle(pilot)


async def test_age_and_zone():
    """T shows ages instead of times, U shows UTC."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("T")
        text = await settle(pilot)
        assert "AGE" in text
        assert " 4s " in text
        await pilot.press("U")
        assert "12:08:47Z" in (await settle(pilot)).split("\n")[0]


async def test_help_lists_the_keys_of_the_screen_as_configured():
    """Help, footer and bindings come from one table: a changed key shows and works."""
    engine = story()
    async with app_for(engine, keys={"pause": ("f6",)}).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        text = await settle(pilot)
        assert "F6" in text
        await pilot.press("a")
        assert "F6 pause" in await settle(pilot)
        await pilot.press("space")
        assert "FOLLOW" in await settle(pilot)
        await pilot.press("f6")
        assert "PAUSED" in await settle(pilot)


async def test_without_colour_everything_is_still_said(monkeypatch):
    """NO_COLOR: no colour at all reaches the terminal, and each state has a sign and a word."""
    monkeypatch.setenv("NO_COLOR", "1")
    engine = story()
    engine.changes["timers"] = (TimerState("weekly-hr", "schedule", None, paused=True),)
    app = app_for(engine)
    async with app.run_test(size=WIDE) as pilot:
        text = await settle(pilot)
        for sign in ("▲ weekly-hr paused", "▶ 0:19", "✗ failed", "↻", "‖ paused"):
            assert sign in text
        for strip in app.screen._compositor.render_strips(app.size):
            for segment in strip.apply_filter(app._filters[-1], app.screen.background_colors[1]):
                assert (
                    segment.style is None
                    or segment.style.color is None
                    or (segment.style.color.is_default)
                )


async def test_what_was_chosen_is_remembered(tmp_path):
    """UTC, age and filters are there again in the next run; a broken file is no obstacle."""
    place = tmp_path / "ui.json"
    engine = story()
    async with app_for(engine, remember=place).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("U", "T", "slash", *"hall/#", "enter")
        await settle(pilot)
    async with app_for(engine, remember=place).run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        assert "Z" in text.split("\n")[0]
        assert "AGE" in text
        await pilot.press("slash", "up")
        assert "hall/#" in await settle(pilot)
    place.write_text("{broken")
    async with app_for(engine, remember=place).run_test(size=NARROW) as pilot:
        assert "all well" in await settle(pilot)


@pytest.mark.campaign
async def test_a_million_messages_later_the_ui_holds_no_more():
    """Memory is bounded by rows, not by time."""
    engine = FakeEngine(Clock(), rate=100_000)
    engine.story_seq = 0
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        for _ in range(10):
            engine.clock_ns.go(1)
            await settle(pilot)
        assert engine.seq >= 1_000_000
        assert app.feed.kept == 10_000
        assert app.feed.missed > 800_000
        assert len(app.page.rows._strips) < 1000


async def test_states_are_told_apart_without_colour():
    """Every state that can stand beside a message has its own sign or word."""
    from appliance.ui import symbols

    looks = {(symbols.sign(state), symbols.word(state)) for state in ExecutionState}
    assert len(looks) == len(ExecutionState)


async def test_an_unknown_name_in_the_keys_is_said():
    """A typing error in [ui.keys] does not go unnoticed."""
    app = app_for(story(), keys={"pauze": ("f6",)})
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await until(pilot, "has no pauze (did you")


async def test_the_mouse():
    """A click chooses a row, a second one opens it, the wheel scrolls, a tab is a button."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.click("#messages", offset=(20, 5))
        text = await settle(pilot)
        assert "PAUSED" in text
        assert text.split("\n")[7].startswith("▌")
        await pilot.click("#messages", offset=(20, 5), times=2)
        assert "What it led to" in await until(pilot, "What it led to")
        await pilot.press("escape")
        tabs = (await settle(pilot)).split("\n")[1]
        await pilot.click("#tabs", offset=(tabs.index(" 3") + 1, 0))
        assert "[3]Tasks" in await settle(pilot)


async def test_what_the_appliance_says_of_itself_does_not_crowd_out_the_rest():
    """Own status and outcomes are left out until they are asked for, by key or by filter; what an
    operator publishes is shown at once."""
    engine = story()
    engine.publish_from("appliance/status", b"own words", client_id="$appliance")
    engine.publish_from("plant/new", b"by the operator", client_id="$appliance")
    async with app_for(engine).run_test(size=WIDE) as pilot:
        text = await settle(pilot)
        assert "by the operator" in text
        assert "own words" not in text
        await pilot.press("o")
        assert "own words" in await settle(pilot)
        await pilot.press("o")
        assert "own words" not in await settle(pilot)
        await pilot.press("slash", *"appliance/#", "enter")
        assert "own words" in await settle(pilot)


async def test_the_detail_says_where_in_the_recording_a_message_stands():
    """File and record, counted back from what is written; what the topic retains stands there too."""
    engine = story()
    seq = engine.publish_from("/demo/integers", b"8", retain=True)
    engine.publish_from("/demo/integers", b"9")
    engine.publish_from("plant/line1/sensor7/state", b"not recorded")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        pilot.app.navigation.fetch_message(seq, "live")
        text = await until(pilot, "integers.json, record 1,203")
        assert "retained this message" in text
        pilot.app.navigation.fetch_message(seq + 1, "live")
        text = await until(pilot, "integers.json, record 1,204")
        assert f"retained message {seq} 8" in text


async def test_the_difference_goes_back_in_the_journal():
    """The message before on the topic need not be in view, and the filter does not matter."""
    engine = story()
    engine.old.append(msgspec.structs.replace(engine.ring[0], seq=0, topic="a/b", payload=b"1"))
    engine.publish_from("a/b", b"2")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        await until(pilot, "── Message")
        await pilot.press("d")
        text = await until(pilot, "── difference")
        assert " - 1" in text
        assert " + 2" in text


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_zoom_gives_one_pane_the_screen(size):
    """z leaves the list alone on the screen, z again brings the rest back."""
    async with app_for(story()).run_test(size=size) as pilot:
        assert "24 h:" in await settle(pilot)
        await pilot.press("z")
        text = await until(pilot, "ZOOM")
        assert "24 h:" not in text
        assert "hall/east/door" in text
        await pilot.press("z")
        assert "ZOOM" not in await until(pilot, "24 h:")


async def test_jump_to_a_time():
    """J asks for a time and shows the journal as it was then, newest last."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("U", "J", *"12:08", "enter")
        text = await until(pilot, "filter until:12:08")
        assert "00000004-1111" in await until(pilot, " found")
        assert "hall/east/door" not in text
