"""Other programs' Qlik clients against the server of ``appliance demo --qlik``, over HTTPS.

qsAPI and qrs-api-client come from PyPI, qrs-interact from npm. Where one can't be had, its test is
skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.demo.qlik_server import OfferedQlik, offered

pytestmark = pytest.mark.campaign

TIMEOUT_S = 110
COPY_FILES = "a6d0c9b4-7e21-4f58-93bc-0e5f8a1d2c77"
LINE_7 = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
LINE_8 = "2c6f0a94-7be1-4d38-8e52-1f9d3b7c6a05"
SUPPLIERS = "b40f9e2d-58c3-4716-8a6f-92d7c1e0b3f4"
SALES_APP = "c85a1f02-6d9e-4b37-a4c1-3e7f0b2d9654"

QSAPI = f"""
import json, sys
from qsAPI import QRS

qrs = QRS(proxy="127.0.0.1", port=int(sys.argv[1]), certificate=sys.argv[2] + "/client.pem",
          verbosity="WARNING")
started = qrs.TaskStartSynchronous("{LINE_7}").json()["value"]
session = qrs.driver.get("/qrs/executionsession/" + started).json()
print(json.dumps({{
    "ping": qrs.ping().text,
    "tasks": qrs.count("task"),
    "reload tasks": qrs.count("reloadtask", "enabled eq true"),
    "found": [each["name"] for each in qrs.TaskGet("name eq 'Reload line 7'")],
    "one": qrs.ReloadTaskGet("{LINE_7}")["name"],
    "session": session["reloadTask"]["id"],
    "start": qrs.TaskStart("{COPY_FILES}").status_code,
    "by name": qrs.TaskStartByName("Synchronise users").status_code,
    "by name, with id": len(qrs.TaskStartByNameSynchronous("Reload sales").json()["value"]),
    "many": qrs.TaskStartMany(["{LINE_8}", "{SUPPLIERS}"]).status_code,
    "stop": qrs.TaskStop("{LINE_7}").status_code,
    "stop many": qrs.TaskStopMany(["{LINE_8}"]).status_code,
    "app reload": qrs.AppReload("{SALES_APP}").status_code,
    "apps": qrs.AppDictAttributes()["Sales"],
    "enums": sorted(qrs.getEnum()),
}}))
"""

QRS_API_CLIENT = f"""
import json, sys, uuid
from qrs_api_client.auth import AuthManager
from qrs_api_client.client import QRSClient

folder = sys.argv[2]
client = QRSClient("127.0.0.1", int(sys.argv[1]), "certificate", AuthManager(
    folder + "/client.pem", folder + "/client_key.pem", folder + "/root.pem"))
def reload(wanted):
    return client.app_reload(uuid.UUID(wanted), poll_interval=0.5)
print(json.dumps({{
    "version": client.get("/qrs/about")["buildVersion"],
    "tasks": client.get("/qrs/task/count"),
    "app": [str(each) for each in client.app_get_id("Sales")],
    "status": client.get_enum("ExecutionResult.Status")[7],
    "task reload": reload("{LINE_7}")["success"],
    "failing reload": reload("{SUPPLIERS}")["success"],
    "app reload": reload("{SALES_APP}")["task"]["name"],
}}))
"""

QRS_INTERACT = f"""
const interact = require("qrs-interact");
const [port, proxyPort, folder] = process.argv.slice(2);
const certificates = {{certFile: folder + "/client.pem", keyFile: folder + "/client_key.pem"}};
const direct = new interact({{hostname: "127.0.0.1", portNumber: port, certificates}});
const proxied = new interact({{hostname: "127.0.0.1", portNumber: proxyPort, certificates,
    virtualProxyPrefix: "/header", headers: {{"hdr-usr": "INTERNAL\\\\someone"}}}});
(async () => {{
    const by = "reloadtask/full?filter=name eq 'Reload line 7'";
    const answers = {{
        version: (await direct.Get("about")).body.buildVersion,
        tasks: (await direct.Get("task/count")).body,
        found: (await direct.Get(by)).body.map(each => each.id),
        start: (await direct.Post("task/{COPY_FILES}/start")).statusCode,
        id: (await direct.Post("task/{LINE_7}/start/synchronous")).body.value.length,
        name: (await direct.Post("task/start?name=Reload sales")).statusCode,
        many: (await direct.Post("task/start/many", ["{LINE_8}"], "json")).statusCode,
        sessions: (await direct.Get("executionsession")).body.length,
        results: (await direct.Get("executionresult/full?orderby=startTime desc")).body.length,
        nothing: await direct.Get("nothing").catch(error => String(error)),
        proxied: (await proxied.Get("task/count")).body,
    }};
    console.log(JSON.stringify(answers));
}})();
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OfferedQlik]:
    with offered(tmp_path / "qlik") as made:
        yield made


def from_pypi(folder: Path, *packages: str) -> dict[str, str]:
    """Install packages into a folder; returns the environment to use them with."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{packages[0]} can't be installed from PyPI: {done.stderr[-200:]}")
    # These two would be trusted in place of root.pem.
    unwanted = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | {"PYTHONPATH": str(folder)}


def answers(*command: str, **more: object) -> dict[str, object]:
    """What a client's program printed, which is one JSON object."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_qsapi(server, tmp_path) -> None:
    env = from_pypi(tmp_path / "python", "qsAPI==2.2.0", "setuptools<81")  # it needs distutils
    got = answers(sys.executable, "-c", QSAPI, port(server.url), str(server.folder), env=env)
    assert got == {
        "ping": "Ping successful",
        "tasks": 9,
        "reload tasks": 6,
        "found": ["Reload line 7"],
        "one": "Reload line 7",
        "session": LINE_7,
        "start": 204,
        "by name": 204,
        "by name, with id": 36,
        "many": 204,
        "stop": 204,
        "stop many": 204,
        "app reload": 204,
        "apps": SALES_APP,
        "enums": ["StatusEnum", "TaskTypeEnum"],
    }


def test_qrs_api_client(server, tmp_path) -> None:
    """It verifies the server's certificate with root.pem, and follows a reload to its end."""
    env = from_pypi(tmp_path / "python", "qrs-api-client==2.7.0")
    got = answers(
        sys.executable, "-c", QRS_API_CLIENT, port(server.url), str(server.folder), env=env
    )
    assert got == {
        "version": "31.5.3.0",
        "tasks": {"value": 9},
        "app": [SALES_APP],
        "status": "7: FinishedSuccess",
        "task reload": True,
        "failing reload": False,
        "app reload": "Manually triggered reload of Sales",
    }


@pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"
)
def test_qrs_interact(server, tmp_path) -> None:
    """It sends bodies in chunks over connections that node keeps."""
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(tmp_path)]
    done = subprocess.run([*npm, "qrs-interact@6.3.1"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"qrs-interact can't be installed from npm: {done.stderr[-200:]}")
    program = tmp_path / "program.js"
    program.write_text(QRS_INTERACT)
    got = answers(
        "node", str(program), port(server.url), port(server.proxy_url), str(server.folder)
    )
    assert "404::No matching endpoint found" in str(got.pop("nothing"))
    assert got == {
        "version": "31.5.3.0",
        "tasks": {"value": 9},
        "found": [LINE_7],
        "start": 204,
        "id": 36,
        "name": 204,
        "many": 204,
        "sessions": 4,
        "results": 4,
        "proxied": {"value": 9},
    }


def port(url: str) -> str:
    return url.removeprefix("https://127.0.0.1:").partition("/")[0]
