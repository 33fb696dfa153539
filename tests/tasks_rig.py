"""What the tests of the task engine share: a source of messages, a rig with a simulated server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wine import SLOWNESS

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.engine.own_messages import properties_of
from appliance.model import Execution, ExecutionState, Message, MessageProperties
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.server import QlikServer
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.transport import Transport
from appliance.tasks.engine import TaskEngine
from appliance.tasks.jobs import Limits
from appliance.tasks.store import Publication

START_TOPIC = "qliksense/start_task"
PATIENCE_S = 20.0 * SLOWNESS


def start_trigger(debounce_s: float = 0.0) -> TriggerConfig:
    """The rule that the payload of ``START_TOPIC`` names the task."""
    return TriggerConfig(topic=START_TOPIC, task="payload", debounce=debounce_s or None)


class MemorySource:
    """A journal in memory: what a follower sees of it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.position = 0
        self.advanced = 0
        self._changed = threading.Condition()
        self._woken = False

    def put(self, topic: str, payload: bytes | str, **fields: Any) -> Message:
        if isinstance(payload, str):
            payload = payload.encode()
        fields.setdefault("received_ns", time.time_ns())
        fields.setdefault("client_id", "plc-1")
        message = Message(len(self.messages) + 1, topic=topic, payload=payload, **fields)
        self.add(message)
        return message

    def add(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    @property
    def last_seq(self) -> int:
        return len(self.messages)

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self.position < len(self.messages) or self._woken, timeout_s
            )
            self._woken = False
            return self.position < len(self.messages)

    def next(self, limit: int) -> Sequence[Message]:
        with self._changed:
            batch = self.messages[self.position : self.position + limit]
            self.position += len(batch)
            return batch

    def read(self, after_seq: int, limit: int) -> list[Message]:
        with self._changed:
            return self.messages[after_seq : after_seq + limit]

    def advance(self, seq: int) -> None:
        with self._changed:
            self.advanced = seq
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()


class Broker:
    """Collects what is published; lets tests wait for it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any], bool, MessageProperties | None]] = []
        self._changed = threading.Condition()

    def __call__(
        self,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: MessageProperties | None = None,
    ) -> None:
        with self._changed:
            self.published.append((topic, msgspec.json.decode(payload), retain, properties))
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Wait for ``holds``, asked again whenever something was published."""
        with self._changed:
            assert self._changed.wait_for(holds, timeout_s), [
                (topic, body.get("state"), body.get("reason"))
                if isinstance(body, dict)
                else (topic, body)
                for topic, body, _, _ in self.published
            ]
            return holds()

    def states(self, task: str) -> list[str]:
        return [
            body["state"]
            for topic, body, _, _ in self.published
            if topic == f"appliance/tasks/{task}/execution"
        ]

    def wait_for(self, task: str, state: str, times: int = 1) -> None:
        self.wait_until(lambda: self.states(task).count(state) >= times)


QUICK = Limits(
    backoff_first_s=0.05,
    backoff_most_s=0.2,
    look_first_s=0.05,
    look_settle_s=0.3,
    lost_after_s=0.5,
    log_waits_s=(0.02, 0.05, 0.1, 0.2),
)


def client_of(simulated: SimulatedQlik, timeout_s: float = 10.0) -> ClientManaged:
    headers = {"X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository"}
    return ClientManaged(Transport(simulated.url, headers=headers, timeout_s=timeout_s))


def make_engine(
    database: Path,
    publish: Any,
    server: QlikServer | None,
    *triggers: TriggerConfig,
    **settings: Any,
) -> TaskEngine:
    settings = {
        "allow": AllowConfig(),
        "limits": QUICK,
        "health_check_s": 0.2,
        "first_poll_s": 0.05,
        "slowest_poll_s": 0.2,
        "elsewhere_s": 0.2,
    } | settings
    rules = triggers or (start_trigger(),)

    def publish_all(publications: Sequence[Publication]) -> int:
        for one in publications:
            publish(one.topic, one.payload, one.retain, properties_of(one))
        return 0

    return TaskEngine(
        service_name="appliance",
        triggers=rules,
        server=server,
        database=database,
        publish=publish_all,
        **settings,
    )


class Rig:
    """A running task engine with its journal and its broker."""

    def __init__(
        self, database: Path, server: QlikServer | None, *triggers: TriggerConfig, **settings: Any
    ) -> None:
        self.broker = settings.pop("broker", None) or Broker()
        self.source = settings.pop("source", None) or MemorySource()
        self.engine = make_engine(database, self.broker, server, *triggers, **settings)
        self.source.position = self.source.advanced = self.engine.open()

    def __enter__(self) -> Rig:
        self.engine.start(self.source)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.engine.stop(5.0)

    def wait_until(self, holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Wait for something that the engine's views show."""
        state, deadline = self.engine._state, time.monotonic() + timeout_s
        with state.lock:
            while not holds():
                assert time.monotonic() < deadline, self.engine.executions(20)
                # As the terminal does it: what the views show is asked for, not told.
                state.changed.wait(0.01)
            return holds()

    def newest(self) -> Execution:
        return self.engine.executions(1)[0]

    def states(self) -> list[ExecutionState]:
        """Of all executions, oldest first."""
        return [one.state for one in reversed(self.engine.executions(1000))]


class JournaledRig(Rig):
    """A rig whose own messages enter its journal, as they do in the appliance."""

    def __init__(self, *arguments: Any, source: MemorySource, **settings: Any) -> None:
        super().__init__(*arguments, source=source, **settings)

        def publish(publications: Sequence[Publication]) -> int:
            for one in publications:
                self.broker(one.topic, one.payload, one.retain, properties_of(one))
                source.put(
                    one.topic,
                    one.payload,
                    retain=one.retain,
                    client_id="$appliance",
                    properties=properties_of(one).encoded(),
                )
            return source.last_seq

        self.engine._workers._publish = publish
