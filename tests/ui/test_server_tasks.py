"""The screen of the server's tasks, driven by keys."""

import json

import pytest
from fake_engine import HOSTILE, TASKS, S, story
from msgspec.structs import replace
from screens import NARROW, WIDE, has_focus, settle, until

from appliance.engine_api import HoldState, ServerTask, ServerTasks, Starter, WaitState
from appliance.errors import UnavailableError
from appliance.model import ExecutionState, Task
from appliance.ui.app import ApplianceApp
from appliance.ui.lines import text_of
from appliance.ui import server_task_feed, task_list
from appliance.ui.settings import UiSettings
from appliance.ui.views import server_task as view

SALES, STOCK, HR, FINANCE, NIGHTLY, RETIRED = TASKS


def app_for(engine, **settings):
    return ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


async def shown(pilot):
    """Go to the screen and wait for the answer of the server."""
    await pilot.press("6")
    await has_focus(pilot, "ServerTaskRows")
    for _ in range(500):
        text = await settle(pilot)
        if pilot.app.screen.rows.items:
            return text
    raise AssertionError(f"no task came; the screen was:\n{text}")


async def asked(pilot, engine, wanted):
    """Wait until the engine was asked for something."""
    for _ in range(500):
        if wanted in engine.calls:
            return
        await pilot.pause(0.01)
    raise AssertionError(f"{wanted} was not asked for: {engine.calls}")


async def told(pilot, wanted):
    """Wait for a notice."""
    for _ in range(500):
        if any(wanted in one.message for one in pilot.app._notifications):
            return
        await pilot.pause(0.01)
    raise AssertionError(f"{wanted!r} never came: {[*pilot.app._notifications]}")


def row_of(text, name):
    return next(line for line in text.split("\n") if name in line)


@pytest.mark.parametrize("size", [NARROW, pytest.param(WIDE, marks=pytest.mark.campaign)])
async def test_each_task_has_its_last_outcome_next_start_and_what_starts_it(size):
    async with app_for(story()).run_test(size=size) as pilot:
        text = await shown(pilot)
        assert "failed" in row_of(text, "Reload HR")
        assert "rule hr" in row_of(text, "Reload HR")
        assert "1:38" in row_of(text, "Nightly sync")
        assert "after Reload Sales"[:10] in row_of(text, "Reload Stock")
        assert "disabled" in row_of(text, "Retired report")
        assert "1 ended badly" in text


async def test_the_chains_are_a_tree_and_the_cursor_stays():
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await shown(pilot)
        await pilot.press("end", "up")
        assert "▌▶ Reload Stock" in await settle(pilot)
        await pilot.press("T")
        text = await settle(pilot)
        assert "▌▶ └ Reload Stock" in text
        assert "  └ Export Finance" in text
        await pilot.press("slash", *"finance", "enter")
        text = await settle(pilot)
        assert "Reload Sales" in text  # it leads to what the filter takes
        assert "Reload HR" not in text
        await pilot.press("escape", "T")
        assert "▌▶ Reload Stock" in await settle(pilot)


@pytest.mark.campaign
async def test_s_and_a_click_on_a_title_sort():
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await shown(pilot)
        await pilot.press("s")
        text = await settle(pilot)
        assert "LAST▼" in text
        assert text.index("Reload HR") < text.index("Export Finance") < text.index("Reload Sales")
        column = row_of(text, "LAST▼").index("NEXT")
        row = text.split("\n").index(row_of(text, "LAST▼"))
        await pilot.click(offset=(column, row))
        text = await settle(pilot)
        assert "NEXT▼" in text
        assert text.index("Nightly sync") < text.index("Reload Sales") < text.index("Reload HR")


async def test_the_detail_says_what_starts_a_task_and_what_follows_it():
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await shown(pilot)
        await pilot.press("end", "up", "E")
        text = await until(pilot, "Task Reload Stock")
        assert "rule stock  plant/+/stock/done" in text
        assert "chain of the server After sales  within 6 h  after Reload Sales succeeded" in text
        assert "starts afterwards: Export Finance" in text
        assert "whatever task a message names: qliksense/start_task." in text
        assert "Its chain" in text
        assert "is running: what a further start" in text
        await pilot.press("enter")
        assert 'task="Reload Stock"' in await until(pilot, "[3]Tasks")
        await pilot.press("escape")
        await until(pilot, "[6]Server")


async def test_the_detail_says_what_stands_in_the_way():
    """Disabled, not allowed, held, everything held, server away, a start that waits."""
    engine = story()
    now = engine.clock_ns()
    rows = engine.server_tasks()
    (row,) = [one for one in rows.tasks if one.task is RETIRED]
    row = replace(row, is_allowed=False, starters=(Starter("rule", "old", "a/b"),))
    engine.server_tasks = lambda: ServerTasks((row,), 1)
    hold = HoldState("task", RETIRED.id, now + 3600 * S, "new disks", "ann", now)
    engine.changes["holds"] = (
        hold,
        replace(hold, kind="everything", name=""),
        replace(hold, kind="trigger", name="old"),
        replace(hold, kind="trigger", name="of another task"),
    )
    engine.changes["qlik"] = replace(engine.snapshot().qlik, is_away=True)
    engine.changes["waits"] = (
        WaitState("Retired report #4", 4, "debounce", "It waits for quiet.", None, now, RETIRED.id),
    )
    async with app_for(engine).run_test(size=WIDE) as pilot:
        text = await shown(pilot)
        assert "new disks" in text
        await pilot.press("enter")
        text = await until(pilot, "disabled: it refuses")
        for part in (
            "[allow] of the configuration does not have it",
            "It is held until",
            "Everything is held until",
            "Its trigger old is held until",
            "does not answer",
            "Retired report #4 waits: It waits for quiet.",
        ):
            assert part in text


@pytest.mark.campaign
async def test_a_held_task_is_marked_in_its_row():
    engine = story()
    engine.changes["holds"] = (HoldState("task", HR.id, None, "", "ann", engine.clock_ns()),)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "‖ held" in row_of(await shown(pilot), "Reload HR  ")


async def test_start_stop_message_and_copy_act_on_the_chosen_task():
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await shown(pilot)
        await pilot.press("end", "up", "t")
        assert "Start Reload Stock now?" in await settle(pilot)
        await pilot.press("y")
        await asked(pilot, engine, ("start_task", STOCK.id, pilot.app.actions.by))
        await pilot.press("x")
        assert "Stop Reload Stock?" in await until(pilot, "Stop Reload Stock")
        await pilot.press("n", "c")
        assert pilot.app.clipboard == STOCK.id
        await pilot.press("y")
        await until(pilot, "the task by its name")
        await pilot.press("1")
        await settle(pilot)
        assert pilot.app.clipboard == 'task = {name = "Reload Stock"}\n'
        await pilot.press("home", "down", "x")  # no run of it is known
        await told(pilot, "knows no run")


async def test_what_can_be_held_of_a_task_is_itself_and_what_starts_it():
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await shown(pilot)
        await pilot.press("home", "down", "H")
        assert "task Nightly sync" in await until(pilot, "something else (1/4)")
        await pilot.press("down")
        assert "timer nightly-sync" in await settle(pilot)
        await pilot.press("escape", "enter", "H")
        await until(pilot, "something else (1/4)")


async def test_rows_follow_an_execution_before_the_next_answer():
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "running" in row_of(await shown(pilot), "▶ Reload Stock")
        (run,) = [one for one in engine.runs.values() if one.task_id == STOCK.id]
        now = engine.clock_ns()
        engine.put(replace(run, state=ExecutionState.ABORTED, ended_ns=now, reason="by ann"))
        engine.server_tasks = None  # another question would fail
        engine.clock_ns.go(2)
        assert "aborted" in row_of(await settle(pilot), "■ Reload Stock")


@pytest.mark.campaign
async def test_an_error_is_told_and_the_last_list_stays():
    engine = story()
    good = engine.server_tasks

    def refused():
        raise UnavailableError("No Qlik server is configured: add a [qlik] table.")

    engine.server_tasks = refused
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, "No Qlik server is configured")
        engine.server_tasks = good
        engine.clock_ns.go(11)
        await until(pilot, "Reload Sales")
        engine.server_tasks = refused
        engine.clock_ns.go(11)
        assert "Reload Sales" in await until(pilot, "▲ No Qlik")


@pytest.mark.campaign
async def test_foreign_names_change_no_terminal(tmp_path):
    """Names of tasks, tags, triggers and reasons are data; an export has them as they are."""
    topic, _, name = HOSTILE
    task = Task("1", name, app_name=topic, tags=(topic,), properties=((name, topic),))
    starters = tuple(
        Starter(kind, name, topic) for kind in ("rule", "outcome", "schedule", "chain")
    )
    row = ServerTask(task, state=ExecutionState.FAILED, since_ns=1, reason=topic, starters=starters)
    engine = story()
    engine.server_tasks = lambda: ServerTasks((row,), 1, topic, (name,))
    app = app_for(engine, exports=tmp_path)
    async with app.run_test(size=WIDE) as pilot:
        text = await shown(pilot)
        await pilot.press("e")
        await told(pilot, "1 task written to")
        await pilot.press("T", "enter")
        text += await until(pilot, "Nothing stands")
    assert not {"\x1b", "\u202e", "\u200b"} & set(text)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["task"]["name"] == name


async def test_a_thousand_tasks_cost_a_frame_no_more_than_the_rows_in_view(monkeypatch):
    """Rows are put in order once a second, and only those in view are drawn."""
    engine = story()
    rows = [
        ServerTask(
            Task(str(number), f"Task {number}"),
            starters=(Starter("chain", "x", after=((str(number // 2), "succeeded"),)),),
        )
        for number in range(1000)
    ]
    engine.server_tasks = lambda: ServerTasks(tuple(rows), len(rows))
    drawn, ordered = [], []
    row, put_in_order = view.row, task_list.ordered
    monkeypatch.setattr(view, "row", lambda *a, **k: drawn.append(1) or row(*a, **k))
    monkeypatch.setattr(task_list, "ordered", lambda *a: ordered.append(1) or put_in_order(*a))
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await shown(pilot)
        for key in ("T", "T"):
            await pilot.press(key)
            await settle(pilot)
            drawn.clear()
            ordered.clear()
            for _ in range(5):
                await settle(pilot)
            assert len(drawn) <= 10 * NARROW[1]
            assert not ordered  # the clock stands still
        engine.clock_ns.go(1)
        await settle(pilot)
        assert len(ordered) == 1


@pytest.mark.parametrize("cells", [80, 140])
def test_a_name_deep_in_a_tree_can_be_read(cells):
    item = ServerTask(Task("t", "Reload of Sales"))
    row = task_list.Row(item, "above", 12, "  " * 8 + "… ")
    text = text_of(view.row(row, {}, None, 0, cells, utc=True))
    assert "… Reload of" in text


class _Line:
    """A host whose engine is far away; it answers at once, by a clock of its own."""

    is_remote = True

    def __init__(self):
        self.engine = self.background = self
        self.asked, self.now_s, self.took_s = 0, 0.0, 0.0

    def server_tasks(self):
        self.asked += 1
        self.now_s += self.took_s
        return ServerTasks((), 0)

    def fetch(self, get, found, group):
        found(get())

    def show_now(self):
        pass


def test_a_slow_line_is_not_kept_busy_with_the_list(monkeypatch):
    host = _Line()
    feed = server_task_feed.ServerTaskFeed(host)
    monkeypatch.setattr("appliance.ui.server_task_feed.time.monotonic", lambda: host.now_s)

    def asks_in(seconds):
        before, began = host.asked, int(host.now_s)
        for second in range(began, began + seconds):
            host.now_s = max(host.now_s, second)
            feed.ask(second * S)
        return host.asked - before

    assert asks_in(300) == 10
    host.now_s, host.took_s = 300.0, 12.0
    assert asks_in(360) <= 4
