"""Tables: each width is used, at every width, by the one rule that all tables share."""

import re

import pytest
from fake_engine import Clock, FakeEngine, story
from screens import screen_text, settle

from appliance.engine_api import ClientState
from appliance.model import Cause, Execution, ExecutionState
from appliance.ui.app import ApplianceApp
from appliance.ui.columns import Column, Table
from appliance.ui.lines import line_width
from appliance.ui.screens import log, task_picker
from appliance.ui.settings import UiSettings
from appliance.ui.views import activity, client, execution, message, topic

TABLES = {
    "messages": message.TABLE,
    "clients": client.TABLE,
    "topics": topic.TABLE,
    "rules": execution.RULES,
    "executions": activity.TABLE,
    "log": log.TABLE,
    "tasks": task_picker.TABLE,
}
WIDTHS = range(74, 260)
SIZES = ((80, 24), (100, 30), (120, 36), (140, 40), (200, 55))
NARROW_AND_WIDE = [
    pytest.param(
        size,
        id="x".join(map(str, size)),
        marks=() if size in (SIZES[0], SIZES[3]) else pytest.mark.campaign,
    )
    for size in SIZES
]


@pytest.mark.parametrize("name", TABLES)
def test_a_row_takes_exactly_the_width(name):
    """At every width, the heading and a row of long texts fill the row and no more."""
    table = TABLES[name]
    for cells in WIDTHS:
        parts = [("扉x" * 100, "")] * len(table.columns)
        assert line_width(table.row(cells, parts)) == cells
        assert line_width(table.heading(cells)) == cells


@pytest.mark.parametrize("name", TABLES)
def test_a_column_never_shrinks_as_the_table_grows(name):
    """A wider terminal shows at least as much of each column, unless another one has come."""
    table = TABLES[name]
    for cells in WIDTHS:
        narrow, wide = table.widths(cells), table.widths(cells + 1)
        if [bool(one) for one in narrow] == [bool(one) for one in wide]:
            assert all(a <= b + 1 for a, b in zip(narrow, wide, strict=True))
        assert all(
            width == 0 or width >= column.least
            for column, width in zip(table.columns, narrow, strict=True)
        )


@pytest.mark.parametrize("name", TABLES)
def test_every_title_can_be_found_by_its_cell(name):
    """The cell at which a title begins belongs to its column, at every width."""
    table = TABLES[name]
    for cells in (80, 140, 200):
        text = "".join(part for part, _ in table.heading(cells))
        for column, width in zip(table.columns, table.widths(cells), strict=True):
            if width and len(column.title) > 1:
                found = table.at(cells, text.index(column.title))
                assert found is not None
                assert found.title == column.title


def test_spare_cells_go_where_texts_lack_them():
    """Up to the good width first; then to the longest useful one; the rest to the open end."""
    table = Table(Column("A", 4, 8, 20), Column("B", 4, 8, None), Column("C", 3))
    assert table.widths(13) == (4, 4, 3)
    assert table.widths(21) == (8, 8, 3)
    first, second, third = table.widths(200)
    assert (first, third) == (20, 3) or first > 8
    assert first + second + third + 2 == 200


def test_less_than_the_least_is_cut_at_the_end():
    """A pane that is too narrow loses its last columns; nothing is drawn beside it."""
    table = Table(Column("A", 4), Column("B", 4), Column("C", 4))
    assert table.widths(9) == (4, 4, 0)
    assert line_width(table.row(6, [("aaaaaa", ""), ("bbbb", ""), ("cccc", "")])) <= 6


def wide_engine():
    """Texts that are longer than any column of a narrow terminal."""
    engine = FakeEngine(Clock())
    client_id = "line-7-cell-14-gateway-of-hall-east"
    engine.client_list = (
        ClientState(
            client_id, "10.20.30.40:51234", "5.0", True, engine.clock_ns(),
            username="hall-east", listener="plant-network",
            subscriptions=(("plant/line7/cell14/#", 1),), messages_in=5,
        ),
    )  # fmt: skip
    seq = engine.publish_from("qliksense/start_task", b"{}", client_id=client_id, qos=1)
    engine.put(
        Execution(
            seq, "0" * 36, "Reload of the sales figures of all plants", ExecutionState.SUCCEEDED,
            Cause("message", seq, "qliksense/start_task", client_id),
            engine.clock_ns(), engine.clock_ns(), engine.clock_ns() + 10**9,
        ),
        "1.0 s",
    )  # fmt: skip
    return engine, client_id


@pytest.mark.parametrize("size", NARROW_AND_WIDE)
async def test_more_width_shows_more(size):
    """What is cut at 80 columns is whole at 200: client, task, topic filter."""
    engine, client_id = wide_engine()
    app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
    async with app.run_test(size=size) as pilot:
        live = await settle(pilot)
        row = next(line for line in live.split("\n") if line.startswith("▌"))
        assert "✓ 1.0 s Re" in row  # the outcome has the task's name beside it
        if size[0] >= 200:
            assert client_id[:14] in row
            assert "✓ 1.0 s Reload of th" in row
        await pilot.press("4")
        clients = await settle(pilot)
        if size[0] >= 140:
            assert client_id in clients
            assert "plant/line7/cell14/#" in clients
            assert "hall-east" in clients
        for screen in "1235":
            await pilot.press(screen)
            text = await settle(pilot)
            assert all(len(line) <= size[0] for line in text.split("\n"))


USUAL = {(80, 24), (80, 36), (140, 40)}
"""Sizes that are tried each time; the campaign tries the others."""


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        pytest.param(columns, rows, marks=[] if (columns, rows) in USUAL else pytest.mark.campaign)
        for columns in (80, 140)
        for rows in (24, 30, 36, 40, 48, 55)
    ],
)
async def test_every_height_keeps_list_and_footer(columns, rows):
    """At each height the list has rows, and the keys stand in the last line."""
    engine = story()
    app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
    async with app.run_test(size=(columns, rows)) as pilot:
        for screen in "12345":
            await pilot.press(screen)
            text = await settle(pilot)
            assert "q quit" in text.split("\n")[-1]
            lists = [one for one in app.screen.query("Rows") if one.display]
            assert all(one.size.height >= 4 for one in lists), (screen, lists)


async def test_a_wide_message_has_its_outcome_beside_the_payload():
    """The right half of a wide detail is used: what the message led to stands there."""
    engine = story()
    for size, beside in (((80, 24), False), ((140, 40), True), ((200, 55), True)):
        app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await pilot.press("enter")
            await settle(pilot)
            text = await settle(pilot)
            row = next(line for line in text.split("\n") if "── Payload" in line)
            assert ("── What it led to" in row) is beside
            assert "── What it led to" in text


async def test_a_click_on_a_title_sorts(pilot_size=(140, 40)):
    """On Clients and Topics the rows are sorted by the title that was clicked."""
    engine = story()
    app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
    async with app.run_test(size=pilot_size) as pilot:
        for screen, title in (("4", "QUEUE"), ("4", "CLIENT"), ("2", "MSGS"), ("2", "TOPIC")):
            await pilot.press(screen)
            text = await settle(pilot)
            lines = text.split("\n")
            y = next(index for index, line in enumerate(lines) if title in line)
            await pilot.click(offset=(lines[y].index(title), y))
            assert f"{title}▼" in await settle(pilot)


async def test_a_click_on_the_time_shows_the_age():
    """Live has no other order than the time, so the title of the time changes clock to age."""
    engine = story()
    app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
    async with app.run_test(size=(80, 24)) as pilot:
        lines = (await settle(pilot)).split("\n")
        y = next(index for index, line in enumerate(lines) if "TOPIC" in line)
        await pilot.click(offset=(2, y))
        assert " AGE " in await settle(pilot)


@pytest.mark.parametrize("key", ["space", "slash", "question_mark"])
async def test_a_click_on_the_footer_does_what_the_key_does(key):
    """Each entry of the footer can be clicked."""
    shown = {"space": "space pause", "slash": "/ filter", "question_mark": "? help"}[key]
    screens = []
    for clicked in (False, True):
        engine = story()
        app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
        async with app.run_test(size=(80, 24)) as pilot:
            lines = (await settle(pilot)).split("\n")
            if clicked:
                await pilot.click(offset=(lines[-1].index(shown), 23))
            else:
                await pilot.press(key)
            await app.workers.wait_for_complete()
            await settle(pilot)
            screens.append(screen_text(app))
    assert screens[0] == screens[1]
    assert not re.fullmatch(r"\s*", screens[0])
