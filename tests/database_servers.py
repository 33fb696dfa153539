"""Real database servers for tests: Debian's PostgreSQL and MariaDB, each in a folder of its own.

They listen on loopback, and their processes belong to the test. As root they run as the users that
the packages made, because PostgreSQL refuses root. Not for: SQLite, which needs no server.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PASSWORD = "pass@word/with:signs"
PASSWORD_IN_URL = "pass%40word%2Fwith%3Asigns"
_START_S = 60


def _postgres_folder() -> Path | None:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if found:
        return Path(found[-1]).parent
    path = shutil.which("initdb")
    return Path(path).resolve().parent if path else None


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


POSTGRES = _postgres_folder()
MARIADBD = _which("mariadbd")


def _user(name: str) -> str | None:
    """The user that a server runs as; ``None``: this one."""
    return name if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def _is_stopped(pid: int) -> bool:
    """Whether no thread of a process runs any more (Linux; elsewhere it is believed)."""
    tasks = [Path(found) for found in glob.glob(f"/proc/{pid}/task/*/stat")]
    return all(task.read_text().rpartition(")")[2].split()[0] in "TtZ" for task in tasks)


def _memory_folder() -> str | None:
    """A folder in memory, where servers start faster; ``None``: the usual place."""
    folder = "/dev/shm"
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 2 * 1024**3
    return folder if has_room else None


class Server:
    """A server process; ``kill`` and ``start`` as often as a test wants."""

    user = ""

    def __init__(self) -> None:
        # Not below pytest's folder: only its own user may look into that one, and the path of a
        # socket has at most 107 bytes.
        memory = _memory_folder()
        self.folder = Path(tempfile.mkdtemp(prefix="db-", dir=memory))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir()
        if _user(self.user):
            shutil.chown(self.folder, self.user)
            shutil.chown(self.data, self.user)
        self.data.chmod(0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self._log = (self.folder / "log").open("wb")

    def run(self, *command: object, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            user=_user(self.user),
            group=_user(self.user),
            extra_groups=[] if _user(self.user) else None,
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_START_S,
            **more,
        )

    def _spawn(self, *command: object) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            user=_user(self.user),
            group=_user(self.user),
            extra_groups=[] if _user(self.user) else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def command(self) -> list[object]:
        raise NotImplementedError

    def sql(self, text: str, database: str = "") -> list[tuple[object, ...]]:
        """Run a statement as the administrator."""
        raise NotImplementedError

    def start(self) -> None:
        end = time.monotonic() + _START_S
        self._spawn(*self.command())
        while True:
            try:
                self._wait_for_socket()
                self.sql("SELECT 1")
            except Exception:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                if self.process.poll() is not None:  # the killed one's memory is still in use
                    time.sleep(0.2)
                    self._spawn(*self.command())
                time.sleep(0.05)
            else:
                return

    def _wait_for_socket(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), 5).close()

    def pause(self) -> None:
        """The server hangs: its processes are stopped, and its system goes on."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
            while not _is_stopped(pid):
                time.sleep(0.01)

    def resume(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        return [self.process.pid, *found]

    def kill(self) -> None:
        """As a power cut does, for the process."""
        if self.process is not None:
            pids = self._pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(20)
            self.process = None

    def close(self) -> None:
        self.kill()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer(Server):
    user = "postgres"

    def __init__(self) -> None:
        super().__init__()
        assert POSTGRES is not None
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run(
            POSTGRES / "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip

    def command(self) -> list[object]:
        assert POSTGRES is not None
        return [
            POSTGRES / "postgres", "-D", self.data, "-p", self.port, "-c", "fsync=off",
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}",
        ]  # fmt: skip

    def sql(self, text: str, database: str = "postgres") -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=PASSWORD,
            dbname=database or "postgres",
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str = "postgres", *, user: str = "postgres", port: int = 0) -> str:
        return (
            f"postgresql+psycopg://{user}:{PASSWORD_IN_URL}@127.0.0.1:{port or self.port}"
            f"/{database}"
        )


_SMALL = ("--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M")


class MariaDBServer(Server):
    user = "mysql"

    def __init__(self) -> None:
        super().__init__()
        install = _which("mariadb-install-db")
        assert install is not None
        self.run(
            install, "--no-defaults", f"--datadir={self.data}",
            "--auth-root-authentication-method=normal", "--skip-test-db", *_SMALL,
            *([f"--user={self.user}"] if _user(self.user) else []),
        )  # fmt: skip
        self._first = True

    def command(self) -> list[object]:
        assert MARIADBD is not None
        return [
            MARIADBD, "--no-defaults", f"--datadir={self.data}", f"--socket={self.folder}/s",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.folder}/pid",
            "--innodb-flush-log-at-trx-commit=2", "--skip-name-resolve", *_SMALL,
        ]  # fmt: skip

    def start(self) -> None:
        super().start()
        if self._first:
            self._first = False
            for host in ("127.0.0.1", "localhost"):
                self.sql(
                    f"CREATE USER IF NOT EXISTS 'appliance'@'{host}' IDENTIFIED BY '{PASSWORD}'"
                )
                self.sql(f"GRANT ALL ON *.* TO 'appliance'@'{host}'")
            self.sql("CREATE DATABASE messages")

    def sql(self, text: str, database: str = "") -> list[tuple[object, ...]]:
        import pymysql

        connection = pymysql.connect(
            unix_socket=f"{self.folder}/s",
            user="root",
            database=database or None,
            connect_timeout=5,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    def url(self, database: str = "messages", *, user: str = "appliance", port: int = 0) -> str:
        return (
            f"mariadb+pymysql://{user}:{PASSWORD_IN_URL}@127.0.0.1:{port or self.port}/{database}"
        )


@contextlib.contextmanager
def running(make: Callable[[], Server]) -> Iterator[Server]:
    """A server that runs within."""
    server = make()
    try:
        server.start()
        yield server
    finally:
        server.close()
