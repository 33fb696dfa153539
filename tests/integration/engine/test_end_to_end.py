"""The main job, end to end: a message comes in, a reload starts, the message is on disk."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import uuid

import certificates
import paho.mqtt.client as mqtt
import pytest
from appliance_process import QUICK, ApplianceProcess, free_port, until

from appliance.broker.users import Users
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.faults import FaultKind
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import Outcome, SimulatedTask

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
FAILING = "b40f9e2d-58c3-4716-8a6f-92d7c1e0b3f4"

CONFIG = (
    """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
"""
    + certificates.QLIK_CONFIG
    + """
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[recorder]]
topic = "/demo/integers"
path = "recordings/integers.json"
format = "json"
"""
)


def qlik_in(folder):
    """A Qlik server over HTTPS that demands a client certificate, as port 4242 does."""
    files = certificates.make(folder / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    tasks = [
        SimulatedTask("Reload line 7", id=TASK, duration_s=0.2),
        SimulatedTask("Reload suppliers", id=FAILING, duration_s=0.2, outcomes=(Outcome.FAIL,)),
    ]
    return SimulatedQlik(tasks, tls=tls)


def appliance_in(folder, qlik):
    """An appliance that is set up and not started, with the user wiredflow."""
    process = ApplianceProcess(folder, CONFIG.format(url=qlik.url), program=QUICK)
    Users(folder / "users.txt").add("wiredflow", b"wiredflow")
    return process


@pytest.fixture
def qlik(tmp_path):
    with qlik_in(tmp_path) as server:
        yield server


@pytest.fixture
def appliance(tmp_path, qlik):
    with appliance_in(tmp_path, qlik) as process:
        yield process


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A Qlik server and an appliance for all tests that leave both as they are."""
    folder = tmp_path_factory.mktemp("running")
    with qlik_in(folder) as server, appliance_in(folder, server) as process:
        process.start()
        yield process, server
        assert process.end() == 0
        assert "Traceback" not in "\n".join(process.lines)


def add_user(process: ApplianceProcess, name: str, password: str) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "appliance",
            "user",
            "add",
            name,
            "--password-stdin",
            "-c",
            str(process.config),
        ],
        input=password,
        text=True,
        check=True,
        capture_output=True,
        timeout=30,
    )


class Publisher:
    """A paho client that has signed in."""

    def __init__(self, port: int, *, version=mqtt.MQTTv311, password="wiredflow") -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=f"test-{uuid.uuid4()}", protocol=version
        )
        self.client.username_pw_set("wiredflow", password)
        self.client.on_message = lambda _c, _u, message: self.messages.append(message)
        self.client.reconnect_delay_set(0.05, 0.05)  # the end waits for it
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        until(self.client.is_connected, "paho connects")

    def publish(self, topic: str, payload: str | bytes, qos: int = 1, **more) -> None:
        info = self.client.publish(topic, payload, qos=qos, **more)
        info.wait_for_publish(20)
        assert info.is_published()

    def subscribe(self, topic_filter: str) -> None:
        done: list[int] = []
        self.client.on_subscribe = lambda *_: done.append(1)
        self.client.subscribe(topic_filter, 1)
        until(lambda: done, "subscribed")

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def recording(process: ApplianceProcess):
    return json.loads((process.data / "recordings" / "integers.json").read_text("utf-8"))


def test_a_message_starts_its_task_and_the_outcome_is_told(appliance, qlik):
    """A task id on the task start topic starts that task once, and its outcome is published: with
    the program and the command for a user as they are shipped."""
    appliance.program = ("-m", "appliance")
    (appliance.folder / "users.txt").unlink()
    add_user(appliance, "wiredflow", "wiredflow")
    appliance.start()
    with Publisher(appliance.port) as publisher:
        publisher.subscribe("appliance/tasks/#")
        publisher.publish("qliksense/start_task", f"  {TASK.upper()} \n")
        last = until(
            lambda: [m for m in publisher.messages if m.topic == f"appliance/tasks/{TASK}/last"],
            "the outcome is published",
        )
    outcome = json.loads(last[0].payload)
    assert outcome["state"] == "succeeded"
    assert outcome["taskName"] == "Reload line 7"
    assert qlik.starts(TASK) == 1
    post = next(seen for seen in qlik.posts if "start" in seen.path)
    assert post.path.lower() == f"/qrs/task/{TASK}/start/synchronous"
    assert post.headers["x-qlik-xrfkey"] == post.query["xrfkey"]
    assert post.headers["x-qlik-user"] == "UserDirectory=INTERNAL;UserId=sa_repository"
    assert appliance.end() == 0


def test_every_accepted_form_of_payload_starts_its_task(running):
    """A bare id, {"taskId"}, a JSON string and a list of ids all start their task."""
    appliance, qlik = running
    failing = qlik.starts(FAILING)
    with Publisher(appliance.port) as publisher:
        for payload in (
            TASK,
            json.dumps({"taskId": TASK}),
            json.dumps(TASK),
            json.dumps([TASK, FAILING]),
        ):
            before = qlik.starts(TASK)
            publisher.publish("qliksense/start_task", payload)
            assert qlik.wait_for(lambda: qlik.starts(TASK) > before, 20), payload
            until(lambda: not qlik.site.sessions(), "the run ends")
        assert qlik.wait_for(lambda: qlik.starts(FAILING) == failing + 1, 20)


REJECTED = [
    ("not a task id", {"$text": "not a task id"}),
    ("{", {"$text": "{"}),
    ('{"taskId": 5}', {"taskId": 5}),
    ("", {"$text": ""}),
    ("[]", []),
    ("\x00", {"$text": "\x00"}),
    (b"\xff\xfe", {"$base64": "//4="}),
    (f"{TASK} {FAILING}", {"$text": f"{TASK} {FAILING}"}),
]


def test_what_is_not_a_task_is_rejected_and_kept(running):
    """Anything else starts nothing, is said in the log with a reason, and stays in the journal."""
    appliance, qlik = running
    before, lines = qlik.starts(), len(appliance.lines)
    with Publisher(appliance.port) as publisher:
        for payload, _ in REJECTED:
            publisher.publish("qliksense/start_task", payload)
        publisher.publish("qliksense/start_task", TASK)
        assert qlik.wait_for(lambda: qlik.starts(TASK) >= 1 and qlik.starts() > before, 20)
        until(lambda: not qlik.site.sessions(), "the run ends")
    assert qlik.starts() == before + 1
    said = [
        line
        for line in appliance.lines[lines:]
        if "WARN" in line and "on qliksense/start_task" in line and "started nothing" in line
    ]
    assert len(said) == len(REJECTED)
    kept = [m["payload"] for m in exported(appliance) if m["topic"] == "qliksense/start_task"]
    assert kept[-len(REJECTED) - 1 :] == [*(kept for _, kept in REJECTED), {"$text": TASK}]


REFUSALS = [
    ({"kind": FaultKind.STATUS, "status": 403, "text": "Forbidden"}, "403"),
    ({"kind": FaultKind.STATUS, "status": 404, "text": "Not found"}, "404"),
    ({"kind": FaultKind.LOGIN_PAGE}, "answered with"),
]


def test_a_server_that_says_no_is_explained_and_not_asked_again(running):
    """403, 404 and a login page: one clear line, one POST, the outcome is published, no traceback."""
    appliance, qlik = running
    for fault, part in REFUSALS:
        before, lines = qlik.starts(), len(appliance.lines)
        qlik.fail(method="POST", **fault)
        with Publisher(appliance.port) as publisher:
            publisher.subscribe("appliance/tasks/#")
            publisher.publish("qliksense/start_task", TASK)
            topic = f"appliance/tasks/{TASK}/last"
            last = until(
                lambda publisher=publisher, topic=topic: [
                    m for m in publisher.messages if m.topic == topic and not m.retain
                ],
                "the outcome is published",
            )
        qlik.heal()
        outcome = json.loads(last[0].payload)
        assert outcome["state"] == "rejected"
        assert part in outcome["reason"]
        assert qlik.starts() == before + 1
        assert any(part in line and "WARN" in line for line in appliance.lines[lines:])


def exported(process: ApplianceProcess) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "export", "-c", str(process.config)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_retained_and_redelivered_start_messages_start_nothing_again(appliance, qlik):
    """A retained start message starts its task once; a restart and a reconnect start nothing."""
    appliance.start()
    with Publisher(appliance.port) as publisher:
        publisher.publish("qliksense/start_task", TASK, retain=True)
        assert qlik.wait_for(lambda: qlik.starts(TASK) == 1, 20)
        until(lambda: not qlik.site.sessions(), "the run ends")
    assert appliance.end() == 0
    appliance.start()
    with Publisher(appliance.port) as publisher:
        publisher.subscribe("qliksense/#")
        until(
            lambda: [m for m in publisher.messages if m.retain], "the retained message is replayed"
        )
        publisher.publish("qliksense/start_task", FAILING)
        assert qlik.wait_for(lambda: qlik.starts(FAILING) == 1, 20)
    assert qlik.starts(TASK) == 1
    assert appliance.end() == 0


def test_the_recording_is_the_one_of_the_document(running):
    """Seven integers become exactly the JSON array that the document shows."""
    appliance, _ = running
    with Publisher(appliance.port) as publisher:
        for number in range(7):
            publisher.publish("/demo/integers", json.dumps({"Generated number": str(number)}))
            until(lambda: len(recording(appliance)) == number + 1, "it is recorded")
    text = (appliance.data / "recordings" / "integers.json").read_text("utf-8")
    assert text.startswith(
        '[\n  {\n    "Generated number": "0"\n  },\n  {\n    "Generated number": "1"\n  },'
    )
    assert text.rstrip().endswith('  {\n    "Generated number": "6"\n  }\n]')


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.campaign)])
def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(appliance, qlik, rounds):
    """After kill -9 in a burst: each acknowledged integer is recorded once, each task started once."""
    sent = 0
    for _ in range(rounds):
        appliance.start()
        with Publisher(appliance.port) as publisher:
            acknowledged: list[int] = []
            publisher.client.on_publish = lambda _c, _u, mid, *_: acknowledged.append(mid)
            infos = {}
            for _ in range(400):
                info = publisher.client.publish("/demo/integers", json.dumps({"n": sent}), qos=1)
                infos[info.mid] = sent
                sent += 1
            until(lambda: len(acknowledged) > 50, "some are acknowledged")
            appliance.kill()
            safe = [infos[mid] for mid in list(acknowledged) if mid in infos]
        appliance.start()
        until(lambda: set(safe) <= {row["n"] for row in recording(appliance)}, "all are recorded")
        numbers = [row["n"] for row in recording(appliance)]
        assert len(numbers) == len(set(numbers))
        assert numbers == sorted(numbers)
        appliance.kill()


def test_a_wrong_password_gets_nobody_in(running):
    """With a users file, a wrong password and no password are both refused."""
    appliance, _ = running
    for password in ("wrong", None):
        refused: list[object] = []
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if password is not None:
            client.username_pw_set("wiredflow", password)
        client.on_connect = lambda _c, _u, _f, reason, _p: refused.append(reason)
        client.reconnect_delay_set(0.05, 0.05)  # the end waits for it
        client.connect("127.0.0.1", appliance.port)
        client.loop_start()
        until(lambda: refused, "an answer")
        assert refused[0].is_failure
        client.disconnect()
        client.loop_stop()
    assert "wiredflow" in (appliance.folder / "users.txt").read_text()
    assert "$argon2id$" in (appliance.folder / "users.txt").read_text()


@pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are not here"
)
@pytest.mark.parametrize("version", ["311", "5"])
def test_mosquitto_pub_starts_a_task(running, version):
    """mosquitto_pub in both versions of the protocol is an ordinary publisher."""
    appliance, qlik = running
    before = qlik.starts(TASK)
    server = ["-V", version, "-h", "127.0.0.1", "-p", str(appliance.port)]
    user = ["-u", "wiredflow", "-P", "wiredflow"]
    message = ["-q", "2", "-t", "qliksense/start_task", "-m", TASK]
    subprocess.run(["mosquitto_pub", *server, *user, *message], check=True, timeout=60)
    assert qlik.wait_for(lambda: qlik.starts(TASK) == before + 1, 20)
    until(lambda: not qlik.site.sessions(), "the run ends")


@pytest.mark.parametrize("end", ["stopped", pytest.param("killed", marks=pytest.mark.campaign)])
def test_a_start_survives_a_qlik_server_that_is_down(appliance, qlik, end):
    """With Qlik down the start waits, and runs once the server is back, over a restart of ours.

    After a kill the call may have left without a note, so a look must find nothing for 30 s.
    """
    qlik.refuse()
    appliance.start()
    with Publisher(appliance.port) as publisher:
        publisher.publish("qliksense/start_task", TASK)
    appliance.wait_for_line("starts wait")
    if end == "killed":
        appliance.kill()
    else:
        assert appliance.end() == 0
    qlik.start()
    appliance.start()
    assert qlik.wait_for(lambda: qlik.starts(TASK) == 1, 60)
    assert appliance.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(appliance, number):
    """Ctrl+C and SIGTERM: what was accepted is recorded, exit code 0."""
    appliance.start()
    with Publisher(appliance.port) as publisher:
        for sent in range(200):
            publisher.client.publish("/demo/integers", json.dumps({"n": sent}), qos=0)
        publisher.publish("/demo/integers", json.dumps({"n": 200}))
        assert appliance.end(number) == 0
    assert [row["n"] for row in recording(appliance)] == list(range(201))


def test_a_run_limit_ends_it_by_itself(appliance):
    """--run-for 1s ends with exit code 0 and says so."""
    appliance.start("--run-for", "1s")
    assert appliance.exit_code() == 0
    assert any("run limit" in line for line in appliance.lines)


def test_a_port_in_use_is_said_and_ends_with_69(appliance, tmp_path):
    """The second on a port says which port and what to do, without a traceback."""
    appliance.start()
    other = tmp_path / "other"
    other.mkdir()
    with ApplianceProcess(
        other, '[[listener]]\nbind = "127.0.0.1:PORT"\n', port=appliance.port
    ) as second:
        assert second.begin().exit_code() == 69
        text = "\n".join(second.lines)
        assert str(appliance.port) in text
        assert "in use" in text
        assert "Traceback" not in text


@pytest.mark.campaign
def test_a_data_directory_in_use_is_said_and_ends_with_69(appliance):
    """A second appliance on the same data directory is told which process has it."""
    appliance.start()
    config = f'[service]\ndata_dir = "data"\n[[listener]]\nbind = "127.0.0.1:{free_port()}"\n'
    other = ApplianceProcess(appliance.folder, config)
    with other:
        assert other.begin().exit_code() == 69
        assert "in use by another appliance" in "\n".join(other.lines)


def test_an_unreadable_certificate_ends_with_78(tmp_path):
    """A certificate that is none is named with its file, exit code 78."""
    (tmp_path / "server.pem").write_text("this is no certificate")
    config = '[[listener]]\nbind = "127.0.0.1:PORT"\ntls = {certfile = "server.pem", keyfile = "server.pem"}\n'
    with ApplianceProcess(tmp_path, config) as process:
        assert process.begin().exit_code() == 78
        text = "\n".join(process.lines)
        assert "server.pem" in text
        assert "Traceback" not in text


def test_headless_never_imports_what_it_does_not_use(tmp_path):
    """Without a terminal the engine starts without the UI's library, and without others that take
    long to import and that this configuration has no use for."""
    (tmp_path / "config.toml").write_text('[[listener]]\nbind = "127.0.0.1:0"\n')
    code = (
        "import sys, appliance.process.run as run, appliance.config.reading as config\n"
        f"loaded = config.load({str(tmp_path / 'config.toml')!r})\n"
        "assert run.main(loaded, headless=True, run_for_s=0.2) == 0\n"
        "print(*{name.partition('.')[0] for name in sys.modules} | set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unused = {"textual", "rich", "yaml", "apprise", "paho", "prometheus_client", "requests"}
    assert not unused & set(done.stdout.split())
    assert "logging.handlers" not in done.stdout.split()
