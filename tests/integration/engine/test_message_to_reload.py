"""Message, file, Qlik Cloud, reload, outcome: the whole way, and kills at each step of it."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from appliance_process import QUICK, ApplianceProcess, free_port, until
from tmux_window import Window

from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.qlik.simulated.data_files import SimulatedSpace

pytestmark = pytest.mark.posix("SIGTERM does not ask for an ordered end")

APP = "b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733"
UPLOADED = "appliance/recorders/sensors/uploaded"
OUTCOME = f"appliance/tasks/{APP}/last"
CONFIG = f"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "cloud"
url = "URL"
api_key = "simulated-api-key"
timeout = "5s"
[[recorder]]
name = "sensors"
topic = "plant/{{line}}/{{sensor}}"
path = "recordings/sensors.qvd"
format = "qvd"
metadata = true
rotate = {{messages = 3}}
upload = {{space = "Production data", folder = "plant"}}
[[recorder]]
name = "told"
topic = "appliance/#"
path = "told.jsonl"
format = "jsonl"
metadata = true
[[trigger]]
topic = "{UPLOADED}"
task = {{app = "{APP}"}}
"""
ROWS = """
[[recorder]]
name = "rows"
topic = "plant/#"
path = "recordings/rows.csv"
format = "csv"
rotate = {messages = 4}
compression = "gzip"
keep = {files = 1}
upload = {}
"""
STATE = """
[[recorder]]
name = "now"
topic = "plant/#"
path = "now.json"
mode = "update"
upload = {}
"""


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as server:
        server.add_task("A", app_id=APP, app_name="Sensors", duration_s=0.1)
        yield server


def config(qlik: SimulatedQlik) -> str:
    return CONFIG.replace("URL", qlik.url)


def publish(port: int, count: int, first: int = 0) -> None:
    """Publish at QoS 1 and wait for the acknowledgements."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"press-{first}")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in range(first, first + count):
        client.publish("plant/7/oven", json.dumps({"n": number}), qos=1).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def told(process: ApplianceProcess, topic: str) -> list[dict[str, object]]:
    """The recorded messages of the appliance's own on a topic."""
    text = (process.data / "told.jsonl").read_text("utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    return [one for one in found if one["topic"] == topic]


def outcomes(process: ApplianceProcess, cause: object) -> list[dict[str, object]]:
    return [
        one["payload"] for one in told(process, OUTCOME) if one["payload"]["cause"]["seq"] == cause
    ]


def test_a_message_becomes_a_file_in_qlik_cloud_and_a_reload(
    tmp_path: Path, qlik: SimulatedQlik
) -> None:
    """Three messages make a file; its upload makes a message, that a reload, that an outcome."""
    space = qlik.cloud.data_files.add_space("Production data")
    with ApplianceProcess(tmp_path, config(qlik) + STATE, program=QUICK) as process:
        process.start()
        publish(process.port, 3)
        [file] = until(lambda: told(process, UPLOADED), "the file is told")
        name = file["payload"]["file"]
        assert re.fullmatch(r"plant/sensors-\d{12}-\d{12}\.qvd", name)
        assert file["payload"]["messages"] == 3
        assert (
            qlik.cloud.data_files.contents(space)[name]
            == (process.data / "recordings" / Path(name).name).read_bytes()
        )
        [outcome] = until(lambda: outcomes(process, file["seq"]), "the outcome")
        assert (outcome["state"], outcome["taskId"]) == ("succeeded", APP)
        until(
            lambda: b'"n"' in qlik.cloud.data_files.contents().get("now.json", b""),
            "the last values",
        )
        assert process.end() == 0
    assert len(qlik.site.runs()) == 1


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_row_of_an_upload_has_task_and_outcome(tmp_path: Path) -> None:
    """On a terminal of 80 by 24: the file, and the reload from its start to its end, in one row;
    its page has file, messages and steps. The simulated tenant is the one within the appliance."""
    port = free_port()
    (tmp_path / "config.toml").write_text(
        f"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:{port}"
[qlik]
edition = "simulated"
[[recorder]]
name = "sensors"
topic = "plant/#"
path = "recordings/sensors.qvd"
format = "qvd"
rotate = {{messages = 3}}
upload = {{folder = "plant"}}
[[trigger]]
topic = "{UPLOADED}"
task = {{name = "Reload line 7"}}
""",
        "utf-8",
    )
    window = Window(tmp_path, f"{sys.executable} -m appliance run -c config.toml; exec cat")
    try:
        window.wait("all well")
        publish(port, 3)
        window.wait("sensors/uploaded", '"file": "plant/sensors')
        seen = window.wait("0 running", "24 h: 1 ✓")
        [row] = [line for line in seen.splitlines() if "sensors/uploaded" in line]
        assert re.search(r"✓ \d+s Reload", row)
        window.keys("End", "Enter")
        window.wait("plant/sensors-00", '"messages": 3', "What it led to", "✓ Reload line 7")
    finally:
        window.close()


@pytest.mark.campaign
def test_killed_while_the_file_arrives(tmp_path: Path, qlik: SimulatedQlik) -> None:
    """The file is there once, told once, and one reload answers it."""
    space = qlik.cloud.data_files.add_space("Production data")
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path="/data-files$", times=1)
    with ApplianceProcess(tmp_path, config(qlik), program=QUICK) as process:
        process.start()
        publish(process.port, 3)
        assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG_AFTER.value] == 1, 60)
        process.kill()
        qlik.heal()
        process.start()
        until(lambda: answered(process) == 1, "the outcome")
        assert process.end() == 0
        assert len(told(process, UPLOADED)) == 1
    assert_whole(qlik, space, 3, tmp_path)
    assert len(qlik.site.runs()) == 1


@pytest.mark.campaign
def test_killed_at_any_moment(tmp_path: Path, qlik: SimulatedQlik) -> None:
    """Each message is in one file, each file is told once, and each has its outcome."""
    space = qlik.cloud.data_files.add_space("Production data")
    qlik.cloud.data_files.endings.append("gz")
    moments = random.Random(17)
    sent = 0
    with ApplianceProcess(tmp_path, config(qlik) + ROWS, program=QUICK) as process:
        for _ in range(2):
            process.start()
            publish(process.port, 9, sent)
            sent += 9
            time.sleep(moments.uniform(0.0, 0.5))  # the moment of the kill
            process.kill()
        process.start()
        until(lambda: len(told(process, UPLOADED)) == sent // 3, "all files are told")
        until(lambda: answered(process) == sent // 3, "all outcomes")
        until(lambda: len(qlik.cloud.data_files.contents()) == sent // 4, "all compressed files")
        assert process.end() == 0
        files = [one["payload"]["file"] for one in told(process, UPLOADED)]
    assert len(set(files)) == len(files) == sent // 3
    assert_whole(qlik, space, sent, tmp_path)
    rows = [
        line
        for _, content in sorted(qlik.cloud.data_files.contents().items())
        for line in gzip.decompress(content).decode().splitlines()[1:]
    ]
    assert [int(row.partition(",")[0]) for row in rows] == list(range(sent // 4 * 4))
    assert 1 <= len(qlik.site.runs()) <= len(files)
    assert all(one.puts == 1 for one in qlik.cloud.data_files.files.values() if not one.is_folder)


def answered(process: ApplianceProcess) -> int:
    """How many requests for the reload have an outcome; one may answer several."""
    ended = [one["payload"] for one in told(process, OUTCOME)]
    assert {one["state"] for one in ended} <= {"succeeded"}
    return sum(1 + one["merged"] for one in ended)


def assert_whole(qlik: SimulatedQlik, space: SimulatedSpace, count: int, folder: Path) -> None:
    """Every message that was sent is in one of the files, and in no other."""
    openqvd = pytest.importorskip("openqvd")
    found: list[int] = []
    for content in qlik.cloud.data_files.contents(space).values():
        (folder / "read.qvd").write_bytes(content)
        found += openqvd.read(str(folder / "read.qvd")).to_pydict()["n"]
    assert sorted(found) == list(range(count))
