"""A task engine in a process of its own, which may kill itself at a step on the way.

Arguments: folder, URL of the simulated server, step or ``-``, seconds of debounce. Reads the journal from
``journal.jsonl`` in the folder. Ends with 0 once a last outcome was published; each one is
appended to ``published.jsonl`` before.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from tasks_rig import MemorySource, make_engine, start_trigger

import appliance.tasks.engine as engine_module
from appliance.model import Message
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.departure import AT_ONCE, Departure
from appliance.qlik.transport import Transport
from appliance.tasks.store import Changes, Store

FOLDER, URL, STEP = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
DEBOUNCE = float(sys.argv[4])


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
        super().write(changes)
        for state in states:
            die_at(f"after {state} is written")


class MortalClient(ClientManaged):
    """Dies around the start call: last when its answer is there and nobody knows of it yet."""

    def start(self, task_id: str, departure: Departure = AT_ONCE) -> Any:
        class Watched(Departure):
            def before(self, push: Callable[[], None]) -> None:
                def push_or_die() -> None:
                    die_at("before the start call")
                    push()

                departure.before(push_or_die)
                die_at("before the start call")

            def after(self) -> None:
                die_at("when the start call has left")
                departure.after()

        answer = super().start(task_id, Watched())
        die_at("after the start call")
        return answer


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

    headers = {"X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository"}
    client = MortalClient(Transport(URL, headers=headers))
    engine = make_engine(FOLDER / "tasks.db", publish, client, start_trigger(DEBOUNCE))
    source = MemorySource()
    for line in (FOLDER / "journal.jsonl").read_bytes().splitlines():
        source.messages.append(msgspec.json.decode(line, type=Message))
    source.position = engine.open()
    engine.start(source)
    done.wait(60)
    engine.stop(5.0)


main()
