"""The demo's source system: numbers once a second, and now and then a message that starts a task.

Not for: anything but the demo.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from appliance.config.values import parse_bind
from appliance.errors import ApplianceError
from appliance.mqtt.client import Client, Target
from appliance.secret import Secret

logger = logging.getLogger(__name__)

START_TOPIC = "qliksense/start_task"
INTEGERS_TOPIC = "/demo/integers"
_LARGEST = 100
_RETRY_S = 2.0

_COPY_FILES = "a6d0c9b4-7e21-4f58-93bc-0e5f8a1d2c77"
_LINE_7 = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
_LINE_8 = "2c6f0a94-7be1-4d38-8e52-1f9d3b7c6a05"
_SUPPLIERS = "b40f9e2d-58c3-4716-8a6f-92d7c1e0b3f4"
_ARCHIVE = "6d2e8f1b-c7a0-4b95-a9d3-04f5e6b7c812"

SCRIPT: dict[int, tuple[str, str]] = {
    1: (START_TOPIC, _COPY_FILES),
    3: (START_TOPIC, _SUPPLIERS),
    # The failure and its reason are on a small screen while at most one other task runs.
    8: (START_TOPIC, json.dumps({"taskId": _LINE_7})),
    13: (START_TOPIC, "not a task id"),
    15: (START_TOPIC, json.dumps([_LINE_7, _LINE_8])),
    17: ("plant/hall1/stock/imported", json.dumps({"rows": 1834})),
    22: (START_TOPIC, _ARCHIVE),
    25: (START_TOPIC, _COPY_FILES.upper()),
}
"""What else is published in which second; it begins again after ``PERIOD_S``."""
PERIOD_S = 30


class DemoPublisher:
    """A thread with its own client. Ends with the ``with`` block."""

    def __init__(
        self, bind: str, user: str, password: bytes, after_second: Callable[[int], None]
    ) -> None:
        """Prepare it.

        Args:
            bind: the broker's address.
            user: of the broker.
            password: of the user.
            after_second: called in the publisher's thread, with the number of each second.
        """
        host, port = parse_bind(bind)
        self._target = Target(
            host=host,
            port=port,
            client_id="demo-source",
            username=user,
            password=Secret(password.decode()),
        )
        self._after_second = after_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo publisher", daemon=True)

    def start(self) -> None:
        """Begin; called when the broker listens."""
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        second = 0
        while not self._stopped.is_set():
            try:
                with Client(self._target) as client:
                    while not self._stopped.wait(1.0 if second else 0.0):
                        self._publish(client, second)
                        self._after_second(second)
                        second += 1
            except ApplianceError as error:
                if not self._stopped.wait(_RETRY_S):
                    logger.warning("the demo's publisher tries again: %s", error)

    def _publish(self, client: Client, second: int) -> None:
        number = {"Generated number": str(second % (_LARGEST + 1))}
        client.publish(INTEGERS_TOPIC, json.dumps(number).encode(), qos=1, retain=False)
        if second == 0:
            logger.info(
                "published %s to %s, and so on each second", json.dumps(number), INTEGERS_TOPIC
            )
        extra = SCRIPT.get(second % PERIOD_S)
        if extra is not None:
            logger.info("publishes %s to %s", extra[1], extra[0])
            client.publish(extra[0], extra[1].encode(), qos=1, retain=False)
