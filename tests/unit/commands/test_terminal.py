"""Text of others can't steer a terminal, and a pipe or a file gets every byte."""

import contextlib
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import cli
from appliance.commands import terminal
from appliance.commands.output import print_json

HOSTILE = "a\x1b]52;c;cm0gLXJm\x07b\x9b31mc\u202ed\x7f"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def is_inert(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in text)


def test_what_a_terminal_would_act_on_is_written_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sequences of ESC and C1, and marks of direction, as text and as bytes."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.guard()
    sys.stdout.write(f"{HOSTILE}\n")
    assert screen.getvalue() == "a\\x1b]52;c;cm0gLXJm\\x07b\\x9b31mc\\u202ed\\x7f\n"
    sys.stdout.buffer.write(f"1,{HOSTILE}\r\n2\r".encode())
    sys.stdout.buffer.write(b"\n")
    assert is_inert(screen.getvalue())
    assert screen.getvalue().endswith("\\x7f\n2\n")


@given(st.lists(st.binary()))
def test_no_bytes_reach_a_terminal_as_a_sequence(pieces: list[bytes]) -> None:
    """However the pieces cut the letters."""
    shown = Terminal()
    guarded = terminal.InertTerminal(shown)
    for piece in pieces:
        guarded.buffer.write(piece)
    controls = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E)} - {"\n"}
    assert not set(shown.getvalue()) & controls


def test_a_pipe_gets_the_bytes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for a program stays exact."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8"))
    terminal.guard()
    sys.stdout.buffer.write(f"{HOSTILE}\r\n".encode())
    assert raw.getvalue() == f"{HOSTILE}\r\n".encode()


def test_json_is_inert_everywhere_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON escapes such characters itself."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8"))
    print_json({"name": f"{HOSTILE}\U000e0041ä"})
    assert is_inert(raw.getvalue().decode())
    assert json.loads(raw.getvalue()) == {"name": f"{HOSTILE}\U000e0041ä"}
    assert "ä" in raw.getvalue().decode()


def test_a_message_about_a_hostile_name_is_inert(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors repeat what was written, with its control characters written out."""
    with contextlib.suppress(SystemExit):
        cli.main(["check", "-c", f"no{HOSTILE}.toml"])
    said = capsys.readouterr().err
    assert "\\x1b" in said
    assert is_inert(said)
