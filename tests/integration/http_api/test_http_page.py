"""docs/http.md: what it offers for copying works against an appliance, and answers as it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_site import PASSWORD
from qlik_http_site import QlikHttpSite

from appliance.config.reading import loads
from appliance.counters import Counter
from appliance.http_api.openapi import document
from appliance.qlik.simulated import SimulatedTask, Site

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
CODE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPTS = [text for kind, text in CODE.findall(PAGE) if kind == "qlik"]
REQUEST = re.compile(r"SQL SELECT (.*?)\n\s*FROM (JSON|CSV).*?WITH CONNECTION \((.*?)\n *\);", re.S)
PROPERTY = re.compile(r'(URL|QUERY|HTTPHEADER|BODY) ((?:"(?:[^"]|"")*" ?)+)')
TEXT = re.compile(r'"((?:[^"]|"")*)"')


def curls() -> list[tuple[str, str]]:
    """Each command, and the JSON that the page shows behind it."""
    blocks = CODE.findall(PAGE)
    found = []
    for number, (kind, text) in enumerate(blocks):
        if kind == "sh":
            behind = blocks[number + 1]
            found.append((text, behind[1] if behind[0] == "json" else ""))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QlikHttpSite]:
    qlik = Site(trigger_delay_s=0.0)
    qlik.add_task(SimulatedTask("Reload sales", id=TASK, duration_s=0.05))
    rules = re.search(r"\[\[access.rule\]\]\n.*?\n\n", PAGE, re.DOTALL)[0]
    with QlikHttpSite(qlik, tmp_path_factory.mktemp("site"), rules, users=("etl",)) as found:
        assert found.start("Reload sales", "etl", "60").json()["state"] == "succeeded"
        yield found


def test_the_configuration_is_valid() -> None:
    for kind, text in CODE.findall(PAGE):
        if kind == "toml":
            loads(f'[[listener]]\nbind = "127.0.0.1:1883"\n{text}')


def test_every_call_of_the_table_is_there() -> None:
    """Methods and paths are those of the OpenAPI document."""
    known = {
        f"{method.upper()} {path}".replace("{number}", "{n}")
        for path, item in document(butler=False)["paths"].items()
        for method in item
    }
    table = PAGE.partition("|---|---|\n")[2].partition("\n\n")[0]
    named = set(re.findall(r"`((?:GET|POST) [^`]+)`", table))
    assert len(named) > 10
    assert named <= known


def test_every_counter_of_the_page_is_one() -> None:
    named = set(re.findall(r"`(http [a-z: ]+)`", PAGE))
    assert named
    assert named <= {each.label for each in Counter}


@pytest.mark.campaign
@pytest.mark.posix("the examples are for a shell of POSIX")
@pytest.mark.parametrize(("command", "shown"), curls())
def test_each_curl_is_answered_as_the_page_says(
    site: QlikHttpSite, command: str, shown: str
) -> None:
    """The members of the answer, and the form of their values."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    script = command.replace("http://127.0.0.1:8080", site.url).replace("PASSWORD", f'"{PASSWORD}"')
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=120, check=True)
    if "format=csv" in command:
        assert done.stdout.startswith(b"seq,time,topic,client,qos,retain,temperature,payload\r\n")
        return
    answer = json.loads(done.stdout)
    status = answer.get("status", 200)
    assert "since=yesterday" in command or status == 200, answer
    if shown:
        expected = json.loads(shown)
        assert expected.keys() <= answer.keys()
        for name, value in expected.items():
            assert type(answer[name]) is type(value) or answer[name] is None, name
        assert expected.get("status", 200) == status


def requests_of(script: str) -> list[tuple[list[str], str, dict[str, list[list[str]]]]]:
    """What the connector sends: the fields that are selected, the form, the properties."""
    found = []
    for fields, form, properties in REQUEST.findall(script):
        given: dict[str, list[list[str]]] = {}
        for name, values in PROPERTY.findall(properties):
            texts = [one.replace('""', '"') for one in TEXT.findall(values)]
            given.setdefault(name, []).append(texts)
        found.append((TEXT.findall(fields), form, given))
    return found


def test_the_scripts_ask_for_what_the_appliance_answers(site: QlikHttpSite) -> None:
    """Each request as the connector makes it, with the connection's user."""
    site.ask("POST", "/messages/plant/1/oven", "etl", data=b'{"a": "b,\\"c"}')
    variables = {
        "vUrl": "",
        "vBody": '{"app": "Sales", "rows": 7}',
        "vKey": "sales-20261130",
        "vExecution": "1",
        "vLast": "0",
    }
    count = 0
    for script in SCRIPTS:
        assert script.count("WITH CONNECTION") == len(requests_of(script))
        method = "GET"
        for fields, form, given in requests_of(script):
            count += 1
            place = script.index(given["URL"][0][0])
            method = re.findall(r"LIB CONNECT TO 'Appliance (\w+)'", script[:place])[-1]

            def filled(text: str) -> str:
                return re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], text)

            answer = site.ask(
                method,
                filled(given["URL"][0][0]),
                "etl",
                params=[(one[0], filled(one[1])) for one in given.get("QUERY", [])],
                headers={one[0]: filled(one[1]) for one in given.get("HTTPHEADER", [])},
                data=filled(given["BODY"][0][0]) if "BODY" in given else None,
            )
            assert answer.status_code == 200, answer.text
            if form == "CSV":
                assert set(fields) <= set(answer.text.splitlines()[0].split(","))
            else:
                assert set(fields) <= answer.json().keys()
    assert count == 4
    body = re.search(r"vBody = '(.*)'", SCRIPTS[0])[1].replace('""', '"')
    json.loads(body.replace("$(vRows)", "7"))


def test_the_powershell_can_be_read() -> None:
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_powershell")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    for kind, text in CODE.findall(PAGE):
        if kind == "powershell":
            assert not parser.parse(text.encode()).root_node.has_error
