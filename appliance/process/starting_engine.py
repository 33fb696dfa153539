"""The engine of the terminal UI until the real engine has started.

The UI paints first, and the engine starts in its own thread: most of a start is loading code. Not
for: how the engine starts (engine/service.py), drawing (ui/).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.engine.view import View
from appliance.engine_api import (
    ClientState,
    Engine,
    Health,
    JournalState,
    LogLine,
    Mark,
    QlikState,
    Snapshot,
    TopicState,
)
from appliance.errors import UnavailableError
from appliance.model import Execution, Message, Task

if TYPE_CHECKING:
    from appliance.engine.service import Appliance  # loading it is most of the start

_OFF = Health("off")


def _not_yet(*_asked: object) -> UnavailableError:
    """The refusal, for any arguments."""
    return UnavailableError("The appliance is still starting.")


class StartingEngine(Engine):
    """Stands in for the engine from the first paint until the listeners accept connections.

    ``make`` makes the appliance; it is called in the thread that ``begin`` starts.
    """

    def __init__(self, make: Callable[[], Appliance], *, name: str) -> None:
        self._make = make
        self._name = name
        self._began_ns = time.time_ns()
        self._thread: threading.Thread | None = None
        self._stop_asked = threading.Event()
        self._view: View | None = None
        self.appliance: Appliance | None = None
        """Set once it is made."""
        self.failure: BaseException | None = None
        """The error if it could not be started."""

    def begin(self) -> None:
        """Start the engine, once, however often this is called. Main thread only."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="start", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            appliance = self._make()
            self.appliance = appliance
            if not self._stop_asked.is_set():
                appliance.start()
                self._view = View(appliance)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error
            self._stop_asked.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the appliance has ended, started or not; returns whether it has."""
        deadline = time.monotonic() + timeout_s
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        if self._view is None or self.appliance is None:
            return True
        return self.appliance.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, by: str = "operator") -> None:  # noqa: ARG002 - logging has not started
        # In this order, so that an appliance that is being made notices one of the two.
        self._stop_asked.set()
        if self.appliance is not None:
            self.appliance.stop()

    def running(self) -> Engine:
        return self if self._view is None else self._view

    def snapshot(self) -> Snapshot:
        if self._view is not None:
            return self._view.snapshot()
        return Snapshot(
            taken_ns=time.time_ns(),
            name=self._name,
            version=__version__,
            started_ns=self._began_ns,
            listeners=(),
            clients_connected=0,
            journal=JournalState(_OFF),
            qlik=QlikState("", "", _OFF),
            recorders=(),
            rules=(),
            timers=(),
            executions=(),
            starting=True,
            stopping=self._stop_asked.is_set(),
        )

    # --- not available yet -----------------------------------------------------------------

    def live(self, after_seq: int, limit: int) -> Sequence[Message]:  # noqa: ARG002 - none yet
        return ()

    def full_size(self, seq: int) -> int | None:  # noqa: ARG002 - none yet
        return None

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:  # noqa: ARG002 - none yet
        return {}

    def clients(self) -> tuple[ClientState, ...]:
        return ()

    def log(self, after_number: int, limit: int) -> Sequence[LogLine]:  # noqa: ARG002 - none yet
        return ()

    def topics(self, limit: int) -> Sequence[TopicState]:  # noqa: ARG002 - none yet
        return ()

    def execution(self, execution: int) -> Execution | None:  # noqa: ARG002 - none yet
        return None

    def message(self, seq: int) -> Message | None:
        raise _not_yet(seq)

    def tasks(self) -> Sequence[Task]:
        raise _not_yet()

    def start_task(self, task_id: str, by: str) -> int:
        raise _not_yet(task_id, by)

    def repeat(self, seq: int, by: str) -> int:
        raise _not_yet(seq, by)
