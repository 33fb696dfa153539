"""Which keys name a file that is read: certificates, private keys, secrets; how messages name it.

Not for: opening them (files.py). The users file is not among them, since it may be missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from appliance.config.tables import Config
from appliance.config.values import ReadPath

_OF_SECRETS = frozenset(
    ("jwt_file", "password_file", "api_key_file", "client_secret_file", "url_file")
)


def may_be_secret(key: str, name: object) -> bool:
    """Whether the name of a file may be a secret that was written to the wrong key.

    ``key`` is the last part of the key's name, or all of it as messages write it.
    """
    return re.split(r"[`.]", key.strip("`"))[-1] in _OF_SECRETS or "PRIVATE KEY" in str(name)


def shown_name(path: str) -> str:
    """How a message names the file of a secret.

    A file that is there has a name. A name without a file may be the secret itself, written to the
    wrong key; the folder is shown if it exists.
    """
    if os.path.lexists(path):
        return path
    folder = os.path.dirname(path)  # noqa: PTH120 - the text as it is, also where it is no path
    where = f" in {folder}" if os.path.isdir(folder) else ""  # noqa: PTH112 - see above
    return f"the file{where} (its name is not shown, it may be the secret itself)"


def key_files(config: Config) -> Iterator[tuple[str, str]]:
    """Each such key as it is written in messages, and its file."""
    for number, listener in enumerate(config.listener, 1):
        if listener.tls:
            where = f"[[listener]] {number} `tls"
            yield f"{where}.certfile`", listener.tls.certfile
            yield f"{where}.keyfile`", listener.tls.keyfile
            if listener.tls.client_ca:
                yield f"{where}.client_ca`", listener.tls.client_ca
            if listener.tls.crl_file:
                yield f"{where}.crl_file`", listener.tls.crl_file
    for number, bridge in enumerate(config.bridge, 1):
        for name in ("ca_file", "certfile", "keyfile") if bridge.tls else ():
            path = getattr(bridge.tls, name)
            if path is not None:
                yield f"[[bridge]] {number} `tls.{name}`", path
        if bridge.password_file is not None:
            yield f"[[bridge]] {number} `password_file`", bridge.password_file
    for number, recorder in enumerate(config.recorder, 1):
        if recorder.database is not None and recorder.database.password_file is not None:
            yield f"[[recorder]] {number} `database.password_file`", recorder.database.password_file
    for number, notify in enumerate(config.notify, 1):
        if notify.url_file is not None:
            yield f"[[notify]] {number} `url_file`", notify.url_file
    for number, plugin in enumerate(config.access.plugins, 1):
        for key, value in plugin.settings.items():
            if isinstance(value, ReadPath):
                yield f"[[access.plugins]] {number} `settings.{key}`", value
    qlik = config.qlik
    if qlik is None or qlik.edition == "simulated":
        return
    if qlik.certificate:
        yield "[qlik] `certificate.certfile`", qlik.certificate.certfile
        yield "[qlik] `certificate.keyfile`", qlik.certificate.keyfile
    for name in ("jwt_file", "password_file", "api_key_file", "client_secret_file", "ca_file"):
        path = getattr(qlik, name)
        if path is not None:
            yield f"[qlik] `{name}`", path


def tokens_file(users_file: str | os.PathLike[str]) -> Path:
    """The file beside the users file that has their tokens (broker/tokens.py)."""
    path = Path(users_file)
    return path.with_name(f"{path.name}.tokens")
