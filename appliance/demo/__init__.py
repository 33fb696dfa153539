"""``appliance demo``: the appliance as it is, with a simulated Qlik server and a publisher.

Nothing here is a shortcut: the Qlik server is asked over real HTTP on loopback, the publisher
signs in at the broker over a real socket. The configuration is written into the demo's folder, so
that it can be read, copied and used with ``appliance run``. Not for: the simulated server itself
(qlik/simulated, offered by qlik_server.py), the publisher (publisher.py).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.broker.users import Users
from appliance.config.reading import load
from appliance.demo.ports import free_port
from appliance.demo.publisher import DemoPublisher
from appliance.demo.qlik_server import OfferedQlik, offered
from appliance.errors import NoPermissionError, UnavailableError
from appliance.model import ExecutionState
from appliance.process.run import run as run_appliance
from appliance.process.run import say_at_end, start_log
from appliance.tasks.jobs import Limits

if TYPE_CHECKING:
    from appliance.engine.service import Appliance

logger = logging.getLogger(__name__)

USER, PASSWORD = "wiredflow", b"wiredflow"
HEADLESS_S = 30.0
"""Seconds after which a demo without the terminal UI ends, unless told otherwise."""
_PORT = 1883
_CONFIG = "demo.toml"
_REPORT_S = 5
_LOST_AFTER_S = 1.0
"""The simulated server is new in each demo: it knows no run of an earlier one in the same folder,
and a task whose run has no end is not started again."""


def main(*, headless: bool, run_for_s: float | None, data_dir: str | None, qlik: bool) -> int:
    """Run the demo; returns the exit code.

    Args:
        headless: log lines only.
        run_for_s: stop after this many seconds; ``None``: until ``q``, without the terminal UI
            after ``HEADLESS_S``.
        data_dir: folder for everything that the demo writes, by default ``demo-data`` here.
        qlik: offer the simulated Qlik server to other programs.

    Raises:
        ApplianceError: the folder can't be written, or no port is free.
    """
    if headless and run_for_s is None:
        run_for_s = HEADLESS_S
    folder = Path(data_dir or "demo-data").absolute()
    with contextlib.ExitStack() as stack:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            server = stack.enter_context(offered(folder / "qlik")) if qlik else None
            path = _prepare(folder, server)
        if server is not None:
            say_at_end(server.explanation)
        return _run(path, headless=headless, run_for_s=run_for_s, server=server)


def _run(path: Path, *, headless: bool, run_for_s: float | None, server: OfferedQlik | None) -> int:
    config = load(path)
    log = start_log(config, headless=headless)
    served: list[Appliance] = []

    def make() -> Appliance:
        from appliance.engine.service import Appliance  # noqa: PLC0415 - loaded behind the first paint

        limits = Limits(lost_after_s=_LOST_AFTER_S)
        appliance = Appliance(config, log=log, run_for_s=run_for_s, task_limits=limits)
        appliance.when_ready(lambda: served.append(appliance))
        appliance.when_ready(begin)
        return appliance

    def begin() -> None:
        if server is not None:
            logger.info("%s", server.summary)
        if run_for_s is not None:
            logger.info("the demo ends by itself after %g s (--run-for)", run_for_s)
        publisher.start()

    def report(second: int) -> None:
        if second % (2 * _REPORT_S) == _REPORT_S:
            _report(served[0])

    try:
        with DemoPublisher(config.listener[0].bind, USER, PASSWORD, report) as publisher:
            code = run_appliance(make, config, headless=headless)
    finally:
        log.close()
    if served:
        say_at_end(_summary(served[0]))
    return code


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn the errors of writing into the demo's folder into the appliance's own."""
    try:
        yield
    except PermissionError:
        raise NoPermissionError(
            f"The demo can't write into {folder}. Name another folder with --data-dir."
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"The demo can't use {folder}: {error.strerror}. Name another folder with --data-dir."
        ) from None


def _prepare(folder: Path, server: OfferedQlik | None) -> Path:
    """Write the demo's configuration and users file; returns the configuration's path."""
    users = Users(folder / "users.txt")
    if USER not in users.names():
        users.add(USER, PASSWORD)
    text = resources.files(__package__).joinpath(_CONFIG).read_text("utf-8")
    text = text.replace(f"127.0.0.1:{_PORT}", f"127.0.0.1:{free_port(_PORT)}")
    if server is not None:
        table = server.table
        text = re.sub(r"\[qlik\]\n.*\n", lambda _: table, text)
    path = folder / _CONFIG
    path.write_text(text, "utf-8")
    return path


def _report(appliance: Appliance) -> None:
    """Name in the log what it does not name by itself: recordings, and timers that wait."""
    for recorder in appliance.recorders.states():
        logger.info(
            "recorded: %d messages of %s are in %s",
            recorder.recorded, recorder.topic, recorder.path,
        )  # fmt: skip
    for timer in appliance.tasks.timers():
        if timer.due_ns is not None:
            seconds = (timer.due_ns - appliance.clock_ns()) / 1e9
            logger.info("timer %s is due in %.0f s: %s", timer.name, seconds, timer.detail)


def _summary(appliance: Appliance) -> str:
    lines = ["", "What happened:"]
    lines.append(f"  {appliance.door.messages_in} messages accepted and journaled")
    lines += [
        f"  {recorder.recorded} messages of {recorder.topic} are in {recorder.path}"
        for recorder in appliance.recorders.states()
    ]
    executions = appliance.tasks.executions(1000)
    for state in ExecutionState:
        mine = [each for each in executions if each.state is state]
        if mine:
            names = ", ".join(sorted({each.task_name or each.task_id for each in mine}))
            lines.append(f"  {len(mine)} x {state.value}: {names}")
    lines.append(f"  configuration to start from: {appliance.config.file}")
    return "\n".join(lines)
