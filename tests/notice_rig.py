"""Receivers of notices over real sockets: a webhook, a mail server; and targets with a clock."""

from __future__ import annotations

import email
import email.message
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wine import SLOWNESS

from appliance.config.tables import NotifyConfig
from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.secret import Secret
from appliance.tasks.catalog import TaskList
from appliance.tasks.notice import Notice
from appliance.tasks.notices import Notices


class _Lister:
    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._listed = tasks

    def tasks(self) -> tuple[Task, ...]:
        return self._listed

    def apps(self) -> tuple[Task, ...]:
        return ()


def task_list(*tasks: Task) -> TaskList:
    """A list of tasks that was read."""
    made = TaskList(_Lister(tasks))
    made.get()
    return made


class Inbox:
    """What arrived at an endpoint."""

    def __init__(self) -> None:
        self.arrived: list = []
        self.receivers: list[list[str]] = []
        """Of a mail server: the RCPT TO of each letter."""
        self.refusals = 0
        self.most_bytes = 0
        """Of a mail server: a longer letter is refused; 0: none is."""
        self.url = ""
        self._changed = threading.Condition()

    def add(self, item: object) -> None:
        with self._changed:
            self.arrived.append(item)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrived) >= count, 20 * SLOWNESS), (
                self.arrived
            )
            return self.arrived

    def letters(self, count: int) -> list[email.message.Message]:
        """So many letters, taken apart."""
        return [email.message_from_string(text) for text in self.wait_for(count)]


@contextmanager
def webhook_inbox() -> Iterator[Inbox]:
    """An HTTP server that takes JSON."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if inbox.refusals:
                inbox.refusals -= 1
                self.send_error(500)
                return
            self.send_response(200)
            self.end_headers()
            inbox.add(json.loads(body))

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        inbox.url = f"json://127.0.0.1:{server.server_port}/hook"
        yield inbox
        server.shutdown()


@contextmanager
def mail_inbox() -> Iterator[Inbox]:
    """An SMTP server that takes every letter."""
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 local\r\n")
            receivers: list[str] = []
            while line := self.rfile.readline():
                verb = line[:4].upper()
                answer = b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
                if verb == b"RCPT":
                    receivers.append(line.decode().partition("<")[2].partition(">")[0])
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    letter = b""
                    while (text := self.rfile.readline()) != b".\r\n":
                        letter += text
                    if inbox.most_bytes and len(letter) > inbox.most_bytes:
                        answer = b"552 too big\r\n"
                    else:
                        inbox.receivers.append(receivers)
                        inbox.add(letter.decode())
                    receivers = []
                self.wfile.write(answer)
                if verb == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_address[1]
        inbox.url = (
            f"mailto://127.0.0.1:{port}?from=appliance@example.com&to=ops@example.com&mode=insecure"
        )
        yield inbox
        server.shutdown()


def notify(url: str, **fields: Any) -> NotifyConfig:
    return NotifyConfig(url=Secret(url), **fields)


def notice(name: str = "Reload sales", kind: str = "failed", **fields: Any) -> Notice:
    execution = Execution(1, "id", name, ExecutionState.FAILED, Cause("operator", rule="ann"), 0)
    return Notice(kind, execution, **fields)


class Sender:
    """A running ``Notices`` with a clock of its own."""

    def __init__(self, *configs: NotifyConfig, **settings: Any) -> None:
        self.counted = Inbox()
        self.now_s = 0.0
        self.stopped = threading.Event()
        self.notices = Notices(
            configs, self.counted.add, monotonic=lambda: self.now_s, retry_s=0.01, **settings
        )
        self.threads = [
            threading.Thread(target=one.run, args=(self.stopped,)) for one in self.notices.targets
        ]

    def __enter__(self) -> Sender:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
