"""docs/qlik-data.md: its configurations are valid, and its scripts ask for what recorders write."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import msgspec
import pytest

from appliance.config.reading import loads
from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.formats import is_of_parts, make_format
from appliance.recorders.table_maker import TableMaker

PAGE = (Path(__file__).parents[3] / "docs" / "qlik-data.md").read_text("utf-8")
PAYLOAD = b'{"temperature": 21.5, "unit": "C", "order": {"id": "A-17"}}'
MESSAGE = Message(7, 1_700_000_000_000_000_000, "plant/7/oven", PAYLOAD, client_id="press")


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def environment(text: str) -> str:
    """The tables that an example leaves to the reader."""
    more = "" if "[qlik]" in text else '[qlik]\nedition = "simulated"\n'
    return f'{more}[[listener]]\nbind = "127.0.0.1:1883"\n{text}'


def recorders() -> dict[str, RecorderConfig]:
    """The recorders of the page, the first one of each name."""
    found: dict[str, RecorderConfig] = {}
    for text in blocks("toml"):
        for recorder in loads(environment(text)).recorder:
            found.setdefault(recorder.used_name, recorder)
    return found


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_configuration_is_valid(text: str) -> None:
    """What the page offers for copying is accepted as it stands."""
    loads(environment(text))


def written(config: RecorderConfig) -> set[str]:
    """The field names that Qlik finds in what a recorder writes."""
    if config.database is not None or is_of_parts(config.format):
        return {column.name for column in TableMaker(config).take([MESSAGE]).columns}
    made = make_format(config)
    head, body = made.opening(MESSAGE), made.elements([MESSAGE])
    text = (head + b"".join(body) + made.closing).decode()
    if config.format == "csv":
        return set(next(csv.reader(text.splitlines())))
    return set(json.loads(text)[0])


SCRIPTS = blocks("qlik")
FIELDS = re.compile(r"(?:LOAD|SELECT)\s+(.*?)(?=;|\s+FROM\b|\s+RESIDENT\b)", re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_asks_for_fields_that_the_recorder_writes(script: str) -> None:
    """In the format that the script reads, with the recorder of the page."""
    name, form = re.match(r"// recorder: (\w+), (?:format )?(\w+)", script).groups()  # type: ignore[union-attr]
    config = recorders()[name]
    if form != "database":
        changes = {"time_field": "received", "metadata": False} if form == "json" else {}
        config = msgspec.structs.replace(config, format=form, **changes)
    known = written(config) | {"newest"}
    lists = FIELDS.findall(script)
    assert lists
    for fields in lists:
        # What functions are given stands in parentheses; the field that they read is among it.
        plain = re.sub(r"'[^']*'", "", fields)
        names = set(re.findall(r"[A-Za-z_][\w.]*(?!\w*\()", plain))
        used = names - {"AS", "Timestamp", "Num", "Replace", "Left", "Max", "Peek", "Alt"}
        assert used <= known, f"{used - known} in {fields}"


def test_every_format_for_qlik_has_a_script() -> None:
    """Files and the database; what the page says is not for Qlik has none."""
    found = {re.search(r"(?:format )?(\w+)$", one.splitlines()[0])[1] for one in SCRIPTS}  # type: ignore[index]
    assert found == {"qvd", "parquet", "csv", "json", "database"}
