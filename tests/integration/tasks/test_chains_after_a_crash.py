"""The process is killed as a start call arrives: chains, and a second message right behind."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import paho.mqtt.publish as mqtt_publish
import pytest
from appliance_process import QUICK, ApplianceProcess, until

from appliance.config.reading import loads
from appliance.engine import own_messages
from appliance.engine.service import Appliance
from appliance.errors import UnavailableError
from appliance.journal.batch import Batch
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask
from appliance.tasks.store import Publication

pytestmark = pytest.mark.posix("SIGTERM does not ask for an ordered end")

FIRST = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
CHAINED = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b11"
LAST = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b12"

BASE = (
    """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + certificates.QLIK_CONFIG
    + """
[[recorder]]
topic = "#"
path = "all.json"
metadata = true
[[trigger]]
topic = "plant/start"
task = "payload"
[[trigger]]
topic = "{topic}"
task = "{chained}"
"""
)
TIMER = """
[[timer]]
name = "tick"
every = "{every}"
publish = {{topic = "plant/tick", payload = "now"}}
"""


@pytest.fixture
def qlik(tmp_path: Path) -> Iterator[SimulatedQlik]:
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    tasks = [
        SimulatedTask(name, id=one, duration_s=0.1)
        for name, one in (("First", FIRST), ("Chained", CHAINED), ("Last", LAST))
    ]
    with SimulatedQlik(tasks, tls=tls) as simulated:
        yield simulated


def recorded(process: ApplianceProcess, topic: str, state: str = "") -> list[dict[str, object]]:
    """The recorded messages of a topic, or those among them that tell a state."""
    messages = json.loads((process.data / "all.json").read_text("utf-8"))
    found = [one for one in messages if one["topic"] == topic]
    return [one for one in found if not state or one["payload"]["state"] == state]


def start(process: ApplianceProcess, task: str) -> None:
    """Ask for a start, as a client does."""
    mqtt_publish.single(
        "plant/start", task, qos=1, hostname="127.0.0.1", port=process.port, client_id="plc"
    )


def until_idle(database: sqlite3.Connection) -> None:
    """Wait until the appliance has written nothing for a second: its start is noted by then."""
    last, since = -1, time.monotonic()

    def is_idle() -> bool:
        nonlocal last, since
        [(version,)] = database.execute("PRAGMA data_version")
        if version != last:
            last, since = version, time.monotonic()
        return time.monotonic() - since > 1

    until(is_idle, "nothing more is written")


CHAINS = [
    pytest.param(chain, turn, marks=pytest.mark.campaign)
    for chain in ("timer", "outcome")
    for turn in range(5 if chain == "timer" else 3)
]


@pytest.mark.parametrize(("chain", "turn"), CHAINS)
def test_killed_as_the_call_of_a_chain_arrives(tmp_path: Path, qlik, chain: str, turn: int) -> None:
    """The chained task is started once, and the appliance's own message comes once."""
    del turn
    is_timer = chain == "timer"
    topic = "plant/tick" if is_timer else f"appliance/tasks/{FIRST}/last"
    config = BASE.format(url=qlik.url, topic=topic, chained=CHAINED)
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path=f"{CHAINED}/start", times=1)
    with ApplianceProcess(
        tmp_path, config + TIMER.format(every="4s" if is_timer else "1h")
    ) as process:
        process.start()
        if not is_timer:
            start(process, FIRST)
        assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG_AFTER.value] == 1, 20)
        process.kill()
    qlik.heal()
    with ApplianceProcess(tmp_path, config + TIMER.format(every="1h"), program=QUICK) as process:
        process.start()
        until(
            lambda: recorded(process, f"appliance/tasks/{CHAINED}/last", "succeeded"),
            "the outcome of the chained task",
        )
        # Its outcome comes behind all that was left to be published.
        start(process, LAST)
        until(lambda: recorded(process, f"appliance/tasks/{LAST}/last"), "the last outcome")
        assert process.end() == 0
    assert len(recorded(process, topic)) == 1
    assert qlik.starts(CHAINED) == 1


@pytest.mark.campaign  # the server is given half a minute to begin the run that is looked for
def test_a_message_behind_the_call_that_was_killed_is_neither_lost_nor_doubled(
    tmp_path: Path, qlik
) -> None:
    """The call for the first message has arrived and can't be noted; a second message for the same
    task is in the journal when the process is killed. The run answers the first, a start the
    second."""
    config = BASE.format(url=qlik.url, topic="unused", chained=CHAINED)
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path=f"{FIRST}/start", times=1)
    with ApplianceProcess(tmp_path, config) as process:
        process.start()
        with contextlib.closing(sqlite3.connect(process.data / "tasks.db")) as other:
            # A note that waits for this lock would hold up what comes behind it, the call as well.
            until_idle(other)
            other.execute("BEGIN IMMEDIATE")
            start(process, FIRST)
            assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG_AFTER.value] == 1, 20)
            start(process, FIRST)
            process.kill()
    qlik.heal()
    topic = f"appliance/tasks/{FIRST}/last"
    with ApplianceProcess(tmp_path, config) as process:
        process.start()
        until(lambda: len(recorded(process, topic, "succeeded")) == 2, "both outcomes", 60)
        assert process.end() == 0
    assert qlik.starts(FIRST) == 2


def test_a_slow_disk_publishes_nothing_twice(tmp_path: Path, monkeypatch) -> None:
    """The journal's disk does not answer in the time that a publication is given: it is handed over
    again, and is in the journal once."""
    text = f'[service]\ndata_dir = "{tmp_path / "data"}"\n[[listener]]\nbind = "127.0.0.1:0"\n'
    appliance = Appliance(loads(text, file=str(tmp_path / "config.toml")))
    go, write = threading.Event(), Batch.write

    def later(batch: Batch, connection: sqlite3.Connection) -> None:
        assert go.wait(20)
        write(batch, connection)

    appliance.start()
    try:
        publications = [Publication("plant/tick", b"one"), Publication("plant/tick", b"two")]
        with monkeypatch.context() as patched:
            patched.setattr(Batch, "write", later)
            patched.setattr(own_messages, "_LIMIT_S", 0.05)
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    appliance.outcome_messages.publish(publications)
            go.set()
        last = appliance.outcome_messages.publish(publications)
        found = [one for one in appliance.journal.read(0, 100) if one.topic == "plant/tick"]
        assert [one.payload for one in found] == [b"one", b"two"]
        assert found[-1].seq == last
    finally:
        appliance.stop()
        assert appliance.wait(30)
