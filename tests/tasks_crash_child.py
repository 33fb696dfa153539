"""A task engine in a process of its own, which may kill itself at a step on the way.

Arguments: folder, URL of the simulated server, step or ``-``, seconds of debounce, and ``cloud`` if
the server is talked to as Qlik Cloud. Reads the journal from ``journal.jsonl`` in the folder. Ends with 0 once a last outcome was published; each
one is appended to ``published.jsonl`` before.

The start call leaves its thread while another thread writes its note. A step that ends with
``, not noted`` keeps the note from being written; all others keep the call back until the note is
on disk. So each step happens in one order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
from tasks_rig import MemorySource, make_engine, start_trigger
from urllib3.connection import HTTPConnection

import appliance.tasks.engine as engine_module
from appliance.model import Message
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.cloud import Cloud
from appliance.qlik.cloud_login import ApiKey
from appliance.qlik.transport import Transport
from appliance.secret import Secret
from appliance.tasks.store import Changes, Store

FOLDER, URL = Path(sys.argv[1]), sys.argv[2]
STEP, _, AND = sys.argv[3].partition(", ")
DEBOUNCE = float(sys.argv[4])
IS_NOTE_KEPT_BACK = AND == "not noted"
NOTED = threading.Event()


def die_at(step: str) -> None:
    if step == STEP:
        if sys.platform == "win32":
            os._exit(137)
        os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(Store):
    """Dies around the writes that matter."""

    def write(self, changes: Changes) -> None:
        states = {record.execution.state.value for record in changes.records.values()}
        for state in states:
            die_at(f"before {state} is written")
        if "starting" in states and IS_NOTE_KEPT_BACK:
            threading.Event().wait()
        super().write(changes)
        for state in states:
            die_at(f"after {state} is written")
        if "starting" in states:
            NOTED.set()


class MortalClient:
    """Dies around the start call: last when its answer has come and is not noted yet."""

    def start(self, task_id: str, **options: Any) -> Any:
        if not IS_NOTE_KEPT_BACK:
            NOTED.wait()
        die_at("before the start call")
        answer = super().start(task_id, **options)  # type: ignore[misc]  # of the other base
        die_at("after the start call")
        return answer


class MortalClientManaged(MortalClient, ClientManaged):
    """Talks to the Repository Service."""


class MortalCloud(MortalClient, Cloud):
    """Talks to Qlik Cloud."""


def client() -> MortalClient:
    if "cloud" in sys.argv[5:]:
        return MortalCloud(Transport(URL), ApiKey(Secret("simulated-api-key")))
    headers = {"X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository"}
    return MortalClientManaged(Transport(URL, headers=headers))


def answer_or_die(connection: HTTPConnection) -> Any:
    if connection._method == "POST":  # type: ignore[attr-defined]
        die_at("when the start call has left")
    return get_response(connection)


get_response = HTTPConnection.getresponse
HTTPConnection.getresponse = answer_or_die  # type: ignore[method-assign]


def main() -> None:
    engine_module.Store = MortalStore  # type: ignore[misc]
    done = threading.Event()

    def publish(topic: str, payload: bytes, retain: bool, properties: object = None) -> None:
        if retain:
            die_at("before the outcome is published")
            with (FOLDER / "published.jsonl").open("ab") as file:
                file.write(payload + b"\n")
            die_at("after the outcome is published")
            done.set()

    engine = make_engine(FOLDER / "tasks.db", publish, client(), start_trigger(DEBOUNCE))
    source = MemorySource()
    source.position = engine.open()
    engine.start(source)
    # They come while the engine runs: what was there before would be looked for at the server.
    for line in (FOLDER / "journal.jsonl").read_bytes().splitlines():
        source.add(msgspec.json.decode(line, type=Message))
    done.wait(60)
    engine.stop(5.0)


main()
