"""Certificate revocation lists, which say what clients' certificates do not count any more.

Not for: when the file is read again (listener.py).
"""

from __future__ import annotations

import ssl


def load_revocation_lists(context: ssl.SSLContext, file: str) -> None:
    """Refuse certificates that a list in this PEM file names.

    Raises:
        OSError, ssl.SSLError: there is no list in the file, or it can't be read.
    """
    before = context.cert_store_stats()["crl"]
    context.load_verify_locations(file)
    if context.cert_store_stats()["crl"] == before:
        raise ssl.SSLError(f"no certificate revocation list is in {file}")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
