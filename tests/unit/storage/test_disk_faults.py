"""Errors of the disk are told from defects, in an operator's words."""

import contextlib
import errno
import sqlite3

import pytest

from appliance.config.tables import Config
from appliance.engine.service import Appliance
from appliance.errors import UnavailableError
from appliance.storage.sqlite import disk_fault
from appliance.tasks.internal_errors import InternalErrors


def sqlite_error(code):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


FAULTS = [
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    (sqlite_error(sqlite3.SQLITE_IOERR), "the disk reports an error"),
    (sqlite_error(sqlite3.SQLITE_IOERR_READ), "the disk reports an error"),
    (sqlite_error(sqlite3.SQLITE_FULL), "the disk is full"),
    (sqlite_error(sqlite3.SQLITE_READONLY), "the database or its disk is read-only"),
    (sqlite_error(sqlite3.SQLITE_CORRUPT), "the database is damaged; a restart will set it aside"),
]
DEFECTS = [
    ValueError("x"), ConnectionResetError(errno.ECONNRESET, "reset"), sqlite3.ProgrammingError("x"),
    sqlite_error(sqlite3.SQLITE_ERROR), FileNotFoundError(errno.ENOENT, "not found"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words"), FAULTS)
def test_a_fault_of_the_disk_has_words(error, words):
    """They are the reason, wherever it is met."""
    assert disk_fault(error) == words


@pytest.mark.parametrize("error", DEFECTS)
def test_any_other_error_is_none(error):
    """A wrong statement or a lost connection says nothing about the disk."""
    assert disk_fault(error) is None


@pytest.mark.parametrize(("error", "words"), [FAULTS[0], FAULTS[3]])
def test_a_start_on_a_disk_that_fails_is_no_defect(tmp_path, monkeypatch, error, words):
    """It ends with 69 and names the data directory, whatever met the error."""
    monkeypatch.setattr(
        "appliance.engine.databases.upgrade", lambda *_: (_ for _ in ()).throw(error)
    )
    config = Config()
    one = Appliance(
        type(config)(**{"service": type(config.service)(data_dir=str(tmp_path / "data"))})
    )
    with pytest.raises(UnavailableError, match=words) as raised:
        one.start()
    assert str(tmp_path / "data") in str(raised.value)
    assert raised.value.exit_code == 69


@pytest.mark.parametrize(("error", "words"), [FAULTS[0], FAULTS[3]])
def test_a_thread_of_the_tasks_that_meets_a_dead_disk_reports_no_defect(caplog, error, words):
    """One line without a traceback; the thread is run again."""
    works = iter([error, None])

    def work():
        if (failure := next(works)) is not None:
            raise failure

    InternalErrors().supervise("tasks-journal", work, lambda _pause_s: False)
    with contextlib.suppress(StopIteration):
        assert next(works) is None
    (record,) = caplog.records
    assert record.exc_info is None
    assert f"waits for the disk: {words}" in record.getMessage()
    assert "defect" not in record.getMessage()
