"""Running the appliance in this process: signals, log, terminal or none, exit code.

The one place that joins the engine and the terminal UI. Textual is imported only where there is
a terminal to show it. Not for: the engine's own life (engine/service.py).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TextIO

from appliance import __version__, tuning
from appliance.config.files import all_secrets
from appliance.config.tables import Config
from appliance.errors import EXIT_OK, EXIT_SOFTWARE
from appliance.log import logs

if TYPE_CHECKING:
    # Loading it takes half a second. The UI's first paint does not wait for it.
    from appliance.engine.service import Appliance
    from appliance.qlik.server import QlikServer

logger = logging.getLogger(__name__)

_STEP_S = 0.5
_STOP_S = 30.0
_PARTING_S = 1.0
_EXIT_FORCED = 130


def main(
    config: Config,
    *,
    headless: bool,
    run_for_s: float | None = None,
    server: QlikServer | None = None,
) -> int:
    """Run an appliance until it is stopped; returns the exit code. Main thread only.

    Raises:
        ApplianceError: it could not be started.
    """
    log = start_log(config, headless=headless)
    logger.info(
        "appliance %s starts: process %d, configuration %s, data in %s",
        __version__,
        os.getpid(),
        config.file or "built in",
        config.service.data_dir,
    )

    def make() -> Appliance:
        from appliance.engine.service import Appliance  # noqa: PLC0415 - see the import above
        from appliance.http_api.server import attach  # noqa: PLC0415

        appliance = Appliance(config, log=log, run_for_s=run_for_s, server=server)
        attach(appliance)
        return appliance

    try:
        return run(make, config, headless=headless)
    except Exception as error:
        log.report_failure(error)
        raise
    finally:
        log.close()


def start_log(config: Config, *, headless: bool) -> logs.Log:
    """Begin logging: to the terminal, or into the data directory while the UI has the terminal."""
    service = config.service
    return logs.start_for(
        service.data_dir,
        service.log_level,
        owns_terminal=not headless,
        secrets=all_secrets(config),
        form=service.log_format,
        event_log=service.event_log,
    )


def run(make: Callable[[], Appliance], config: Config, *, headless: bool) -> int:
    """Make and start an appliance, serve, and say how it ended. Main thread only.

    Raises:
        ApplianceError: it could not be made or started.
    """
    tuning.begin_start()
    try:
        appliance = _headless(make) if headless else _with_ui(make, config)
    finally:
        gc.enable()
    if appliance is not None and appliance.failure is not None:
        logger.error("the appliance ended because of a failure: %s", appliance.failure)
        return getattr(appliance.failure, "exit_code", EXIT_SOFTWARE)
    return EXIT_OK


def _headless(make: Callable[[], Appliance]) -> Appliance:
    from appliance.ops.supervisor import Supervisor  # noqa: PLC0415 - imports the service

    appliance = make()
    supervisor = Supervisor(appliance)
    appliance.when_ready(supervisor.begin)
    # Without a terminal, SIGHUP means to read the configuration again.
    as_daemon = not sys.stderr.isatty()
    with Signals(appliance.stop, supervisor.reload_soon if as_daemon else None):
        appliance.start()
        # In steps: on Windows an endless wait would block signals.
        while not appliance.wait(_STEP_S):
            pass
    return appliance


def _with_ui(make: Callable[[], Appliance], config: Config) -> Appliance | None:
    """Paint first, then start the engine behind it; returns the appliance if it was made."""
    from appliance.process.starting_engine import StartingEngine  # noqa: PLC0415 - see the module's docstring
    from appliance.process.ui_settings import ui_settings  # noqa: PLC0415
    from appliance.ui.app import UiEnd  # noqa: PLC0415
    from appliance.ui.session import run_ui  # noqa: PLC0415

    settings = ui_settings(config)  # a mistake is an error before anything is started

    def made() -> Appliance:
        from appliance.ops.supervisor import Supervisor  # noqa: PLC0415 - imports the service

        appliance = make()
        appliance.when_ready(Supervisor(appliance).begin)
        return appliance

    engine = StartingEngine(made, name=config.service.name)
    outlives = config.ui.on_hangup == "continue"
    with Signals(engine.stop, (lambda: None) if outlives else None):
        try:
            end = run_ui(engine, settings=settings, when_painted=engine.begin, say=say_at_end)
            if end is UiEnd.HANGUP and outlives:
                logger.warning("the appliance continues without its terminal UI")
                engine.begin()
                while not engine.wait(_STEP_S):
                    pass
        finally:
            engine.stop()
            engine.wait(_STOP_S)
    if engine.failure is not None:
        raise engine.failure
    return engine.appliance


def say_at_end(text: str) -> bool:
    """Print ``text``; returns whether standard output took it.

    The terminal may be closed by then, which is no error, or hang, which is given up after a
    second. The text bypasses Python's buffer: a thread that hangs must not hold the buffer's lock,
    because Python flushes the buffer at the exit.
    """
    output = sys.stdout
    # A closed terminal is not reported as a terminal any more.
    if not _is_device(output):
        print(text, flush=True)  # noqa: T201  a file or a pipe may block: its reader decides
        return True
    data = memoryview(f"{text}\n".encode(output.encoding, "backslashreplace"))
    done = threading.Event()

    def write() -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while sent < len(data):
                sent += os.write(output.fileno(), data[sent:])
            done.set()

    thread = threading.Thread(target=write, name="parting words", daemon=True)
    thread.start()
    thread.join(_PARTING_S)
    return done.is_set()


def _is_device(output: TextIO) -> bool:
    """Whether it is a terminal or was one before it was closed."""
    try:
        return stat.S_ISCHR(os.fstat(output.fileno()).st_mode)
    except OSError:  # not a file of the operating system
        return False


class Signals:
    """Ctrl+C, SIGTERM and SIGHUP call ``stop`` for an ordered end; a second Ctrl+C ends at once.

    With ``on_hangup``, SIGHUP calls that instead. The earlier handlers are restored afterwards.
    Main thread only.
    """

    def __init__(
        self, stop: Callable[[], object], on_hangup: Callable[[], None] | None = None
    ) -> None:
        self._stop = stop
        self._on_hangup = on_hangup
        self._before: dict[int, Any] = {}
        self._asked = False

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._on_hangup is not None and number == getattr(signal, "SIGHUP", None):
            self._on_hangup()
            return
        if self._asked and number == signal.SIGINT:
            os._exit(_EXIT_FORCED)
        self._asked = True
        self._stop()
