"""Warnings of files that other users of this machine can read or change, for ``check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from appliance.config.key_files import key_files, tokens_file
from appliance.config.tables import Config
from appliance.config.values import ReadPath
from appliance.secret import Secret
from appliance.storage.rights import readable_by_others, writable_by_others

_SECRETS = ("jwt", "password", "api_key", "client_secret")


def exposed_files(config: Config) -> Iterator[str]:
    """One line for each file that every user can change, and for each secret that they can read."""
    if config.file and _has_plain_secret(config) and readable_by_others(Path(config.file)):
        yield (
            f"{config.file} has a secret, and every user of this machine can read it: take their"
            " rights away (chmod o= FILE), or write the secret into a file of its own"
        )
    if config.file and writable_by_others(Path(config.file)):
        yield _changeable(config.file, config.file)
    named = {path: where for where, path in (*_secret_files(config), *key_files(config))}
    for file, where in named.items():
        if file is not None and writable_by_others(Path(file)):
            yield _changeable(where, file)
    for where, path in _secret_files(config):
        if path is not None and readable_by_others(Path(path)):
            yield f"{where}: every user of this machine can read {path}: chmod o= {path}"


def _changeable(where: str, path: str) -> str:
    return f"{where}: every user of this machine can change {path}: chmod o-w {path}"


def _has_plain_secret(config: Config) -> bool:
    """Whether the file itself holds a secret; what comes from the environment does not count."""
    try:
        text = Path(config.file or "").read_text("utf-8-sig", "replace")
    except OSError:
        return True
    return any(_stands_in(text, each.reveal()) for each in _secrets(config))


def _stands_in(text: str, secret: str) -> bool:
    return secret in text or json.dumps(secret, ensure_ascii=False)[1:-1] in text


def _secrets(config: Config) -> Iterator[Secret]:
    qlik = config.qlik
    if qlik is not None:
        found = [qlik.header.value if qlik.header else None]
        found += [getattr(qlik, name) for name in _SECRETS]
        yield from (each for each in found if each is not None)
    yield from (each.password for each in config.bridge if each.password is not None)
    yield from (each.url for each in config.notify if each.url is not None)
    for plugin in config.access.plugins:
        yield from _secrets_in(plugin.settings)


def _secrets_in(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _secrets_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _secrets_in(each)


def _secret_files(config: Config) -> Iterator[tuple[str, str | None]]:
    if config.qlik is not None:
        for name in _SECRETS:
            yield f"[qlik] `{name}_file`", getattr(config.qlik, f"{name}_file")
    for number, bridge in enumerate(config.bridge, 1):
        yield f"[[bridge]] {number} `password_file`", bridge.password_file
        if bridge.tls is not None:
            yield f"[[bridge]] {number} `tls.keyfile`", bridge.tls.keyfile
    for number, notify in enumerate(config.notify, 1):
        yield f"[[notify]] {number} `url_file`", notify.url_file
    for number, listener in enumerate(config.listener, 1):
        if listener.tls is not None:
            yield f"[[listener]] {number} `keyfile`", listener.tls.keyfile
    users = config.access.users_file
    yield "[access] `users_file`", users
    if users is not None and (tokens := tokens_file(users)).exists():
        yield "[access] `users_file`, tokens", str(tokens)
    for number, plugin in enumerate(config.access.plugins, 1):
        for key, value in plugin.settings.items():
            if isinstance(value, ReadPath):
                yield f"[[access.plugins]] {number} `settings.{key}`", value
