"""A real LDAP server for tests: slapd on loopback, with a folder and a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SLAPD = shutil.which("slapd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/openldap")
SCHEMA = Path("/etc/ldap/schema")
ADMIN = ("cn=admin,dc=example,dc=com", "the-admin's-password")

_CONFIG = """\
include {schema}/core.schema
include {schema}/cosine.schema
include {schema}/inetorgperson.schema
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
modulepath /usr/lib/ldap
moduleload back_mdb
# As many directories are: a bind with a name and no password is taken for an anonymous one.
allow bind_anon_cred bind_anon_dn
database mdb
suffix "dc=example,dc=com"
rootdn "{admin}"
rootpw "{password}"
directory {folder}/db
"""

_ENTRIES = """\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: uid=anna,dc=example,dc=com
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: Example
userPassword: anna's password
description: press/+/state
employeeType: press/#
departmentNumber: press/1/state
"""


class LdapServer:
    """The server; ``stop`` and ``start`` as often as a test wants."""

    def __init__(self, folder: Path) -> None:
        (folder / "db").mkdir(parents=True)
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "slapd.conf").write_text(
            _CONFIG.format(schema=SCHEMA, folder=folder, admin=ADMIN[0], password=ADMIN[1])
        )
        (folder / "entries.ldif").write_text(_ENTRIES)
        add = shutil.which("slapadd", path=f"{os.environ['PATH']}:/usr/sbin")
        subprocess.run(
            [add, "-f", folder / "slapd.conf", "-l", folder / "entries.ldif"],
            check=True,
            capture_output=True,
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def start(self) -> None:
        # -d keeps it in the foreground, so that it ends with the test.
        self._process = subprocess.Popen(
            [SLAPD, "-f", self.folder / "slapd.conf", "-h", f"{self.url}/", "-d", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, "slapd has ended"
            assert time.monotonic() < end, "slapd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@contextlib.contextmanager
def ldap_server(folder: Path) -> Iterator[LdapServer]:
    server = LdapServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
