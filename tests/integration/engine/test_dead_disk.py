"""A disk that fails is said as the disk's fault: no traceback, no talk of a defect."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess
from paho.mqtt import publish

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.posix("the library that makes a disk fail is preloaded on Linux"),
]

SOURCE = Path(__file__).parents[2] / "disk_fault.c"
CONFIG = """
[service]
data_dir = "{folder}/data"
[[listener]]
bind = "127.0.0.1:PORT"
[[recorder]]
topic = "plant/#"
path = "{folder}/data/recordings/all.json"
"""
WORDS = {
    errno.EIO: ("disk reports an error", "Input/output error", "disk I/O error"),
    errno.ENOSPC: ("disk is full", "No space left"),
    errno.EROFS: ("read-only", "Read-only", "disk reports an error"),
}
"""Besides, SQLite may only tell that it can't open or read a file."""
ANY = ("can't be opened", "is damaged", "unable to open")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a C compiler on Linux makes the library that makes a disk fail")
    made = tmp_path_factory.mktemp("library") / "disk_fault.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", "-o", made, SOURCE, "-ldl", "-lpthread"], check=True
    )
    return made


@pytest.fixture
def begin(library, monkeypatch):
    """Begins a process whose disk fails; it is killed at the end."""
    begun = []

    def make(folder, fault, *arguments):
        folder.mkdir(exist_ok=True)
        one = ApplianceProcess(folder, CONFIG.format(folder=folder))
        begun.append(one)
        with monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(library))
            patch.setenv("DISK_FAULT_FOLDER", str(folder / "data"))
            for name, value in fault.items():
                patch.setenv(f"DISK_FAULT_{name}", str(value))
            one.begin(*arguments)
        return one

    yield make
    for one in begun:
        if one.process.poll() is None:
            one.kill()


def assert_told(one, number):
    text = "\n".join(one.lines)
    assert "Traceback" not in text, text
    assert "defect" not in text, text
    assert "nother program" not in text, text
    assert any(word in text for word in (*WORDS[number], *ANY)), text


def fails_at(begin, folder, number, operations):
    """A start whose disk fails after so many operations is told as that."""
    one = begin(folder, {"ERROR": number, "AFTER": operations}, "--run-for", "1ms")
    assert one.exit_code(40) in {69, 77}, one.lines
    assert_told(one, number)


@pytest.mark.parametrize("number", WORDS, ids=errno.errorcode.get)
def test_a_disk_that_fails_at_any_moment_of_a_start_is_named(begin, tmp_path, number):
    """Of a first start, and of one with an existing data directory."""
    first = ApplianceProcess(tmp_path / "first", CONFIG.format(folder=tmp_path / "first"))
    with first.start():
        publish.single("plant/a", "1", qos=1, hostname="127.0.0.1", port=first.port)
        assert first.end() == 0
    instants = (20, 100, 170, 190) if number == errno.EIO else (150,)
    for operations in instants:
        for is_first in (True, False):
            folder = tmp_path / f"{operations}-{is_first}"
            folder.mkdir()
            if not is_first:
                shutil.copytree(tmp_path / "first" / "data", folder / "data")
            fails_at(begin, folder, number, operations)


@pytest.mark.parametrize("number", WORDS, ids=errno.errorcode.get)
def test_a_disk_that_fails_for_a_while_is_named_and_used_again(begin, tmp_path, number):
    """Nothing is acknowledged meanwhile; a few lines, then all goes on."""
    dead = tmp_path / "dead"
    one = begin(tmp_path / "one", {"ERROR": number, "WHEN": dead})
    one.wait_for_line("listening on")
    publish.single("plant/a", "1", qos=1, hostname="127.0.0.1", port=one.port)
    dead.touch()
    client = subprocess.Popen(
        [sys.executable, "-c", "import sys; from paho.mqtt import publish; "
         "publish.single('plant/a', '2', qos=1, hostname='127.0.0.1', port=int(sys.argv[1]))",
         str(one.port)], env=os.environ
    )  # fmt: skip
    one.wait_for_line("can't be written")
    one.wait_for_line("requests of other commands are not answered")
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(2)
    dead.unlink()
    assert client.wait(10) == 0
    assert one.end() == 0
    assert_told(one, number)
    assert len([line for line in one.lines if " ERROR " in line]) < 10
