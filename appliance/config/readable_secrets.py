"""Warnings of secrets that other users of this machine can read, for ``check``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from appliance.config.tables import Config
from appliance.storage.rights import readable_by_others

_SECRETS = ("jwt", "password", "api_key", "client_secret")


def readable_secrets(config: Config) -> Iterator[str]:
    """One line for the configuration and each file of a secret that every user can read."""
    if config.file and _has_plain_secret(config) and readable_by_others(Path(config.file)):
        yield (
            f"{config.file} has a secret, and every user of this machine can read it: take their"
            " rights away (chmod o= FILE), or write the secret into a file of its own"
        )
    for where, path in _secret_files(config):
        if path is not None and readable_by_others(Path(path)):
            yield f"{where}: every user of this machine can read {path}: chmod o= {path}"


def _has_plain_secret(config: Config) -> bool:
    qlik = config.qlik
    if qlik is not None and (qlik.header or any(getattr(qlik, name) for name in _SECRETS)):
        return True
    return any(each.url is not None for each in config.notify)


def _secret_files(config: Config) -> Iterator[tuple[str, str | None]]:
    if config.qlik is not None:
        for name in _SECRETS:
            yield f"[qlik] `{name}_file`", getattr(config.qlik, f"{name}_file")
    for number, notify in enumerate(config.notify, 1):
        yield f"[[notify]] {number} `url_file`", notify.url_file
    for number, listener in enumerate(config.listener, 1):
        if listener.tls is not None:
            yield f"[[listener]] {number} `keyfile`", listener.tls.keyfile
    yield "[access] `users_file`", config.access.users_file
