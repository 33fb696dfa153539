"""A simulated Qlik site whose runs are known, so that another site can have the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.qlik.simulated.server import Proxy
from appliance.qlik.simulated.site import Run, SimulatedTask, Site

PROXY = Proxy("hdr")
"""The way in that ``QLIK_CONFIG`` names."""
QLIK_CONFIG = """
[qlik]
edition = "client-managed"
url = "{url}/hdr"
user = 'INTERNAL\\sa_repository'
header = {{name = "hdr-usr"}}
"""
"""For ``str.format``: a simulated Qlik server with ``PROXY``."""


class MarkedSite(Site):
    """A site that begins a run at once and notes it. ``on_run`` is told before the caller is."""

    def __init__(
        self,
        task_ids: Iterable[str],
        on_run: Callable[[str, str, int], None] = lambda _task, _run, _at_ns: None,
    ) -> None:
        super().__init__(trigger_delay_s=0.0, concurrency=50)
        self._on_run = on_run
        self.begun: list[tuple[str, str, int]] = []
        """Task, run, and when it began in nanoseconds since 1970."""
        for task_id in task_ids:
            self.add_task(SimulatedTask(f"Task {task_id[-3:]}", id=task_id, duration_s=0.05))

    def _begin(self, task: SimulatedTask, now: int) -> Run:
        run = super()._begin(task, now)
        self.begun.append((task.id, run.execution_id, now))
        self._on_run(task.id, run.execution_id, now)
        return run

    @property
    def started(self) -> list[str]:
        """The task of each run, in the order in which they began."""
        return [task for task, _, _ in self.begun]

    def put_back(self, task_id: str, run: str, at_ns: int) -> None:
        """Begin a run that another site has begun."""
        with self.lock:
            self.new_id = lambda: run  # type: ignore[method-assign]
            self._begin(self.tasks[task_id], at_ns)
            del self.new_id
            self.advance()
