"""``appliance demo --qlik``: the simulated Qlik server for other programs, over HTTPS.

One site with two addresses, as a client-managed Qlik Sense server has them: the Repository
Service's own port, which demands a client certificate, and a virtual proxy that trusts a header.
Not for: what the server answers (qlik/simulated).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.demo.ports import free_port
from appliance.errors import UnavailableError
from appliance.qlik.simulated import Proxy, SimulatedQlik, TlsFiles, demo_site

_QRS_PORT = 4242
_PROXY_PORT = 4443
_PREFIX, _HEADER = "header", "hdr-usr"
_USER = r"INTERNAL\sa_repository"


@dataclass(frozen=True)
class OfferedQlik:
    """Where the server is, and what a client needs for it."""

    url: str
    """Of the Repository Service's own port, without ``/qrs``."""
    proxy_url: str
    """Of the virtual proxy, without ``/qrs``."""
    folder: Path
    """Of ``root.pem``, ``client.pem`` and ``client_key.pem``."""

    @property
    def table(self) -> str:
        """The ``[qlik]`` table of a configuration beside the folder."""
        name = self.folder.name
        return (
            "[qlik]                             # the demo's server: gone when the demo has ended\n"
            'edition = "client-managed"\n'
            f'url = "{self.url}"\n'
            f"user = '{_USER}'\n"
            f'certificate = {{ certfile = "{name}/client.pem", '
            f'keyfile = "{name}/client_key.pem" }}\n'
            f'ca_file = "{name}/root.pem"\n'
        )

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"simulated Qlik server: {self.url}/qrs with the certificate in {self.folder}, "
            f"{self.proxy_url}/qrs with the header {_HEADER}"
        )

    @property
    def explanation(self) -> str:
        """What to tell the person who starts the demo."""
        directory, _, name = _USER.partition("\\")
        return (
            "Simulated Qlik server for other programs, until the demo ends:\n"
            f"  with a certificate  {self.url}/qrs\n"
            f"                      {self.folder}: client.pem, client_key.pem, root.pem\n"
            f"                      X-Qlik-User: UserDirectory={directory};UserId={name}\n"
            f"  with a header       {self.proxy_url}/qrs\n"
            f"                      {_HEADER}: {_USER}   (root.pem is its authority, too)"
        )


@contextmanager
def offered(folder: Path) -> Iterator[OfferedQlik]:
    """Run the server.

    Args:
        folder: where the certificates are, or are written to.

    Raises:
        UnavailableError: the package that makes certificates is not installed, or no port is free.
        OSError: the folder can't be written.
    """
    try:
        from appliance.demo import certificates  # noqa: PLC0415  cryptography is an extra
    except ImportError:
        raise UnavailableError(
            "demo --qlik makes certificates with the package cryptography, which is missing. "
            "Install it: pip install cryptography"
        ) from None
    certificates.ensure(folder)
    certfile, keyfile = str(folder / "server.pem"), str(folder / "server_key.pem")
    own = SimulatedQlik(
        site=demo_site(),
        port=free_port(_QRS_PORT),
        tls=TlsFiles(certfile, keyfile, str(folder / "root.pem")),
        keep_requests=200,
    )
    with own:
        proxy = SimulatedQlik(
            site=own.site,
            port=free_port(_PROXY_PORT),
            tls=TlsFiles(certfile, keyfile),
            proxies=[Proxy(_PREFIX, header=_HEADER)],
            direct=False,
            keep_requests=200,
        )
        with proxy:
            yield OfferedQlik(own.url, f"{proxy.url}/{_PREFIX}", folder)
