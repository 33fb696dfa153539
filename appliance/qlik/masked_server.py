"""The boundary between a Qlik server and everybody who shows, logs or publishes what it said.

A server or a proxy in between may repeat what it was sent. Every error and every text that leaves
the client passes here, and the configured secrets are masked. Names and ids of tasks are data and
stay as they are. Not for: secrets that are not ours (masking.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from appliance.model import ReloadOptions, Task
from appliance.qlik.cloud import Cloud
from appliance.qlik.server import (
    NO_OPTIONS,
    Ended,
    FullTask,
    Owner,
    QlikError,
    QlikServer,
    Report,
    ServerInfo,
    Started,
    TaskEvents,
)


class MaskedServer:
    """A ``QlikServer`` in front of another one."""

    def __init__(
        self,
        server: QlikServer,
        mask: Callable[[str], str],
        clock_offset_s: Callable[[], float],
    ) -> None:
        """Nothing is sent.

        Args:
            server: the client.
            mask: replaces the secrets of the client's requests in a text.
            clock_offset_s: seconds that the server's clock was ahead in its last answer.
        """
        self.label = server.label
        self._server = server
        self._mask = mask
        self._clock_offset_s = clock_offset_s

    @property
    def clock_offset_s(self) -> float:
        """How far the server's clock was ahead of ours in its last answer, in seconds."""
        return self._clock_offset_s()

    def check(self) -> ServerInfo:
        with self._masked_errors():
            info = self._server.check()
        return msgspec.structs.replace(
            info, version=self._mask(info.version), text=self._mask(info.text)
        )

    def tasks(self) -> Sequence[Task]:
        with self._masked_errors():
            return self._server.tasks()

    def offered(self) -> str:
        """What ``Cloud.offered`` says; empty for other servers."""
        if not isinstance(self._server, Cloud):
            return ""
        with self._masked_errors():
            return self._mask(self._server.offered())

    def apps(self) -> Sequence[Task]:
        with self._masked_errors():
            return self._server.apps()

    def full_tasks(self, task_ids: Sequence[str]) -> dict[str, FullTask]:
        with self._masked_errors():
            return self._server.full_tasks(task_ids)

    def task_events(self) -> TaskEvents:
        with self._masked_errors():
            return self._server.task_events()

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        with self._masked_errors():
            started = self._server.start(task_id, options=options)
        return msgspec.structs.replace(started, reason=self._mask(started.reason))

    def poll(self, execution_ids: Sequence[str], task_ids: Sequence[str]) -> dict[str, Report]:
        with self._masked_errors():
            reports = self._server.poll(execution_ids, task_ids)
        return {key: self._masked(report) for key, report in reports.items()}

    def running(self) -> Sequence[Report]:
        with self._masked_errors():
            reports = self._server.running()
        return [self._masked(report) for report in reports]

    def since(self, task_id: str, after_ns: int, *, everyone: bool = False) -> Sequence[Report]:
        with self._masked_errors():
            reports = self._server.since(task_id, after_ns, everyone=everyone)
        return [self._masked(report) for report in reports]

    def own_time_ns(self, server_ns: int) -> int:
        return self._server.own_time_ns(server_ns)

    def clock_doubt_s(self) -> float:
        return self._server.clock_doubt_s()

    def ended(self, after_ns: int | None, running: Collection[str]) -> Ended:
        with self._masked_errors():
            ended = self._server.ended(after_ns, running)
        return msgspec.structs.replace(
            ended, reports=[self._masked(report) for report in ended.reports]
        )

    def log_tail(self, report: Report, lines: int) -> Sequence[str]:
        with self._masked_errors():
            found = self._server.log_tail(report, lines)
        return [self._mask(line) for line in found]

    def script_log(self, report: Report) -> str:
        with self._masked_errors():
            found = self._server.script_log(report)
        return self._mask(found)

    def owner(self, app_id: str) -> Owner | None:
        with self._masked_errors():
            return self._server.owner(app_id)

    def stop(self, task_id: str, execution_id: str) -> None:
        with self._masked_errors():
            self._server.stop(task_id, execution_id)

    def give_up(self, older_than_s: float) -> None:
        self._server.give_up(older_than_s)

    def close(self) -> None:
        self._server.close()

    def _masked(self, report: Report) -> Report:
        if not report.reason and not report.details:
            return report
        return msgspec.structs.replace(
            report,
            reason=self._mask(report.reason),
            details=tuple(
                msgspec.structs.replace(each, text=self._mask(each.text)) for each in report.details
            ),
        )

    @contextlib.contextmanager
    def _masked_errors(self) -> Iterator[None]:
        try:
            yield
        except QlikError as error:
            error.args = tuple(
                self._mask(each) if isinstance(each, str) else each for each in error.args
            )
            raise
