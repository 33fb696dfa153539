"""The once-a-second work for operators of a running appliance.

It feeds systemd's watchdog from the engine's loop, writes the health report and carries out
requests of other processes. A failure here is a line in the log and does not
disturb the engine. Not for: messages, tasks, recordings.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from appliance.engine.reload import reload
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.errors import ApplianceError
from appliance.ops import acknowledging, control_file, health
from appliance.ops.listed_sessions import page
from appliance.ops.systemd import SystemdNotifier
from appliance.storage.sqlite import disk_fault

logger = logging.getLogger(__name__)

_TICK_S = 1.0
_LOOKS_AT_ONCE = 10
_NEXT_LOOK_S = 0.1
"""After a request the next one often comes at once: the next page of a list, another command."""
_CLEAR_EVERY_S = 60
"""A request or answer that is there at two looks is left over: its process has ended."""


class Supervisor:
    """Starts when the appliance listens, and ends with it."""

    def __init__(self, appliance: Appliance, systemd: SystemdNotifier | None = None) -> None:
        self._appliance = appliance
        self._view = View(appliance)
        self._systemd = systemd or SystemdNotifier()
        self._tasks: list[asyncio.Task[None]] = []
        self._reload_asked = False
        self._disk_fault: str | None = None
        """What was said about the disk last; ``None`` while it works."""
        self._reported_step_ns = 0
        self._left_behind: set[Path] = set()

    def begin(self) -> None:
        """Start. On the engine's loop, once the listeners accept connections."""
        self._say_ready()
        loop = asyncio.get_running_loop()
        # A separate task for the watchdog: a disk that hangs delays the other work, and a restart
        # fixes no disk.
        self._tasks.append(loop.create_task(self._feed(), name="watchdog"))
        self._tasks.append(loop.create_task(self._run(), name="supervisor"))

    def reload_soon(self) -> None:
        """Read the configuration again within a second. Signal handlers may call it."""
        self._reload_asked = True

    async def _run(self) -> None:
        try:
            seconds = 0
            while not self._appliance.stopping.is_set():
                try:
                    await self._second(seconds)
                    self._disk_fault = None
                except Exception as error:  # noqa: BLE001 - the next second tries again
                    self._failed(error)
                seconds += 1
                await asyncio.sleep(_TICK_S)
        finally:
            self._systemd.stopping()
            health.remove(self._appliance.data_dir)

    def _failed(self, error: Exception) -> None:
        reason = disk_fault(error)
        if reason is None:
            logger.error("supervision failed; the next second tries again", exc_info=error)
        elif reason != self._disk_fault:
            logger.error(
                "%s can't be used: %s. Until it can be, there is no health report there, and"
                " requests of other commands are not answered",
                self._appliance.data_dir,
                reason,
            )
        self._disk_fault = reason

    async def _feed(self) -> None:
        """Feed the watchdog while a restart would fix nothing.

        A restart fixes no Qlik server or disk that is down, and a failed thread that runs again
        needs none. A thread that has ended, and a loop that hangs, need a restart.
        """
        appliance = self._appliance
        told = False
        while not appliance.stopping.is_set():
            lost = appliance.lost_threads()
            if not lost:
                clients, messages = appliance.broker.clients_connected, appliance.door.messages_in
                self._systemd.alive(f"{clients} clients, {messages} messages")
            elif not told:
                told = True
                names = ", ".join(lost)
                self._systemd.failing(f"threads have ended: {names}")
                logger.critical(
                    "these threads have ended by a defect, please report it: %s. A restart is"
                    " needed; a watchdog is not fed any more",
                    names,
                )
            await asyncio.sleep(_TICK_S)

    async def _second(self, seconds: int) -> None:
        step_ns = self._appliance.clock.stepped_ns
        if seconds % health.WRITE_EVERY_S == 0 or step_ns != self._reported_step_ns:
            # At once after a step of the clock: until then the last report seems to be old.
            self._reported_step_ns = step_ns
            found = self._view.snapshot()
            level = logging.getLevelName(logging.getLogger().level).lower()
            report = msgspec.structs.replace(health.report(found), log_level=level)
            await asyncio.to_thread(health.write, self._appliance.data_dir, report)
        if self._reload_asked:
            self._reload_asked = False
            await self._reload()
        if seconds % _CLEAR_EVERY_S == 0:
            self._left_behind = await asyncio.to_thread(
                control_file.remove_old, self._appliance.data_dir, self._left_behind
            )
        for _ in range(_LOOKS_AT_ONCE):
            requests = await asyncio.to_thread(self._look)
            if not requests:
                break
            await self._carry_out(requests)
            await asyncio.sleep(_NEXT_LOOK_S)

    def _look(self) -> list[control_file.Request]:
        self._appliance.check_directory()
        return control_file.take(self._appliance.data_dir)

    async def _carry_out(self, requests: list[control_file.Request]) -> None:
        reloaded: tuple[bool, list[str]] | None = None
        for request in requests:
            if request.ask == "reload":
                # One reading of the configuration answers all who asked before it.
                reloaded = reloaded or await self._reload()
                done, lines = reloaded
            elif request.ask == "acknowledge":
                done, lines = await asyncio.to_thread(self._acknowledge, request)
            elif request.ask == "acknowledge-list":
                done, lines = True, acknowledging.listed(self._view.snapshot())
            elif request.ask == "unacknowledge":
                done, lines = await asyncio.to_thread(acknowledging.take_back, self._view, request)
            elif request.ask == "session-list":
                await asyncio.to_thread(self._list_sessions, request)
                continue
            elif request.ask == "session-end":
                done, lines = await asyncio.to_thread(self._end_session, request.client_id)
            else:
                done, lines = self._set_level(request.level)
            found = control_file.Answer(request.id, done, tuple(lines))
            await asyncio.to_thread(control_file.answer, self._appliance.data_dir, found)

    def _say_ready(self) -> None:
        self._systemd.ready("listening" if self._appliance.config.listener else "no listeners")

    async def _reload(self) -> tuple[bool, list[str]]:
        self._systemd.reloading()
        try:
            done, lines = await asyncio.to_thread(reload, self._appliance)
        finally:
            self._say_ready()
        for line in lines:
            logger.log(logging.INFO if done else logging.ERROR, "reload: %s", line)
        return done, lines

    def _acknowledge(self, request: control_file.Request) -> tuple[bool, list[str]]:
        if request.names:
            return acknowledging.acknowledge(self._view, request)
        try:
            losses = self._view.acknowledge(request.by or "appliance acknowledge", request.note)
        except ApplianceError as error:
            return False, [str(error)]
        return True, [f"acknowledged: {loss}" for loss in losses] or ["no loss is known"]

    def _list_sessions(self, request: control_file.Request) -> None:
        sessions, more = page(self._view.clients(), request.client_id)
        found = control_file.Answer(request.id, True, (), sessions, more)
        control_file.answer(self._appliance.data_dir, found)

    def _end_session(self, client_id: str) -> tuple[bool, list[str]]:
        try:
            dropped = self._view.end_session(client_id, "appliance session end")
        except ApplianceError as error:
            return False, [str(error)]
        return True, [f"the session of {client_id} is ended; messages dropped: {dropped}"]

    def _set_level(self, level: str) -> tuple[bool, list[str]]:
        log = self._appliance.log
        if log is None or level not in ("debug", "info", "warning", "error"):
            return False, [f"the log level can't be set to {level}"]
        log.set_level(level)
        logger.warning("the log level is %s until the next start or reload", level)
        return True, [f"the log level is {level} until the next start or reload"]
