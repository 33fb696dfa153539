"""Real servers that fail: what is committed is there once, and nothing else is lost."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

import database_rig
from database_rig import DatabaseRig, messages
from database_servers import (
    MARIADBD,
    PASSWORD,
    POSTGRES,
    MariaDBServer,
    PostgresServer,
    Server,
    running,
)

from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_waits import TimeLimits

pytestmark = [pytest.mark.campaign]

SEQS = "SELECT seq FROM messages ORDER BY seq"


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    make, there = {
        "postgres": (PostgresServer, POSTGRES),
        "mariadb": (MariaDBServer, MARIADBD),
    }[request.param]
    if there is None:
        pytest.skip(f"{request.param} is not installed")
    with running(make) as started:
        yield started


_number = 0


@pytest.fixture
def database(server: Server) -> str:
    global _number  # noqa: PLW0603
    _number += 1
    name = f"outage_{_number}"
    server.sql(f"CREATE DATABASE {name}")
    return name


def _seqs(server: Server, database: str) -> list[int]:
    return [row[0] for row in server.sql(SEQS, database)]


class Wire:
    """A proxy before the server, which ends a connection at a commit."""

    def __init__(self, port: int) -> None:
        self._server = port
        self.chance = random.Random(7)
        self.lost = 0
        """Commits whose answer was kept back."""
        self.cut = 0
        """Commits that the server did not get."""
        self.is_failing = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server))
        answers = threading.Thread(target=self._back, args=(server, client), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                chance = self.chance.random() if self.is_failing and b"COMMIT" in data else 1.0
                if chance < 0.08:
                    self.cut += 1
                    break
                if chance < 0.25:
                    self.lost += 1
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                    server.sendall(data)
                    time.sleep(0.05)  # the server carries it out
                    break
                server.sendall(data)
        for end in (server, client):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        answers.join(20)
        server.close()
        client.close()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        for end in (server, client):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_commit_whose_answer_is_lost(server: Server, database: str, tmp_path: Path):
    """The connection ends before or after a commit; now and then the appliance starts anew."""
    wire = Wire(server.port)
    appliance = DatabaseRig(tmp_path, server.url(database, port=wire.port))
    try:
        target = appliance.target()
        last = 0
        for batch in range(15):
            appliance.record(target, messages(last + 1, last + 50))
            last += 50
            if batch % 9 == 8:
                target.finish()
                target = appliance.target()
        assert wire.lost
        assert wire.cut
        assert _seqs(server, database) == list(range(1, last + 1))
        assert target.figures().recorded == last
        assert not target.note
    finally:
        appliance.close()
        wire.close()


def test_a_server_that_is_killed_in_the_middle_of_batches(
    server: Server, database: str, tmp_path: Path
):
    appliance = DatabaseRig(tmp_path, server.url(database))
    said: list[str] = []
    try:
        target = appliance.target()
        appliance.record(target, messages(1, 1000))
        ending = threading.Event()

        def kill() -> None:
            for _ in range(3):
                time.sleep(0.3)
                server.kill()
                server.start()
            ending.set()

        killer = threading.Thread(target=kill)
        killer.start()
        last = 1000
        while not ending.is_set() or last < 30_000:
            said += appliance.record(target, messages(last + 1, last + 1000))
            last += 1000
        killer.join()
        assert said
        assert _seqs(server, database) == list(range(1, last + 1))
        assert not target.note
    finally:
        appliance.close()


def test_a_server_that_hangs_is_given_up_in_time(server: Server, database: str, tmp_path: Path):
    """Its processes are stopped, and its system still acknowledges packets."""
    appliance = DatabaseRig(tmp_path, server.url(database))
    try:
        limits = TimeLimits(connect_s=2, statement_s=1, answer_s=2)
        target = appliance.target(limits=limits)
        appliance.append(target, messages(1, 10))
        server.pause()
        try:
            causes = []
            for _ in range(2):  # with a connection, and without one
                began = time.monotonic()
                with pytest.raises(DatabaseFaultError) as error:
                    appliance.append(target, messages(11, 20))
                causes.append(error.value.cause)
                assert time.monotonic() - began < 30
            assert causes[0] in {Cause.TIMEOUT, Cause.CONNECTION}
        finally:
            server.resume()
        appliance.record(target, messages(11, 20))
        assert _seqs(server, database) == list(range(1, 21))
    finally:
        server.resume()
        appliance.close()


def test_what_an_operator_has_to_correct_is_said(server: Server, database: str, tmp_path: Path):
    user = f"reader_{database}"
    at = "" if isinstance(server, PostgresServer) else "@'127.0.0.1'"
    if at:
        server.sql(f"CREATE USER {user}{at} IDENTIFIED BY '{PASSWORD}'")
        server.sql(f"GRANT SELECT ON {database}.* TO {user}{at}")
    else:
        server.sql(f"CREATE USER {user} PASSWORD '{PASSWORD}'")
        server.sql("REVOKE CREATE ON SCHEMA public FROM public", database)
    url = server.url(database)
    cases = [
        (url.replace("pass%40word", "wrong-word"), Cause.LOGIN, "Correct the user"),
        (url.replace(f"/{database}", "/missing_one"), Cause.DATABASE, "Create the database"),
        (server.url(database, user=user), Cause.RIGHT, "Give the user the right"),
        (server.url(database, port=1), Cause.CONNECTION, "See that the server runs"),
    ]
    for number, (address, cause, said) in enumerate(cases):
        appliance = DatabaseRig(tmp_path / str(number), address)
        try:
            target = appliance.target()
            with pytest.raises(DatabaseFaultError) as error:
                appliance.append(target, messages(1, 1))
            text = str(error.value)
            assert error.value.cause is cause, text
            assert said in text
            assert "127.0.0.1" in text
            assert not any(secret in text for secret in ("%40", "pass@", "signs", "wrong-word"))
        finally:
            appliance.close()


def test_a_full_disk_at_the_server(server: Server, database: str, small_disk: Path, tmp_path: Path):
    """Room is made, and all of it is recorded."""
    if not isinstance(server, PostgresServer):
        pytest.skip("MariaDB does not answer while its disk is full; it waits for room")
    small_disk.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == tmp_path.stat().st_uid and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    place = small_disk / "tables"
    place.mkdir()
    place.chmod(0o700)
    shutil.chown(place, "postgres", "postgres")
    server.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
    server.sql(f"ALTER DATABASE {database} SET default_tablespace = small")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_500_000))
    appliance = DatabaseRig(tmp_path / "data", server.url(database))
    try:
        target = appliance.target()
        last = 0
        with pytest.raises(DatabaseFaultError) as error:
            for _ in range(100):
                appliance.append(target, messages(last + 1, last + 500, {"text": "x" * 500}))
                last += 500
        assert error.value.cause is Cause.DISK_FULL
        assert "Make room on the server" in str(error.value)
        filler.unlink()
        appliance.record(target, messages(last + 1, last + 500, {"text": "x" * 500}))
        assert _seqs(server, database) == list(range(1, last + 501))
    finally:
        appliance.close()
        server.sql("DROP TABLE IF EXISTS messages", database)
        server.sql(f"ALTER DATABASE {database} RESET default_tablespace")
        server.sql("DROP TABLESPACE small")


def test_twenty_thousand_rows_a_second(server: Server, database: str, tmp_path: Path):
    """To PostgreSQL. Much less is promised here, because the machine may be busy."""
    appliance = DatabaseRig(tmp_path, server.url(database), metadata=True)
    try:
        target = appliance.target(limits=TimeLimits())
        batches = [messages(first, first + 4999) for first in range(1, 30_001, 5000)]
        began = time.monotonic()
        for batch in batches:
            appliance.append(target, batch)
        rate = 30_000 / (time.monotonic() - began)
        print(f"{type(server).__name__}: {rate:,.0f} rows/s")  # noqa: T201
        assert rate > (4000 if isinstance(server, PostgresServer) else 1000)
        assert len(_seqs(server, database)) == 30_000
    finally:
        appliance.close()


_CHILD = """
import random, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import database_rig
from database_rig import DatabaseRig, messages
last = int(sys.argv[4])
appliance = DatabaseRig(Path(sys.argv[2]), sys.argv[3])
appliance.last_seq = last  # the journal has them all
target = appliance.target()
chance = random.Random()
target.tick(0)
print("begun", flush=True)
while target.cursor < last:
    first = target.cursor + 1
    batch = messages(first, min(last, first + chance.randrange(300)))
    target.append(batch, batch[-1].seq)
    if chance.random() < 0.3:
        appliance.save(target)
appliance.save(target)
appliance.close()
"""


def test_an_appliance_that_is_killed(server: Server, database: str, tmp_path: Path):
    last = 100_000
    chance = random.Random(3)
    here = Path(database_rig.__file__).parent
    arguments = [sys.executable, "-c", _CHILD, here, tmp_path / "data", server.url(database)]
    for _ in range(2):
        child = subprocess.Popen([*map(str, arguments), str(last)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline()
        time.sleep(chance.random() * 0.4)
        child.kill()
        child.wait(20)
        child.stdout.close()
    reached = _seqs(server, database)[-1]
    end = min(last, reached + 1000)
    subprocess.run([*map(str, arguments), str(end)], check=True, capture_output=True, timeout=100)
    found = server.sql("SELECT installation, seq FROM messages ORDER BY seq", database)
    # A journal of this length has been said to the child, so nothing is another appliance's.
    assert [row[1] for row in found] == list(range(1, len(found) + 1))
    assert len({row[0] for row in found}) == 1
    assert len(found) >= end
