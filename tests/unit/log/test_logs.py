"""What the log promises: safe lines, no secrets, bounded, and it never holds a thread up."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.log import file as log_file
from appliance.log import logs
from appliance.secret import Secret
from appliance.errors import ApplianceError
from appliance.log.lines import RepeatFilter
from appliance.log.sanitize import SecretMasker, escape

LOG = logging.getLogger("appliance.broker.door")


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


def written(level: str = "info", secrets: tuple[Secret, ...] = ()):  # noqa: ANN201
    stream = io.StringIO()
    log = logs.start(level, stream=stream, secrets=secrets)
    return stream, log


def test_a_record_is_one_line_with_time_level_and_source() -> None:
    """A line has UTC time to the millisecond, level, part and text."""
    stream, log = written()
    LOG.info("client %s connected", "plc-7")
    log.close()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    broker\.door: client plc-7 connected\n",
        stream.getvalue(),
    )


def test_text_from_outside_can_not_forge_a_line_or_move_the_cursor() -> None:
    """A client id with line breaks or escape sequences is shown, not obeyed."""
    stream, log = written()
    LOG.info("client %r %s", "x", "a\n2026-01-01 INFO all is well\x1b[2J\u202e\x9b\x7f")
    log.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "a\\n2026-01-01 INFO all is well\\x1b[2J\\u202e\\x9b\\x7f" in text
    assert log.lines(0, 10)[0].text in text


@given(st.text())
def test_escaped_text_is_inert(text: str) -> None:
    """Any text becomes one line, printable by any UTF-8 terminal."""
    safe = escape(text)
    assert len(safe.splitlines()) <= 1
    assert "\x1b" not in safe
    safe.encode()


def test_a_name_with_invisible_characters_is_told_from_the_name_it_looks_like() -> None:
    """Characters that are drawn as nothing are written out in the log."""
    stream, log = written()
    LOG.info("client %s", "ad\u200bmin\ufeff\xad\u200d\u2063\u3164\ufe0f\U000e0041 connected")
    log.close()
    said = "client ad\\u200bmin\\ufeff\\xad\\u200d\\u2063\\u3164\\ufe0f\\U000e0041 connected"
    assert said in stream.getvalue()


def test_no_format_character_of_unicode_is_shown_raw() -> None:
    """What Unicode calls a format character is written out, unless it is drawn (Arabic signs)."""
    drawn = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD,
             0x110CD}  # fmt: skip
    formats = {code for code in range(0x110000) if unicodedata.category(chr(code)) == "Cf"}
    assert {code for code in formats if escape(chr(code)) == chr(code)} <= drawn


def test_ordinary_letters_of_every_script_stay_readable() -> None:
    """Names in any language are written as they are."""
    for name in ("Füllstand", "Ёлка", "温度センサー", "센서", "درجة", "טמפרטורה", "तापमान",
                 "อุณหภูมิ", "ქართული", "e\u0301", "🌡"):  # fmt: skip
        assert escape(name) == name


def test_libraries_that_write_what_signs_in_say_nothing_below_a_warning() -> None:
    """At "debug", too: NTLM's tokens, SQL's parameters and OAuth's answers are in their lines."""
    stream, log = written("debug")
    for name in ("spnego._ntlm", "requests_oauthlib.oauth2_session", "oauthlib.oauth2", "aiosqlite",
                 "sqlalchemy.engine.Engine", "urllib3.connectionpool", "aiohttp.client"):  # fmt: skip
        logging.getLogger(name).debug("NTLM step output: TlRMTVNTUAADAAAAGAAYAH4")
        logging.getLogger(name).info("{'access_token': 'abc'}")
    LOG.debug("our own line")
    log.close()
    assert [line.rpartition(": ")[2] for line in stream.getvalue().splitlines()] == ["our own line"]


def test_secrets_are_masked_everywhere(tmp_path: Path) -> None:
    """A known secret, or what looks like one, is in no line, no traceback and not in the ring."""
    file = tmp_path / "logs" / "appliance.log"
    stream = io.StringIO()
    log = logs.start("info", stream=stream, file=str(file), secrets=[Secret("hunter2")])
    log.mask(Secret("hunter2-and-more"))
    LOG.info("trying hunter2-and-more with hunter2")
    LOG.warning("header Authorization: Bearer abc.def-ghi, password=topsecret1 token: 'tok-en'")
    try:
        raise ValueError("it was hunter2")
    except ValueError:
        LOG.exception("failed")
    log.close()
    everything = stream.getvalue() + file.read_text() + repr(log.lines(0, 100))
    for secret in ("hunter2", "and-more", "abc.def", "topsecret1", "tok-en"):
        assert secret not in everything
    assert "trying *** with ***" in everything


@given(st.text(alphabet="ab*", min_size=4, max_size=8), st.text(alphabet="ab* ", max_size=30))
def test_a_known_secret_never_passes(secret: str, text: str) -> None:
    """No text that has the secret in it comes out with it (unless the mask itself spells it)."""
    masked = SecretMasker(Secret(secret)).apply(f"{text}{secret}{text}")
    assert secret not in masked or "*" in secret


def test_a_defect_s_traceback_is_written_indented() -> None:
    """A traceback can't be taken for records: each of its lines is indented."""
    stream, log = written()
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        LOG.exception("the door failed")
    log.close()
    lines = stream.getvalue().splitlines()
    assert "the door failed: RuntimeError: first\\nsecond" in lines[0]
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_line_that_repeats_is_counted_instead() -> None:
    """A storm of one kind of line shows thirty and a count with one of them as it would have read;
    another kind still passes."""
    stream, log = written()
    for number in range(1000):
        LOG.warning("refused %d", number)
    LOG.warning("something else")
    log.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 32
    assert lines[29].endswith("refused 29")
    assert lines[30].endswith("something else")
    assert lines[31].endswith('970 further lines like "refused 30" were left out')


def test_the_count_of_repeats_comes_when_ten_seconds_are_over() -> None:
    """The next line after the window reports what was left out, whichever line that is. A record's
    own time does not count: the system's clock may have been set."""
    seconds = 0.0
    repeats = RepeatFilter(lambda: seconds)
    texts: list[str] = []

    def at(second: float, text: str, ahead_s: float = 0.0) -> None:
        nonlocal seconds
        seconds = second
        record = logging.LogRecord("appliance.x", 20, "", 0, text, (), None)
        record.created = 1e9 + second + ahead_s
        reports, wanted = repeats.admit(record, text)
        texts.extend(one.text for one in reports)
        texts.extend([text] * wanted)

    for _ in range(40):
        at(0, "again")
    at(5, "other")
    at(11, "third", ahead_s=-5 * 3600)
    at(11.5, "again")
    assert texts[30:] == [
        "other",
        '10 further lines like "again" were left out',
        "third",
        "again",
    ]


def test_the_ui_gets_lines_after_a_number_and_memory_is_bounded() -> None:
    """The ring keeps the newest lines, numbered without gaps; asking costs no more than asked."""
    _, log = written("debug")
    for number in range(2500):
        logging.getLogger(f"appliance.part{number}").debug("line")
    newest = log.lines(0, 10_000)
    assert len(newest) == 2000
    assert newest[-1].number == 2500
    assert [each.number for each in log.lines(2497, 10)] == [2498, 2499, 2500]
    assert [each.number for each in log.lines(0, 2)] == [2499, 2500]
    assert log.lines(2500, 10) == ()
    assert newest[-1].source == "part2499"
    assert newest[-1].level == logging.DEBUG
    log.close()


def test_a_stopped_terminal_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reader that reads nothing, logging goes on at once, and the lost lines are counted."""
    monkeypatch.setattr(logs, "_QUEUED_LINES", 100)
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    log = logs.start("info", stream=stream)
    for number in range(3000):
        logging.getLogger(f"appliance.part{number}").info("x" * 500)
    assert log.lost > 1000
    received: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as source:
            received.append(source.read())

    thread = threading.Thread(target=read)
    thread.start()
    log.close()
    stream.close()
    thread.join()
    assert b"lines before this one were lost" in received[0]


def test_a_reader_that_has_gone_ends_nothing() -> None:
    """A closed pipe (the other side of `2>&1 | head`) makes no error in the appliance."""
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    os.close(reader)
    log = logs.start("info", stream=stream)
    LOG.info("one")
    LOG.info("two")
    log.close()
    assert log.lost == 2
    try:
        stream.close()
    except OSError:  # a broken pipe, which Windows calls an invalid argument
        pass


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log file can't fill the disk: it is set aside at a size, and old ones go."""
    monkeypatch.setattr(log_file, "FILE_BYTES", 2000)
    file = tmp_path / "appliance.log"
    log = logs.start("info", file=str(file))
    for number in range(300):
        logging.getLogger(f"appliance.part{number}").info("some text, number %d%%", number)
    _wait_until_written(log)
    log.close()
    assert len(list(tmp_path.iterdir())) == 6
    assert file.read_text().endswith("some text, number 299%\n")
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 6 * 2000


def _wait_until_written(log: logs.Log) -> None:
    """``close`` gives the thread that writes two seconds, which a slow disk may not keep."""
    deadline = time.monotonic() + 60
    while not log._queue.empty():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_that_can_not_be_set_aside_is_continued_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows does not rename a log file that another program reads: no line is lost by that."""
    monkeypatch.setattr(log_file, "FILE_BYTES", 2000)
    file = tmp_path / "appliance.log"
    handler = log_file.open_log_file(str(file))
    replace = Path.replace
    held = True

    def refuse(path: Path, target: Path) -> Path:
        if held and path == file:
            raise PermissionError(13, "The file is in use", str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)

    def emit(number: int) -> None:
        handler.emit(logging.LogRecord("", 0, "", 0, f"line {number:94}", (), None))

    for number in range(30):
        emit(number)
    assert len(file.read_text("utf-8").splitlines()) == 30
    assert handler.failures == 0
    for number in range(100):
        emit(number)
    assert 4000 <= file.stat().st_size <= 4300
    assert handler.failures > 50
    held = False
    emit(7)
    handler.close()
    assert file.read_text("utf-8") == f"line {7:94}\n"
    assert (tmp_path / "appliance.log.1").stat().st_size >= 4000


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    """A log file that can't be is an error for the user, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ApplianceError, match="log file can't be written|may not write"):
        logs.start("info", file=str(tmp_path / "file" / "appliance.log"))


def test_foreign_libraries_are_heard_from_warnings_on() -> None:
    """The broker library's chatter does not drown the appliance's lines, even with debug."""
    stream, log = written("debug")
    logging.getLogger("amqtt.broker").info("chatter")
    logging.getLogger("transitions.core").debug("chatter")
    logging.getLogger("amqtt.broker").warning("heard")
    LOG.debug("ours")
    log.set_level("error")
    LOG.warning("too little")
    log.close()
    text = stream.getvalue()
    assert "chatter" not in text
    assert "heard" in text
    assert "ours" in text
    assert "too little" not in text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_with_an_error_is_in_the_log() -> None:
    """No part dies in silence."""
    stream, log = written()

    def fails() -> None:
        raise RuntimeError("a defect")

    thread = threading.Thread(target=fails, name="recorder")
    thread.start()
    thread.join()
    log.close()
    assert "the thread recorder ended with an error: RuntimeError: a defect" in stream.getvalue()


def test_wrong_values_for_a_format_are_still_a_line() -> None:
    """A slip in a log call costs the values, not the caller's work."""
    stream, log = written()
    log.take(logging.LogRecord("appliance.x", 20, "", 0, "%d messages", ("many",), None))
    log.close()
    assert "%d messages (its values don't fit)" in stream.getvalue()


def test_a_long_text_is_cut() -> None:
    """A payload of a megabyte in an error text does not become a megabyte of log."""
    stream, log = written()
    LOG.info("%s", "x" * 1_000_000)
    log.close()
    assert len(stream.getvalue()) < 5000
    assert "(1000000 characters)" in stream.getvalue()


def test_a_line_as_json_is_one_object_with_its_traceback() -> None:
    """With log_format = "json" every line is one JSON object, with any text in the record."""
    stream = io.StringIO()
    log = logs.start("info", stream=stream, form="json", secrets=[Secret("hunter2")])
    LOG.info('a "quoted" line\nbreak hunter2')
    try:
        raise ValueError("hunter2")
    except ValueError:
        LOG.exception("it failed")
    log.close()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["level"] == "info"
    assert '"quoted"' in first["message"]
    assert "ValueError" in second["trace"]
    assert "hunter2" not in stream.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is on Linux")
def test_the_system_s_journal_gets_severities_and_no_second_time(tmp_path, monkeypatch) -> None:
    """Where $JOURNAL_STREAM names standard error, each line begins with its severity; elsewhere,
    even with the variable set, lines are as people read them."""
    for named, said in (
        (True, r"<4>test: careful\n<3>test: it failed"),
        (False, r"20\d\d-.*Z WARN"),
    ):
        with (tmp_path / "err").open("w+", encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            name = f"{status.st_dev}:{status.st_ino + (not named)}"
            monkeypatch.setenv("JOURNAL_STREAM", name)
            monkeypatch.setattr(sys, "stderr", stream)
            log = logs.start_for(str(tmp_path), "info", owns_terminal=False)
            logging.getLogger("appliance.test").warning("careful")
            logging.getLogger("appliance.test").error("it failed")
            log.close()
            stream.seek(0)
            assert re.match(said, stream.read())
