"""What the Windows event log gets, on every system: its records, their bounds, and no secrets."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import UnavailableError
from appliance.log import event_log, logs
from appliance.log.event_log import FAILED, LONGEST_TEXT, STARTED, STOPPED, Event, EventLog, event
from appliance.secret import Secret

LOG = logging.getLogger("appliance.engine.service")


@pytest.fixture(autouse=True)
def _level():
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


def reported(act, secrets: tuple[Secret, ...] = ()) -> list[Event]:
    """The events of what ``act(log)`` logs."""
    found: list[Event] = []
    log = logs.start("info", stream=io.StringIO(), secrets=secrets, events=EventLog(found.append))
    act(log)
    log.close()
    assert log.lost == 0
    return found


@pytest.mark.parametrize(
    ("level", "kind"),
    [
        (logging.DEBUG, 4),
        (logging.INFO, 4),
        (logging.WARNING, 2),
        (logging.ERROR, 1),
        (logging.CRITICAL, 1),
    ],
)
def test_levels_are_those_of_windows(level: int, kind: int) -> None:
    """EVENTLOG_ERROR_TYPE is 1, EVENTLOG_WARNING_TYPE 2, EVENTLOG_INFORMATION_TYPE 4."""
    assert event(level, STARTED, "engine.service", "text") == (
        kind,
        STARTED,
        "engine.service: text",
    )


def test_start_stop_and_errors_are_events_and_nothing_else_is() -> None:
    """Start, stop and errors with their ids; an error has its traceback; other lines are none."""

    def act(_log: logs.Log) -> None:
        LOG.info("listening on %s", "127.0.0.1:1883", extra=event_log.START)
        LOG.info("client connected")
        LOG.warning("slow")
        try:
            raise ValueError("bad value")
        except ValueError:
            LOG.exception("a defect")
        LOG.info("stopped", extra=event_log.STOP)

    start, error, stop = reported(act)
    assert start == (4, STARTED, "engine.service: listening on 127.0.0.1:1883")
    assert error[:2] == (1, FAILED)
    assert error.text.startswith("engine.service: a defect: ValueError: bad value\r\nTraceback")
    assert stop == (4, STOPPED, "engine.service: stopped")


def test_an_event_has_no_secret_and_no_control_character() -> None:
    """Text and traceback are masked and escaped as in the log; so is the reason of a failed start."""
    secret = Secret("s3cret-value")

    def act(log: logs.Log) -> None:
        try:
            raise ValueError("s3cret-value\x1b[2J")
        except ValueError:
            LOG.exception("with %s", "s3cret-value")
        log.report_failure(UnavailableError("the port\n is in use, password=hunter22"))

    found = reported(act, (secret,))
    assert len(found) == 2
    assert all("s3cret" not in one.text and "hunter22" not in one.text for one in found)
    assert all("\x1b" not in one.text for one in found)
    assert "\n" not in found[1].text
    assert found[1][:2] == (1, FAILED)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=20), st.integers(0, 3)
)
def test_a_text_fits_and_inserts_nothing(piece: str, more: int) -> None:
    """At most 31,839 UTF-16 units, a long text is cut, and no %1 that a viewer would replace."""
    text = piece * 4000 + "%1 100%% 5%" + "\U0001f600" * more
    found = event(logging.ERROR, FAILED, "x", text).text
    assert len(found.encode("utf-16-le")) <= 2 * LONGEST_TEXT
    assert "%1" not in found
    assert found.startswith(f"x: {piece}")
    assert found.endswith("...") or len(piece) < 9


def test_an_event_log_that_refuses_stops_nothing() -> None:
    """Each refusal is counted, the first is said in the log, and the log goes on."""
    stream = io.StringIO()

    def refuse(_event: Event) -> None:
        raise OSError(5, "Access is denied")

    log = logs.start("info", stream=stream, events=EventLog(refuse))
    for number in range(3):
        LOG.error("error %d", number)
    log._events.close()
    log.close()
    assert log.lost == 3
    assert "error 2" in stream.getvalue()
    assert stream.getvalue().count("The Windows event log refuses events") == 1


def test_an_event_log_that_hangs_holds_nothing_up(monkeypatch) -> None:
    """Events wait in a bounded queue; beyond it they are counted; the log is written and closed."""
    monkeypatch.setattr(event_log, "_CLOSE_S", 0.05)
    stream = io.StringIO()
    hanging, goes_on = threading.Event(), threading.Event()

    def hang(_event: Event) -> None:
        hanging.set()
        goes_on.wait(30)

    events = EventLog(hang)
    log = logs.start("info", stream=stream, events=events)
    try:
        LOG.error("first")
        assert hanging.wait(10)
        for number in range(event_log._QUEUED_EVENTS + 5):
            events.add(event(logging.ERROR, FAILED, "x", str(number)))
        assert log.lost == 5
        LOG.error("last")
        log.close()
        assert "last" in stream.getvalue()
    finally:
        goes_on.set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has an event log")
def test_elsewhere_the_key_has_no_effect_and_it_is_said(tmp_path, capsys) -> None:
    """A configuration with event_log runs on every system; the log says that it has no effect."""
    log = logs.start_for(str(tmp_path), "info", owns_terminal=False, event_log=True)
    log.close()
    assert "event_log has no effect" in capsys.readouterr().err
