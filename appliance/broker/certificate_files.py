"""The certificate files of a TLS port, taken into use anew when they change.

Not for: what a connection does with TLS (tls.py), whether the files suit each other at ``check``.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from appliance.broker.revocation import (
    CertificateName,
    load_revocation_lists,
    revoked_certificates,
)
from appliance.config.tables import TlsConfig
from appliance.engine_api import Health
from appliance.errors import ConfigError


class CertificateFiles:
    """``owner`` begins each text: ``listener mqtts``, ``[http]``."""

    context: ssl.SSLContext
    """For new connections. Once loaded."""
    revoked: frozenset[CertificateName] = frozenset()
    """Client certificates that are on a list."""
    health = Health("ok")

    def __init__(self, owner: str, tls: TlsConfig) -> None:
        self._owner = owner
        self._tls = tls
        self._loaded_stamp: tuple[int, ...] = ()

    def load(self) -> None:
        """Read the files.

        Raises:
            ConfigError: they can't be used; what was loaded before stays.
        """
        # A new context, because the one in use can't forget an authority, and must not be
        # spoilt by a broken pair.
        tls, context = self._tls, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(tls.certfile, tls.keyfile)
            if tls.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(tls.client_ca)
            if tls.crl_file is not None:
                load_revocation_lists(context, tls.crl_file)
            revoked = frozenset() if tls.crl_file is None else revoked_certificates(tls.crl_file)
            stamp = self._stamp()
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{self._owner}: the certificate files can't be used:"
                f" {reason(error)} (certfile {tls.certfile}, keyfile {tls.keyfile}"
                + (f", client_ca {tls.client_ca}" if tls.client_ca else "")
                + (f", crl_file {tls.crl_file}" if tls.crl_file else "")
                + "). PEM files are expected, the key without a passphrase and belonging to the"
                " certificate."
            ) from error
        self.context, self.revoked, self._loaded_stamp = context, revoked, stamp

    def reload(self) -> str | None:
        """Take changed files into use for new connections.

        Returns what is to be logged: that it was done, or why the old ones stay; ``None`` if
        nothing changed. Reads files: for a worker thread.
        """
        try:
            if self._stamp() == self._loaded_stamp:
                return None
            self.load()
        except (OSError, ConfigError) as error:
            self.health = Health("warn", "changed certificate can't be used, the old one stays")
            return f"{error} The certificate in use stays."
        self.health = Health("ok")
        return f"{self._owner}: changed certificate taken into use"

    def _stamp(self) -> tuple[int, ...]:
        tls = self._tls
        files = (tls.certfile, tls.keyfile, tls.client_ca, tls.crl_file)
        return tuple(Path(name).stat().st_mtime_ns for name in files if name)


def reason(error: OSError | ValueError) -> str:
    """An error of files or addresses in words."""
    said = getattr(error, "strerror", None)
    return str(said or error.args[-1] if error.args else error)
