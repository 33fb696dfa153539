"""``appliance demo``: the appliance as it is, with a simulated Qlik server and a publisher.

Nothing here is a shortcut: the Qlik server is asked over real HTTP on loopback, the publisher
signs in at the broker over a real socket. The configuration is written into the demo's folder, so
that it can be read, copied and used with ``appliance run``. Not for: the simulated server itself
(qlik/simulated), the publisher (publisher.py).
"""

from __future__ import annotations

import socket
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.broker.users import Users
from appliance.config.reading import load
from appliance.demo.publisher import DemoPublisher
from appliance.errors import NoPermissionError, UnavailableError
from appliance.listening import bind
from appliance.model import ExecutionState
from appliance.process.run import run as run_appliance
from appliance.process.run import say_at_end, start_log

if TYPE_CHECKING:
    from appliance.engine.service import Appliance

USER, PASSWORD = "wiredflow", b"wiredflow"
_PORT = 1883
_CONFIG = "demo.toml"


def main(*, headless: bool, run_for_s: float | None, data_dir: str | None) -> int:
    """Run the demo; returns the exit code.

    Args:
        headless: log lines only.
        run_for_s: stop after this many seconds; ``None``: run until stopped.
        data_dir: folder for everything that the demo writes, by default ``demo-data`` here.

    Raises:
        ApplianceError: the folder can't be written, or no port is free.
    """
    folder = Path(data_dir or "demo-data").absolute()
    config = load(_prepare(folder))
    log = start_log(config, headless=headless)
    served: list[Appliance] = []

    def make() -> Appliance:
        from appliance.engine.service import Appliance  # noqa: PLC0415 - loaded behind the first paint

        appliance = Appliance(config, log=log, run_for_s=run_for_s)
        appliance.when_ready(publisher.start)
        appliance.when_ready(lambda: served.append(appliance))
        return appliance

    try:
        with DemoPublisher(config.listener[0].bind, USER, PASSWORD) as publisher:
            code = run_appliance(make, config, headless=headless)
    finally:
        log.close()
    if served:
        say_at_end(_summary(served[0]))
    return code


def _prepare(folder: Path) -> Path:
    """Write the demo's configuration and users file; returns the configuration's path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        users = Users(folder / "users.txt")
        if USER not in users.names():
            users.add(USER, PASSWORD)
        text = resources.files(__package__).joinpath(_CONFIG).read_text("utf-8")
        path = folder / _CONFIG
        path.write_text(text.replace("127.0.0.1:1883", f"127.0.0.1:{_free_port()}"), "utf-8")
    except PermissionError:
        raise NoPermissionError(
            f"The demo can't write into {folder}. Name another folder with --data-dir."
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"The demo can't use {folder}: {error.strerror}. Name another folder with --data-dir."
        ) from None
    return path


def _free_port() -> int:
    """MQTT's own port, or any free one if a broker is running here already."""
    for port in (_PORT, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                bind(probe, ("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("No port on 127.0.0.1 is free for the demo's broker.")


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
