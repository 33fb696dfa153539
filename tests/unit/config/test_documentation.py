"""docs/configuration.md is complete and up to date, and its examples are valid."""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from pathlib import Path

import msgspec
import pytest

from appliance.config.reading import loads
from appliance.config.tables import Config
from appliance.config.tables import Table
from appliance.errors import ConfigError

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_says_what_the_code_does() -> None:
    """Every key with its type, default and meaning is in the page as the code has it now."""
    subprocess.run([sys.executable, ROOT / "scripts" / "document-config", "--check"], check=True)


def test_every_table_of_the_configuration_has_a_section() -> None:
    """No table can be added without its documentation."""
    for field in msgspec.structs.fields(Config):
        if field.name != "file":
            assert re.search(rf"^## \[+{field.name}\]+$", PAGE, re.MULTILINE), field.name


def test_the_minimal_example_is_valid() -> None:
    """What the page offers for copying is accepted as it stands."""
    [example] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert loads(example).trigger[0].topic == "qliksense/start_task"


def sections() -> list[tuple[str, str]]:
    found = []
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
        for example in re.findall(r"For example `(.*?)`\.", body):
            found.append((heading, example.replace("\\|", "|")))
    return found


NEEDED = {
    "[[trigger]]": {
        "topic": "topic = 'a/+'",
        "task": "task = 'payload'",
        "debounce": "debounce='1s'",
    },
    "[[bridge]]": {"name": "name = 'n'", "host": "host = 'h'"},
    "[[bridge.subscribe]]": {"topic": "topic = 'plant/a'"},
    "[[bridge.publish]]": {"topic": "topic = 'appliance/a'"},
    "[[recorder]]": {"topic": "topic = 'a'", "path": "path = 'a'"},
    "[qlik]": {"edition": "edition = 'simulated'"},
    "[[access.plugins]]": {"class": "class = 'amqtt.plugins.logging_amqtt.EventLoggerPlugin'"},
    "[[outcome]]": {"topic": "topic = 'a/{task}'"},
    "[[notify]]": {"url": "url = 'json://localhost'"},
    "[[timer]]": {
        "name": "name = 'n'",
        "every": "every = '1s'",
        "publish": "publish = {topic = 'a'}",
    },
}
INNER = {
    "header": {"name": "name = 'x'"},
    "publish": {"topic": "topic = 'x'"},
    "database": {"url": "url = 'postgresql://db/messages'"},
    "rotate": {},
    "keep": {},
    "upload": {},
}
OTHERS = {
    "key": "mode = 'latest'",
    "compression": "rotate = {size = '1MB'}",
    "keep": "rotate = {size = '1MB'}",
    "upload": "rotate = {size = '1MB'}",
}
"""Keys that others of ``[[recorder]]`` need beside them."""


@pytest.mark.parametrize(("heading", "example"), sections())
def test_every_example_of_a_key_is_valid(heading: str, example: str) -> None:
    """Each example in the page can be written into its table as it stands."""
    table, _, inner = heading.partition(" ")
    key = example.partition(" ")[0]
    if inner:
        keys = {**INNER.get(inner, {"certfile": "certfile = 'a'", "keyfile": "keyfile = 'b'"})}
        if key == "crl_file":
            keys["client_ca"] = "client_ca = 'c'"
        keys[key] = example
        example, key = f"{inner} = {{{', '.join(keys.values())}}}", inner
    lines = {**NEEDED.get(table, {}), key: example}
    if (table, key) == ("[[outcome]]", "text"):
        lines["form"] = "form = 'text'"
    if key in ("cron", "silence", "topic") and table == "[[timer]]":
        del lines["every"]
        lines |= {} if key == "cron" else {"silence": "silence = '1s'", "topic": "topic = 'a'"}
        lines[key] = example
    qlik = "edition = 'simulated'"
    if key == "variables":
        lines.setdefault("task", "task = {app = 'a'}")
        qlik = "edition = 'cloud'\nurl = 'https://a.b'\napi_key = 'x'"
    if table == "[[bridge]]" and not inner:
        lines["user"] = "" if key == "username" else "username = 'u'"
        lines["web"] = "transport = 'websocket'" if key == "path" else ""
    if key == "url_file":
        del lines["url"]
    if table == "[[recorder]]":
        lines["other"] = OTHERS.get(key, "")
        if key == "database":
            del lines["path"]
    text = f"{table}\n" + "\n".join(lines.values()) + "\n"
    if table.startswith("[[bridge."):
        text = "[[bridge]]\n" + "\n".join(NEEDED["[[bridge]]"].values()) + "\n" + text
    for each in ("[qlik]", "[access]"):
        if each not in text:
            text += f"{each}\n" + (qlik if "q" in each else "users_file = 'u'") + "\n"
    try:
        loads(text, environ=dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x"))
    except ConfigError as error:
        pytest.fail(f"{error}\n{text}")


def kinds(kind: object) -> set[type]:
    found = {kind} if isinstance(kind, type) and issubclass(kind, Table) else set()
    for each in typing.get_args(kind):
        found |= kinds(each)
    return found


def test_every_key_says_what_it_means() -> None:
    """No key is without a text (the generator would leave its row out or fail)."""
    left, seen = {Config}, set()
    while left:
        kind = left.pop()
        seen.add(kind)
        for field in msgspec.structs.fields(kind):
            left |= kinds(field.type) - seen
            if kind is not Config and not kind.__name__.startswith("By"):
                assert re.search(rf"^\| `{field.encode_name}` \|", PAGE, re.MULTILINE), field.name
