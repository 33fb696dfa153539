"""An appliance with an HTTP port, in this process or in one of its own, and clients for it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import requests
from appliance_process import DEADLINE_S, ApplianceProcess
from quick_appliance import LIMITS

from appliance.broker.users import Users
from appliance.config.reading import load
from appliance.counters import Counter
from appliance.engine.service import Appliance
from appliance.http_api.server import attach
from appliance.mqtt.client import Client, Target
from appliance.secret import Secret

PASSWORD = "correct horse"


def text_of(
    folder: Path,
    more: str = "",
    *,
    http: str = "",
    metrics: str = "",
    users: Mapping[str, str] | tuple[str, ...] | None = None,
    access: str = "",
    bind: str = 'bind = "127.0.0.1:0"',
) -> str:
    """A configuration: MQTT on port 0, HTTP on port 0, and ``more`` tables.

    ``http``, ``access``: further lines of these tables. ``metrics``: those of ``[metrics]``, on
    port 0, instead of ``[http]``. ``users``: names with their passwords, or
    names whose password is ``PASSWORD``; without them no password is asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if users is not None:
        passwords = dict(users) if isinstance(users, Mapping) else dict.fromkeys(users, PASSWORD)
        kept = Users(str(folder / "users.txt"))
        for name, password in passwords.items():
            kept.add(name, password.encode())
        access = f'users_file = "users.txt"\n{access}'
    return f"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:0"
[{"metrics" if metrics else "http"}]
{bind}
{metrics or http}
[access]
{access}
{more}
"""


def session(user: str | None = None, password: str = PASSWORD) -> requests.Session:
    """A client that asks no proxy; close it."""
    found = requests.Session()
    found.trust_env = False
    if user is not None:
        found.auth = (user, password)
    return found


class HttpSite:
    """An appliance in this process, for ``with``. Arguments as ``text_of``, ``server`` as there."""

    def __init__(self, folder: Path, more: str = "", *, server: Any = None, **parts: Any) -> None:
        self.folder = folder
        path = folder / "config.toml"
        path.write_text(text_of(folder, more, **parts), "utf-8")
        self.appliance = Appliance(load(path), task_limits=LIMITS, server=server)
        attach(self.appliance)
        self.server = self.appliance._parts[-1]
        self.scheme = "https" if self.appliance.config.http.tls else "http"
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> Self:
        self.appliance.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for each in self._sessions:
            each.close()
        self.stop()

    def stop(self) -> None:
        self.appliance.stop()
        assert self.appliance.wait(DEADLINE_S)

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def where(self) -> tuple[str, int]:
        """For a socket."""
        return "127.0.0.1", self.port

    def raw(self, request: bytes = b"") -> socket.socket:
        """A connection that has sent ``request``."""
        found = socket.create_connection(self.where, DEADLINE_S)
        found.sendall(request)
        return found

    def counted(self, counter: Counter) -> int:
        return self.appliance.counters[counter]

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2])

    def ask(
        self, method: str, path: str, user: str | None = None, password: str = PASSWORD, **more: Any
    ) -> requests.Response:
        """One request on a connection of its own, unless ``user`` asked before."""
        key = (user, password)
        for each in self._sessions:
            if (each.auth or (None, PASSWORD)) == key:
                found = each
                break
        else:
            found = session(user, password)
            self._sessions.append(found)
        return found.request(method, self.url + path, timeout=DEADLINE_S, **more)

    @property
    def mqtt(self) -> str:
        """``host:port`` of the MQTT listener."""
        (port,) = self.appliance.broker.ports.values()
        return f"127.0.0.1:{port}"

    def client(self, user: str | None = None, client_id: str = "test") -> Client:
        """An MQTT client, for ``with``."""
        host, _, port = self.mqtt.rpartition(":")
        secret = None if user is None else Secret(PASSWORD)
        return Client(
            Target(host, int(port), client_id=client_id, username=user, password=secret),
            keepalive_s=60,
        )


class HttpProcess(ApplianceProcess):
    """``appliance run --headless`` with an HTTP port. Arguments as ``text_of``."""

    def __init__(
        self,
        folder: Path,
        more: str = "",
        *,
        program: tuple[str, ...] = ("-m", "appliance"),
        environment: Mapping[str, str] | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(folder, text_of(folder, more, **parts), program=program)
        self._more_environment = dict(environment or {})

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **os.environ, **self._more_environment}

    @property
    def url(self) -> str:
        """Without a slash at the end; waits until the log says it."""
        line = self.wait_for_line("HTTP on http")
        return re.search(r"https?://\S+", line)[0]
