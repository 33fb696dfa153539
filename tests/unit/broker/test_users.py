"""What the users file promises: hashed, whole, private, reloaded, and clear when it is broken."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.broker import users as users_module
from appliance.errors import ApplianceError, ConfigError, NoPermissionError, UsageError
from appliance.storage import files
from appliance.broker.users import Users, name_problem

posix = pytest.mark.posix("file modes are POSIX's")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.txt"


def test_a_user_signs_in_with_the_password_and_with_no_other(file: Path) -> None:
    """The right name and password pass; everything else does not; the file has no password."""
    users = Users(file)
    assert users.add("wiredflow", b"wiredflow-secret")
    assert users.verify("wiredflow", b"wiredflow-secret")
    assert not users.verify("wiredflow", b"wiredflow-secreT")
    assert not users.verify("wiredflow", b"")
    assert not users.verify("Wiredflow", b"wiredflow-secret")
    assert not users.verify("nobody", b"wiredflow-secret")
    assert b"wiredflow-secret" not in file.read_bytes()
    assert "$argon2id$" in file.read_text()


def test_a_password_may_be_any_bytes(file: Path) -> None:
    """MQTT passwords are binary: a null byte is part of the password, not its end."""
    users = Users(file)
    users.add("plc", b"a\0b\xff")
    assert users.verify("plc", b"a\0b\xff")
    assert not users.verify("plc", b"a\0c\xff")
    assert not users.verify("plc", b"a")


def test_adding_again_changes_the_password_and_nothing_else(file: Path) -> None:
    """A new password is the only one; other users and comments stay."""
    file.write_text("# plant 7\n\n")
    users = Users(file)
    assert users.add("a", b"one")
    assert users.add("b", b"two")
    assert not users.add("a", b"three")
    assert users.names() == ("a", "b")
    assert users.verify("a", b"three")
    assert not users.verify("a", b"one")
    assert users.verify("b", b"two")
    assert file.read_text().startswith("# plant 7\n\n")
    assert users.remove("a")
    assert not users.remove("a")
    assert users.names() == ("b",)


def test_a_change_by_another_process_counts_at_the_next_sign_in(file: Path) -> None:
    """`appliance user` needs no restart: added users may come in, removed ones may not."""
    running, command = Users(file), Users(file)
    command.add("plc", b"one")
    assert running.verify("plc", b"one")
    command.add("plc", b"two")
    assert not running.verify("plc", b"one")
    assert running.verify("plc", b"two")
    command.remove("plc")
    assert not running.verify("plc", b"two")


def test_the_first_user_closes_the_door_for_the_nameless(file: Path) -> None:
    """Whether a users file exists is known at once, and a broken or vanished one still counts."""
    running = Users(file)
    assert not running.exists
    file.write_text("broken")
    assert running.exists
    file.unlink()
    assert not running.exists
    Users(file).add("plc", b"x")
    assert running.exists
    file.unlink()
    assert running.exists


def test_reconnecting_is_cheap_and_only_for_what_was_right(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sign-in costs no second hash; what is remembered is neither name nor password."""
    users = Users(file)
    users.add("plc", b"password-1")
    calls: list[object] = []
    hasher = users_module._HASHER
    real = type(hasher).verify
    monkeypatch.setattr(
        type(hasher),
        "verify",
        lambda self, known, given: calls.append(1) or real(self, known, given),
    )
    assert users.verify("plc", b"password-1")
    for _ in range(50):
        assert users.verify("plc", b"password-1")
    assert len(calls) == 1
    assert not users.verify("plc", b"password-2")
    assert not users.verify("plc", b"password-2")
    assert not users.verify("nobody", b"password-1")
    assert not users.verify("nobody", b"password-1")
    assert len(calls) == 3
    assert users.recall("plc", b"password-1") == (True, users.mark("plc"))
    assert users.recall("plc", b"password-2") == (False, None)
    assert users.recall("plc", b"password-3") == (None, None)
    assert users.recall("nobody", b"password-1") == (False, None)
    assert len(calls) == 3
    assert b"password-1" not in repr(users._good).encode()
    users.add("plc", b"password-3")
    assert users.recall("plc", b"password-1") == (None, None)


def test_the_memory_of_good_sign_ins_is_bounded(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ever new users can't fill the memory."""
    monkeypatch.setattr(users_module, "_CACHED", 3)
    users = Users(file)
    for number in range(10):
        users._remember(users._good, bytes([number]), "hash")
    assert list(users._good) == [bytes([number]) for number in (7, 8, 9)]


def test_an_unknown_name_costs_a_hash_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time does not tell whether a name exists: both ways do the same work."""
    users = Users(file)
    users.add("plc", b"x")
    checked: list[str] = []
    hasher = users_module._HASHER
    real = type(hasher).verify
    monkeypatch.setattr(
        type(hasher),
        "verify",
        lambda self, known, given: (
            checked.append(known.rsplit("$", 2)[0]) or real(self, known, given)
        ),
    )
    assert not users.verify("plc", b"wrong")
    assert not users.verify("nobody", b"wrong")
    assert len(checked) == 2
    assert checked[0] == checked[1]  # same kind of hash, same cost


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "at least one"),
        ("a:b", "not ':'"),
        ("a b", "not ' '"),
        ("plc/1", "not '/'"),
        ("+", "not '\\+'"),
        ("a#", "not '#'"),
        ("a\nb", "not '\\\\n'"),
        ("-x", "begins with"),
        ("x" * 65, "at most 64"),
        ("%u", "not '%'"),
    ],
)
def test_a_name_that_means_something_elsewhere_is_refused(file: Path, name: str, said: str) -> None:
    """Names can't break the file, a topic filter, a log line or a command line."""
    with pytest.raises(UsageError, match=said):
        Users(file).add(name, b"x")
    assert not file.exists()


@settings(max_examples=300)
@given(st.text(max_size=70))
def test_a_name_that_is_accepted_is_harmless(name: str) -> None:
    """A name that passes has no character with a meaning in topics, files or terminals."""
    if name_problem(name) is None:
        assert not set(name) & set("+#/$:%*?\\ \t\r\n\0\x1b")
        assert name.isprintable()
        assert name == name.strip()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("good:HASH\nhunter2\n", "line 2: .*no colon"),
        ("plc:hunter2\n", "line 1: .*no argon2id hash"),
        ("plc:$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$hunter2\n", "line 1"),
        ("good:HASH\ngood:HASH\n", "line 2: .*second time"),
        ("a b:HASH\n", "line 1: .*not ' '"),
    ],
)
def test_a_broken_line_is_named_and_not_repeated(file: Path, lines: str, said: str) -> None:
    """The error has file, line and fix, but not the line: someone may have typed a password."""
    users = Users(file)
    users.add("good", b"x")
    known = file.read_text().partition(":")[2].strip()
    file.write_text(lines.replace("HASH", known))
    with pytest.raises(ConfigError, match=said) as caught:
        Users(file)
    assert str(file) in str(caught.value)
    assert "appliance user add" in str(caught.value) or "remove a line" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_breaks_while_running_locks_nobody_out(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A slip of the pen or a vanished file is logged once; the users known so far still come in."""
    users = Users(file)
    users.add("plc", b"x")
    text = file.read_text()
    file.write_text("oops, an editor's accident\n")
    for _ in range(3):
        assert users.verify("plc", b"x")
    assert not users.verify("plc", b"y")
    assert len(caplog.records) == 1
    assert "line 1" in caplog.text
    file.unlink()
    assert users.verify("plc", b"x")
    assert "gone" in caplog.text
    file.write_text(text.replace("plc:", "plc2:"))
    assert not users.verify("plc", b"x")
    assert users.verify("plc2", b"x")


@posix
def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    """A new file has mode 0600 with any umask; an existing one loses the world's rights."""
    before = os.umask(0)
    try:
        Users(file).add("a", b"x")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o664)
        Users(file).add("b", b"x")
        assert stat.S_IMODE(file.stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the users that were there still are, and no half file lies around."""
    users = Users(file)
    users.add("a", b"x")
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(ConfigError, match="No space left"):
        users.add("b", b"x")
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == ["users.txt"]
    assert users.names() == ("a",)


_KILLED = """
import os, sys
from appliance.broker.users import Users
from appliance.storage import files
real = files.sync_file
def dies(descriptor):
    real(descriptor)
    os.kill(os.getpid(), 9)
files.sync_file = dies
Users(sys.argv[1]).add("b", b"x")
"""


def test_killed_while_writing_leaves_the_old_file(file: Path) -> None:
    """kill -9 between writing and replacing: the old users are there and can be changed again."""
    Users(file).add("a", b"x")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(file)], check=False)
    assert done.returncode in (-9, 9)  # Windows has no signals: 9 is an exit code there
    users = Users(file)
    assert users.names() == ("a",)
    users.add("b", b"x")
    assert users.names() == ("a", "b")


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_a_permission_error(file: Path) -> None:
    """The exit code tells a service manager that restarting will not help."""
    file.write_text("")
    file.chmod(0)
    with pytest.raises(NoPermissionError):
        Users(file)


def test_many_threads_may_check_at_once(file: Path) -> None:
    """Sign-ins run in worker threads while the file changes; each gets the right answer."""
    users = Users(file)
    users.add("a", b"x")
    wrong: list[str] = []

    def check() -> None:
        for _ in range(3):
            if not users.verify("a", b"x"):
                wrong.append("right one refused")
            if users.verify("a", b"y"):
                wrong.append("wrong one let in")

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    users.add("b", b"y")
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_no_file_makes_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes are a users file or an error that the user can read."""
    file = tmp_path_factory.mktemp("u") / "users.txt"
    file.write_bytes(data)
    try:
        Users(file)
    except ApplianceError as error:
        assert str(file) in str(error)
