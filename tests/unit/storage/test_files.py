"""Promises about files that every other part leans on."""

import os
import signal
import subprocess
import sys

import pytest

from appliance.storage import files
from appliance.errors import EXIT_UNAVAILABLE, NoPermissionError, UnavailableError

_HOLDER = """
import sys
from pathlib import Path
from appliance.storage.files import DirectoryLock
DirectoryLock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline().strip() == b"locked"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_second_appliance_is_told_who_holds_the_directory(tmp_path, holder):
    """A second appliance on one data directory ends with a text that names directory and pid."""
    with pytest.raises(UnavailableError) as caught:
        files.DirectoryLock(tmp_path).acquire()
    assert str(tmp_path) in str(caught.value)
    assert f"pid {holder.pid}" in str(caught.value)
    assert caught.value.exit_code == EXIT_UNAVAILABLE


def test_killed_holder_leaves_no_lock(tmp_path, holder):
    """After kill -9 the appliance starts again without anything to clean up."""
    holder.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    holder.wait()
    with files.DirectoryLock(tmp_path):
        assert (tmp_path / "appliance.lock").read_text().strip() == str(os.getpid())


@pytest.mark.posix("only administrators make links on Windows")
def test_lock_overwrites_nothing_behind_a_link(tmp_path):
    """A link that another user left in the place of the lock file is refused, with what to do."""
    foreign = tmp_path / "foreign"
    foreign.write_text("kept")
    (tmp_path / "appliance.lock").symlink_to(foreign)
    with pytest.raises(UnavailableError, match="Remove the link"):
        files.DirectoryLock(tmp_path).acquire()
    assert foreign.read_text() == "kept"


def test_lock_can_be_taken_again_after_release(tmp_path):
    """A stopped appliance gives its directory back, also within one process."""
    with files.DirectoryLock(tmp_path / "new"):
        pass
    with files.DirectoryLock(tmp_path / "new"):
        pass


def test_directory_that_can_not_be_made_is_an_error_for_people(tmp_path):
    """A data_dir below a file is reported as such, not as a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises((UnavailableError, NoPermissionError), match="data_dir"):
        files.DirectoryLock(tmp_path / "file" / "data").acquire()


def test_replaced_file_is_old_or_new(tmp_path):
    """If the new content can't be written, the old file stays as it was and nothing lies about."""
    path = tmp_path / "file"
    files.replace_file(path, b"old")
    (tmp_path / "file.new").mkdir()
    with pytest.raises(OSError):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    (tmp_path / "file.new").rmdir()
    files.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [path] == list(tmp_path.iterdir())


def test_setting_aside_never_overwrites(tmp_path):
    """Two files set aside within one second are both kept."""
    path = tmp_path / "x.json"
    kept = []
    for content in ("one", "two", "three"):
        path.write_text(content)
        kept.append(files.set_aside(path, "before", 1_700_000_000_000_000_000))
    assert [target.read_text() for target in kept] == ["one", "two", "three"]
    assert kept[0].name == "x.json.before-20231114T221320Z"
    assert not path.exists()


def test_free_space_is_known(tmp_path):
    """The UI can show how much room the disk has."""
    assert files.free_bytes(tmp_path) > 0


@pytest.mark.posix("Windows does not count sockets as files")
def test_limit_of_open_files_is_raised_as_far_as_it_goes():
    """A low limit of open files is raised to what is needed, and it is told if that can't be."""
    asks = """
import resource
from appliance.storage.files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
print(allow_open_files(100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(allow_open_files(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "100", "False", "128"]


def test_a_path_whose_links_can_not_be_followed_is_taken_as_it_is_written(tmp_path, monkeypatch):
    """On Windows following links raises for some paths, for example long ones."""

    def refuse(path):
        raise OSError(234, "More data is available", str(path))

    assert files.real_path(tmp_path / "a" / ".." / "b") == os.path.realpath(tmp_path / "b")
    monkeypatch.setattr(files.os.path, "realpath", refuse)
    assert files.real_path(tmp_path / "a" / ".." / "b") == str(tmp_path / "b")


def test_an_error_says_that_a_path_may_be_too_long_for_windows(tmp_path, monkeypatch):
    """259 characters are allowed; elsewhere, and for shorter paths, nothing is added."""
    short, long = "C:\\" + "a" * 256, "C:\\" + "a" * 257
    monkeypatch.setattr(files.sys, "platform", "linux")
    assert files.long_path_hint(long) == ""
    monkeypatch.setattr(files.sys, "platform", "win32")
    assert files.long_path_hint(short) == ""
    assert "260 characters" in files.long_path_hint(long)
