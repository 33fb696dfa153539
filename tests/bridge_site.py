"""An appliance with a bridge to another broker, a Qlik server, and what both say of messages.

Each message that comes in by the bridge names a task of its own, so the starts of that task are the
starts of that message.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Self

from appliance_process import QUICK, ApplianceProcess, until
from other_brokers import PASSWORD, USER, Remote

from appliance.journal import chunks
from appliance.model import Message, bridge_client_id
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask

BRIDGE = "plant"

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "client-managed"
url = "{url}"
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}}
[[trigger]]
topic = "in/#"
task = "payload"
if_running = "start"
[[bridge]]
name = "plant"
host = "{host}"
port = {port}
version = "{version}"
client_id = "{client_id}"
keepalive = "5s"
{login}
{more}
subscribe = [{{topic = "{subscribe}", local_prefix = "in/"}}]
publish = [{publish}]
"""


def task_id(number: int) -> str:
    """The task of the message with this number; ids sort as the messages were sent."""
    return f"00000000-0000-4000-8000-{number:012}"


class Site:
    """The appliance of one test: ``with Site(...) as site``; the bridge is connected then."""

    users = False
    host = "127.0.0.1"
    kind = "appliance"

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        tasks: int = 0,
        host: str = "127.0.0.1",
        version: str = "3.1.1",
        client_id: str = "bridge",
        user: str = USER,
        password: str = PASSWORD,
        subscribe: str = "plant/#",
        publish: str = '{topic = "out/#", remote_prefix = "from/"}',
        more: str = "",
        tables: str = "",
        process: type[ApplianceProcess] = ApplianceProcess,
        program: tuple[str, ...] = QUICK,
    ) -> None:
        self._ids = [task_id(number) for number in range(tasks)]
        self.qlik = SimulatedQlik([SimulatedTask(id, id=id, duration_s=0.01) for id in self._ids])
        login = f'username = "{user}"\npassword = "{password}"' if user else ""
        self._config = CONFIG.replace("{login}", login).replace("{more}", more) + tables
        self._settings = {
            "host": host,
            "port": port,
            "version": version,
            "client_id": client_id,
            "subscribe": subscribe,
            "publish": publish,
        }
        self._folder = folder
        self._make = (process, program)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.qlik)
            process, program = self._make
            config = self._config.format(url=self.qlik.url, **self._settings)
            named = {} if process is not ApplianceProcess else {"program": program}
            self.process = stack.enter_context(process(self._folder, config, **named))  # type: ignore[arg-type]
            self.port = self.process.port
            self.process.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if error is not None:
            print(*self.process.lines, sep="\n")  # noqa: T201
        self._stack.close()

    def client(self, name: str = "plc") -> Remote:
        """A client of the appliance."""
        return Remote(self, name)  # type: ignore[arg-type]

    def journaled(self) -> list[Message]:
        """Every message that the bridge brought in, in the journal's order."""
        wanted = bridge_client_id(BRIDGE)
        return [message for message in self.messages() if message.client_id == wanted]

    def messages(self) -> list[Message]:
        """Every message of the journal."""
        path = self.process.data / "journal.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
            rows = journal.execute("SELECT body FROM chunk ORDER BY first_seq").fetchall()
        return [message for (body,) in rows for message in chunks.decode(body)]

    def starts(self) -> Counter[str]:
        """The start calls at the Qlik server, by task id."""
        return Counter({id: self.qlik.starts(id) for id in self._ids})

    def said(self, *parts: str) -> str:
        """Wait for a log line that has all parts, whatever its case, and return it."""

        def find() -> str:
            for line in list(self.process.lines):
                if all(part.lower() in line.lower() for part in parts):
                    return line
            return ""

        return until(find, f"a line with {parts}, only\n" + "\n".join(self.process.lines), 30)

    def end(self) -> None:
        """Stop it in order; nothing went wrong within."""
        assert self.process.end() == 0
        assert "Traceback" not in "\n".join(self.process.lines)
