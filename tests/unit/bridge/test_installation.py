"""Promises about the text by which other brokers know an installation."""

from __future__ import annotations

import pytest

import threading
from concurrent.futures import ThreadPoolExecutor

from appliance.bridge.installation import FILE_NAME, installation_id
from appliance.errors import UnavailableError


def test_it_is_made_once_and_differs_from_every_other(tmp_path):
    found = installation_id(tmp_path)
    assert installation_id(tmp_path) == found
    assert len(found) == 20
    assert found.isalnum()
    (tmp_path / "other").mkdir()
    assert installation_id(tmp_path / "other") != found


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"x" * 10_000, b"../../etc/passwd\n"])
def test_a_damaged_one_is_made_anew_and_said(tmp_path, content, caplog):
    """Something else than our own letters would end in client ids and topics of others."""
    (tmp_path / FILE_NAME).write_bytes(content)
    found = installation_id(tmp_path)
    assert installation_id(tmp_path) == found
    assert "is damaged, and a new one is made" in caplog.text


def test_what_can_not_be_written_is_explained(tmp_path):
    with pytest.raises(UnavailableError, match="can't be used: .*Correct that"):
        installation_id(tmp_path / "missing")


def test_threads_that_ask_at_once_get_one_text(tmp_path):
    """Bridges and recorders of databases do; rows with a text that is lost would come again."""
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        together = threading.Barrier(4)

        def ask(folder=folder, together=together):
            together.wait()
            return installation_id(folder)

        with ThreadPoolExecutor(4) as threads:
            found = {each.result() for each in [threads.submit(ask) for _ in range(4)]}
        assert found == {installation_id(folder)}
