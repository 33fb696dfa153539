"""An appliance process with users in the three kinds, and terminals attached to it."""

from __future__ import annotations

from appliance_process import ApplianceProcess

from appliance.remote.client_engine import AttachedEngine
from appliance.mqtt.client import Client, Target
from appliance.secret import Secret
from appliance.broker.users import Users

PASSWORD = "correct horse"
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
operators = ["admin"]
viewers = ["anna", "screen-*"]
[qlik]
edition = "simulated"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[timer]]
name = "press"
silence = "1h"
topic = "plant/press7"
[[recorder]]
topic = "#"
path = "all.jsonl"
format = "jsonl"
metadata = true
"""


def make(folder, *, config=CONFIG) -> ApplianceProcess:
    """The process, not yet started; admin may act, anna may look, plc-7 neither."""
    process = ApplianceProcess(folder, config)
    users = Users(str(folder / "users.txt"))
    for name in ("admin", "anna", "plc-7"):
        users.add(name, PASSWORD.encode())
    return process


def target(process, user, client_id=None, password=PASSWORD) -> Target:
    return Target(
        "127.0.0.1",
        process.port,
        client_id=client_id or f"{user}-terminal",
        username=user,
        password=Secret(password),
    )


def publish(process, topic, payload, user="plc-7") -> None:
    """One message, acknowledged."""
    with Client(target(process, user, f"{user}-publisher")) as client:
        client.publish(topic, payload, qos=1, retain=False)


def attach(process, user, client_id=None) -> AttachedEngine:
    """An attached terminal's engine; close it."""
    engine = AttachedEngine(target(process, user, client_id))
    try:
        engine.open(20)
    except BaseException:
        engine.close()
        raise
    return engine
