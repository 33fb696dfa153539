"""What a start finds missing is said until an operator acknowledges it; messages go on meanwhile."""

import json
import shutil
from contextlib import contextmanager

import pytest
from appliance_process import until

from appliance import cli
from appliance.config.reading import load
from appliance.engine.losses import FILE_NAME, Losses
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.errors import UsageError
from appliance.ops import health
from appliance.problems import acknowledged, problems

CONFIG = """
[service]
data_dir = "{folder}/data"
[[listener]]
bind = "127.0.0.1:0"
[[recorder]]
topic = "plant/#"
path = "{folder}/data/all.jsonl"
format = "jsonl"
"""


@pytest.fixture
def life(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=tmp_path.as_posix()), "utf-8")

    @contextmanager
    def living():
        one = Appliance(load(config))
        one.start()
        try:
            yield one
        finally:
            one.stop()
            assert one.wait(20)

    return living


def put(one, *payloads):
    for payload in payloads:
        View(one).publish("plant/a", payload.encode(), 1, False, "test")


def recorded(folder):
    return (folder / "data" / "all.jsonl").read_text("utf-8").split()


def until_recorded(folder, *payloads):
    until(lambda: recorded(folder) == list(payloads), f"{payloads} are recorded")


def test_a_journal_that_is_gone_is_said_until_it_is_acknowledged(life, tmp_path, caplog):
    """Log, health and terminal name the messages, over restarts; new ones are taken meanwhile."""
    with life() as one:
        put(one, "1", "2", "3")
        until_recorded(tmp_path, "1", "2", "3")
        assert View(one).snapshot().data is None
    for each in (tmp_path / "data").glob("journal.db*"):
        each.unlink()
    for restart in range(2):
        caplog.clear()
        with life() as one:
            found = View(one).snapshot()
            assert found.data.level == "bad"
            assert "are missing in the journal" in found.data.text
            assert "appliance acknowledge" in found.data.text
            (line,) = [one for one in caplog.messages if "The journal ends at message 0" in one]
            assert line.startswith("not acknowledged yet" if restart else "The journal ends")
            report = health.report(found)
            assert (report.is_bad, report.is_accepting) == (True, True)
            assert found.journal.health.level != "bad"
            put(one, str(restart + 4))
            until_recorded(tmp_path, *"12345"[: restart + 4])
    with life() as one:
        assert len(View(one).acknowledge("anna")) == 1
        assert View(one).snapshot().data is None
        assert View(one).acknowledge("anna") == []
        assert "anna acknowledges: The journal ends at" in caplog.text
    with life() as one:
        assert View(one).snapshot().data is None


def test_who_knew_of_a_loss_and_why_is_listed(life, tmp_path):
    """As one problem among others, from a terminal, and as all losses, from the command line."""
    with life() as one:
        put(one, "1")
        until_recorded(tmp_path, "1")
    for number, acknowledge in enumerate(
        (
            lambda view, lost: view.acknowledge_problem(*lost.identity, "old copy", "anna"),
            lambda view, _lost: view.acknowledge("anna", "old copy"),
        ),
        2,
    ):
        for each in (tmp_path / "data").glob("journal.db*"):
            each.unlink()
        with life() as one:
            view = View(one)
            (lost,) = problems(view.snapshot())
            acknowledge(view, lost)
            assert problems(view.snapshot()) == []
            assert not health.report(view.snapshot()).is_bad
            (known,) = acknowledged(view.snapshot())
            assert (known.by, known.note) == ("anna", "old copy")
            assert "The journal ends at message 0" in known.text
            with pytest.raises(UsageError, match="not kept any more"):
                view.unacknowledge_problem(known.kind, known.name, "anna")
            put(one, str(number))
            until_recorded(tmp_path, *"123"[:number])


@pytest.mark.parametrize("name", ["journal.db", "tasks.db", "recorders.db"])
def test_a_database_that_was_set_aside_is_said_until_it_is_acknowledged(life, tmp_path, name):
    """Each of the three."""
    with life() as one:
        put(one, "1")
        until_recorded(tmp_path, "1")
    path = tmp_path / "data" / name
    path.write_bytes(b"\xaa" * path.stat().st_size)
    with life():
        pass
    with life() as one:
        found = View(one).snapshot().data
        assert found.level == "bad"
        assert f"{name} is damaged" in found.text
        View(one).acknowledge("anna")
        assert View(one).snapshot().data is None


def test_an_older_journal_among_newer_files_starts_nothing_anew(life, tmp_path):
    """What the followers have read and the journal lacks is named; nothing is recorded twice."""
    data = tmp_path / "data"
    with life() as one:
        put(one, "1", "2")
        until_recorded(tmp_path, "1", "2")
    shutil.copy(data / "journal.db", tmp_path / "older.db")
    with life() as one:
        put(one, "3", "4")
        until_recorded(tmp_path, "1", "2", "3", "4")
        last = one.journal.last_seq
    shutil.copy(tmp_path / "older.db", data / "journal.db")
    with life() as one:
        text = View(one).snapshot().data.text
        assert "are missing in the journal" in text
        put(one, "5")
        until_recorded(tmp_path, "1", "2", "3", "4", "5")
        assert one.journal.last_seq > last


def test_the_command_acknowledges(tmp_path, capsys):
    """``appliance acknowledge`` names what it acknowledges; without an appliance it says so."""
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=tmp_path.as_posix()), "utf-8")
    assert cli.main(["acknowledge", "-c", str(config)]) == 69
    assert "No appliance runs" in capsys.readouterr().err


def test_losses_that_are_known_are_not_said_again(tmp_path):
    """The same damage is met again at each start; other damage is news."""
    losses = Losses(tmp_path)
    losses.note("Messages 1 to 4 are damaged.")
    losses.note("Messages 1 to 4 are damaged.")
    losses.note("Messages 7 to 9 are damaged.")
    assert losses.acknowledge() == ["Messages 1 to 4 are damaged.", "Messages 7 to 9 are damaged."]
    again = Losses(tmp_path)
    again.note("Messages 1 to 4 are damaged.")
    assert again.health is None
    again.note("Message 12 is damaged.")
    assert "Message 12" in Losses(tmp_path).health.text


def test_a_thousand_losses_are_bounded(tmp_path):
    """The log has them all; the file and the health stay small."""
    losses = Losses(tmp_path)
    for number in range(300):
        losses.note(f"Message {number} is damaged.")
    assert len(json.loads((tmp_path / FILE_NAME).read_bytes())["losses"]) == 100
    assert len(losses.health.text) < 200


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"losses": 1}'])
def test_a_damaged_file_of_losses_is_said(tmp_path, caplog, content):
    """It is no reason not to start."""
    (tmp_path / FILE_NAME).write_bytes(content)
    losses = Losses(tmp_path)
    assert losses.health is None
    assert f"{FILE_NAME} can't be read" in caplog.text
    losses.note("Message 12 is damaged.")
    assert Losses(tmp_path).health is not None
