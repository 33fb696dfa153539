"""Files on Windows: held open by other programs, with foreign names, with long paths."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from appliance_process import until
from windows_process import (
    DEADLINE_S,
    ONE_RECORDER,
    TESTS,
    WindowsProcess,
    connected,
    run_appliance,
    spawn,
    windows_path,
)

from appliance.errors import EXIT_CONFIG, EXIT_OK, EXIT_UNAVAILABLE

FOREIGN = "Größe – Ω 日本 données"


@contextlib.contextmanager
def held(path: Path, share: str) -> Iterator[None]:
    """Another program has the file open and shares it so."""
    script = windows_path(TESTS / "windows_holder.py")
    with spawn(script, windows_path(path), share) as holder:
        try:
            assert holder.stdout.readline().strip() == "held"
            yield
        finally:
            holder.stdin.close()
            holder.wait(DEADLINE_S)


@contextlib.contextmanager
def publisher(port: int, **more) -> Iterator[mqtt.Client]:
    client = connected(port, **more)
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: mqtt.Client, *numbers: int, topic: str = "line/7") -> None:
    """Returns when all are acknowledged."""
    for info in [client.publish(topic, str(number), qos=1) for number in numbers]:
        info.wait_for_publish(DEADLINE_S)
        assert info.is_published()


def recorded(path: Path) -> list[int]:
    return json.loads(path.read_text("utf-8"))


def until_recorded(path: Path, numbers: list[int]) -> None:
    until(lambda: recorded(path) == numbers, f"{path.name} has {numbers}", DEADLINE_S)


@pytest.mark.parametrize("share", ["read-write", "all"])
def test_a_recording_that_a_reader_shares_goes_on_while_it_is_held(tmp_path, share):
    """A reader that lets others write, with or without the right to delete, disturbs nothing."""
    with WindowsProcess(tmp_path, ONE_RECORDER) as appliance, contextlib.ExitStack() as stack:
        path = appliance.data / "recordings" / "line7.json"
        client = stack.enter_context(publisher(appliance.start().port))
        publish(client, 1, 2)
        until_recorded(path, [1, 2])
        with held(path, share):
            publish(client, 3, 4)
            until_recorded(path, [1, 2, 3, 4])
        assert appliance.end() == EXIT_OK
        assert "can't be recorded" not in "\n".join(appliance.lines)


@pytest.mark.parametrize("share", ["nothing", "read"])
def test_a_recording_that_another_program_locks_is_caught_up(tmp_path, share):
    """While a program forbids writing, messages are acknowledged and the fault is said; when it lets
    go, the recording has each message once. A stop while it is held is in order too."""
    with WindowsProcess(tmp_path, ONE_RECORDER) as appliance:
        path = appliance.data / "recordings" / "line7.json"
        with publisher(appliance.start().port) as client:
            publish(client, 1, 2)
            until_recorded(path, [1, 2])
            with held(path, share):
                publish(client, 3, 4)
                appliance.wait_for_line("line7.json can't be recorded", DEADLINE_S)
            until_recorded(path, [1, 2, 3, 4])
            appliance.wait_for_line("is recorded again")
            with held(path, share):
                publish(client, 5)
                assert appliance.end() == EXIT_OK, appliance.lines
        appliance.start()
        until_recorded(path, [1, 2, 3, 4, 5])
        assert appliance.end() == EXIT_OK


def test_a_foreign_file_that_is_held_at_the_start_is_set_aside_later(tmp_path):
    """A file is in the recording's place and a program holds it, so it can't be renamed: messages
    wait in the journal, and when the program lets go both files are whole."""
    path = tmp_path / "data" / "recordings" / "line7.json"
    path.parent.mkdir(parents=True)
    path.write_text("somebody's notes", "utf-8")
    with WindowsProcess(tmp_path, ONE_RECORDER) as appliance:
        with held(path, "read-write"):
            with publisher(appliance.start().port) as client:
                publish(client, 1, 2)
            appliance.wait_for_line("line7.json can't be recorded", DEADLINE_S)
            assert path.read_text("utf-8") == "somebody's notes"
        until_recorded(path, [1, 2])
        assert appliance.end() == EXIT_OK
    aside = [each for each in path.parent.iterdir() if ".before-" in each.name]
    assert [each.read_text("utf-8") for each in aside] == ["somebody's notes"]


def test_names_with_blanks_and_letters_outside_ascii(tmp_path):
    """Configuration, users, data, recording and backup lie in folders with such names; commands whose
    output is redirected in the Windows code page say them without an error."""
    folder = tmp_path / FOREIGN
    data = folder / f"{FOREIGN} data"
    config = f"""
[service]
name = "Größe 7"
data_dir = '{FOREIGN} data'
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = '{FOREIGN} users.txt'
[[recorder]]
topic = "Größe/日本"
path = '{FOREIGN}/Größe 日本.json'
format = "json"
"""
    with WindowsProcess(folder, config) as appliance:
        named = ("-c", windows_path(appliance.config))
        added = run_appliance("user", "add", "jürgen", "--password-stdin", *named, text="geheim 1")
        assert added.returncode == EXIT_OK, added.stderr
        checked = run_appliance("check", *named)
        assert checked.returncode == EXIT_OK, checked.stdout + checked.stderr
        with publisher(appliance.start().port, username="jürgen", password="geheim 1") as client:
            publish(client, 1, 2, topic="Größe/日本")
        path = data / FOREIGN / "Größe 日本.json"
        until_recorded(path, [1, 2])
        health = run_appliance("health", "--json", *named, encoding="utf-8")
        assert health.returncode == EXIT_OK, health.stdout + health.stderr
        names = [part["name"] for part in json.loads(health.stdout)["parts"]]
        assert f"recorder {windows_path(path)}" in names
        reload = run_appliance("reload", *named)
        assert reload.returncode == EXIT_OK, reload.stdout + reload.stderr
        target = folder / f"{FOREIGN} backup"
        saved = run_appliance("backup", windows_path(target), *named)
        assert saved.returncode == EXIT_OK, saved.stdout + saved.stderr
        assert [recorded(each) for each in target.rglob("Größe 日本.json")] == [[1, 2]]
        assert appliance.end() == EXIT_OK
    exported = run_appliance("export", *named, encoding="utf-8")
    assert exported.returncode == EXIT_OK, exported.stderr
    assert [json.loads(line)["topic"] for line in exported.stdout.splitlines()].count(
        "Größe/日本"
    ) == 2
    assert "Traceback" not in "\n".join(appliance.lines)


def test_a_path_over_260_characters_works_or_is_said(tmp_path):
    """A data directory with a long path works where Windows allows it; else the answer names the
    path and says what to do, without a traceback."""
    long = "/".join(["a folder with a name of about fifty characters, no. 1"] * 6)
    config = ONE_RECORDER.replace('"data"', f'"{long}"')
    with WindowsProcess(tmp_path, config) as appliance:
        appliance.begin()
        try:
            appliance.wait_for_line("listening on", DEADLINE_S)
        except AssertionError:
            assert appliance.exit_code() in (EXIT_UNAVAILABLE, EXIT_CONFIG)
            said = "\n".join(appliance.lines)
            assert "Traceback" not in said
            assert "no. 1" in said
            assert "long paths" in said
            return
        with publisher(appliance.port) as client:
            publish(client, 1, 2)
        path = tmp_path / long / "recordings" / "line7.json"
        assert len(str(path)) > 260
        until_recorded(path, [1, 2])
        assert appliance.end() == EXIT_OK
