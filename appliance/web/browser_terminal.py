"""The process of one browser's terminal, and its packets: textual-serve's, without its shell.

The name and password go to the process by its input, as the first line: neither the command line
nor the environment has them. What the process writes on its error stream is this process's.
Not for: the process itself (commands/web_terminal.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

_PRELUDE = b"__GANGLION__\n"
_QUIT_S = 3.0
"""How long the UI may take to end itself."""
# Ctrl+C is for the server, which then ends its terminals one by one.
_OWN_GROUP: dict[str, Any]
if sys.platform == "win32":
    _OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _OWN_GROUP = {"start_new_session": True}
COLUMNS, ROWS = 1000, 500
"""The largest terminal; a larger one would cost memory without end."""


class BrowserTerminal(AppService):
    """One attached terminal; ``start`` it, and ``stop`` it at the end."""

    def __init__(
        self,
        first_line: bytes,
        *,
        write_bytes: Callable[[bytes], Awaitable[None]],
        write_str: Callable[[str], Awaitable[None]],
        close: Callable[[], Awaitable[Any]],
    ) -> None:
        super().__init__(
            "",
            write_bytes=write_bytes,
            write_str=write_str,
            close=close,
            download_manager=DownloadManager(),  # the UI offers no downloads
        )
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._first_line = first_line
        self._stopping = False
        self.ended_itself = False
        """Whether the UI was left, or the process has failed."""

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        # Fixed arguments; -P: no module is taken from the present folder.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "appliance.commands.web_terminal",
            stdin=PIPE,
            stdout=PIPE,
            env=_environment(*bounded(width, height)),
            **_OWN_GROUP,
        )
        assert process.stdin is not None
        self._process, self._stdin = process, process.stdin
        process.stdin.write(self._first_line + b"\n")
        self._first_line = b""
        return process

    async def set_terminal_size(self, width: int, height: int) -> None:
        await super().set_terminal_size(*bounded(width, height))

    async def stop(self) -> None:
        """End the process: by asking, and after three seconds by force."""
        process, task = self._process, self._task
        if process is None or task is None:
            return
        self._task, self._stopping = None, True
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIT_S):
                    await self.send_meta({"type": "quit"})
                    await process.wait()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        """Hand on what the process writes, until it ends."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        read = process.stdout.readexactly
        try:
            if await read(len(_PRELUDE)) == _PRELUDE:
                while True:
                    kind = await read(1)
                    payload = await read(int.from_bytes(await read(4), "big"))
                    if kind == b"D":
                        await self.on_data(payload)
                    elif kind == b"M" and msgspec.json.decode(payload).get("type") == "exit":
                        break
        except ConnectionError:  # the browser has gone
            return
        except (asyncio.IncompleteReadError, msgspec.MsgspecError):
            pass
        self.ended_itself = not self._stopping
        await self.remote_close()


def bounded(width: object, height: object) -> tuple[int, int]:
    """A size that a terminal may have; what is none becomes 80 by 24."""
    columns = width if isinstance(width, int) and not isinstance(width, bool) else 80
    rows = height if isinstance(height, int) and not isinstance(height, bool) else 24
    return min(max(columns, 1), COLUMNS), min(max(rows, 1), ROWS)


def _environment(width: int, height: int) -> Mapping[str, str]:
    kept = {key: text for key, text in os.environ.items() if not key.startswith("TEXTUAL")}
    return kept | {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "TEXTUAL_COLOR_SYSTEM": "truecolor",
        "COLUMNS": str(width),
        "ROWS": str(height),
    }
