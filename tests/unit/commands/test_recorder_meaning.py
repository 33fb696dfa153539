"""What `appliance check` says of recorders, and what `check --connect` finds at their databases."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from appliance.commands.recorder_meaning import recorder_meaning, try_databases
from appliance.config.reading import loads

QLIK = '[qlik]\nedition = "cloud"\nurl = "https://a.b"\napi_key = "x"\n'


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('path = "/r/a.json"', "a/# to /r/a.json as json"),
        (
            'path = "/r/a.json"\nmetadata = true',
            "a/# to /r/a.json as json with time, topic and client",
        ),
        (
            'path = "/r/a.jsonl"\nformat = "jsonl"\nrotate = {size = "64MB", every = "1h"}\n'
            'compression = "gzip"\nkeep = {age = "30d", files = 9}',
            "a/# to /r/a.jsonl as jsonl, a new file at 64MB or every 1h, closed files compressed by "
            "gzip, closed files kept for 30d and up to 9 files",
        ),
        (
            'path = "/r/a.qvd"\nformat = "qvd"\nfields = {t = "data.t"}\nflatten = true\n'
            'upload = {space = "Plant", folder = "x"}',
            "a/# to /r/a.qvd as qvd, a row for each element of a list, fields t, a new file every 5m "
            "at the latest; its files go to Qlik Cloud, space Plant, folder x",
        ),
        (
            'path = "/r/a.csv"\nformat = "csv"\nmode = "latest"\nkey = "id"',
            "a/# to /r/a.csv as csv, the last message of each value of id",
        ),
        (
            'database = {url = "postgresql+psycopg://me:secret@db/m", table = "t"}',
            "a/# to postgresql://db/m, table t",
        ),
    ],
)
def test_a_recorder_is_said_in_one_line(keys: str, said: str) -> None:
    """Topic, target, form, and what becomes of its files; no secret."""
    config = loads(f'{QLIK}[[recorder]]\ntopic = "a/#"\n{keys}')
    shown = recorder_meaning(config.recorder[0]).replace("\\", "/")
    assert re.sub("[A-Z]:/", "/", shown) == said


def test_databases_are_tried_and_the_reason_has_no_secret(tmp_path: Path) -> None:
    """One that answers, and one that nobody serves."""
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = loads(
        f"[service]\ndata_dir = '{tmp_path}'\n"
        '[[recorder]]\ntopic = "a"\nname = "here"\ndatabase = {url = "sqlite:///m.sqlite"}\n'
        '[[recorder]]\ntopic = "a"\nname = "away"\n'
        f'database = {{url = "postgresql+psycopg://me:s3cr3t@127.0.0.1:{port}/m"}}\n'
    )
    here, away = try_databases(config)
    assert (here.level, "here" in here.text) == ("ok", True), here.text
    assert (away.level, away.exit_code) == ("bad", 69)
    assert away.text.startswith("recorder away: ")
    assert "s3cr3t" not in away.text
