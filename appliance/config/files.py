"""The files that keys name: whether they exist and can be read, and the secrets in them.

``load`` opens no other file, so a configuration can be checked on another machine; ``check`` and
``run`` call this module. Not for: parsing certificates (the listener and the Qlik client do that).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies

from appliance.config.extras import extra_problems
from appliance.config.key_files import key_files, may_be_secret, shown_name
from appliance.config.recorder_paths import disk_problems
from appliance.config.sign_in import TOKEN_KEYS, SecretKind, secret_problem
from appliance.config.tables import BridgeConfig, Config, QlikConfig, RecorderConfig
from appliance.config.values import ReadPath
from appliance.errors import ConfigError, NoPermissionError
from appliance.known_secrets import address_secrets
from appliance.secret import Secret
from appliance.storage import files

_LARGEST_SECRET = 64 * 1024
"""Bytes. A JSON Web Token is a few kilobytes at most."""

_SHORTEST_TOKEN = 20
"""Characters from which a part of an address is masked as a token."""

SECRET_KEYS = ("jwt", "password", "api_key", "client_secret")
"""Keys of ``[qlik]``; each has one beside it, with ``_file``, that names a file."""


def check_files(config: Config) -> list[str]:
    """The problems of the files that ``config`` names, one line each.

    A file to read may be missing or unreadable. A recorder may not write to another kind of file.
    A missing users file is no problem on loopback: it means that clients need no password.
    """
    problems: list[str] = []
    shown = config.file or "configuration"
    for where, path in key_files(config):
        problem = _unreadable(path, is_secret=may_be_secret(where, path))
        if problem:
            problems.append(f"{shown}: {where}: {problem}")
    problems.extend(f"{shown}: {text}" for text in _secret_problems(config))
    problems.extend(f"{shown}: {text}" for text in extra_problems(config))
    users = config.access.users_file
    if users is not None and Path(users).exists():
        problem = _unreadable(users)
        if problem:
            problems.append(f"{shown}: [access] `users_file`: {problem}")
    elif users is not None and not config.is_loopback_only:
        problems.append(
            f"{shown}: [access] `users_file`: {users} does not exist, so no client could sign in; "
            'write it with "appliance user add NAME"'
        )
    problems.extend(f"{shown}: {place}: {text}" for place, text in disk_problems(config))
    return problems


def _secret_problems(config: Config) -> Iterator[str]:
    """Files of secrets that can be read and hold none of the kind that is wanted."""
    for number, bridge in enumerate(config.bridge, 1):
        path = bridge.password_file
        if path is not None and _unreadable(path) is None:
            try:
                bridge_password(bridge)
            except (ConfigError, NoPermissionError) as error:
                yield f"[[bridge]] {number} `password_file`: {error}"
    for number, recorder in enumerate(config.recorder, 1):
        path = recorder.database.password_file if recorder.database else None
        if path is not None and _unreadable(path) is None:
            try:
                database_password(recorder)
            except (ConfigError, NoPermissionError) as error:
                yield f"[[recorder]] {number} `database.password_file`: {error}"
    qlik = config.qlik
    if qlik is None or qlik.edition == "simulated":
        return
    for name in SECRET_KEYS:
        path = getattr(qlik, f"{name}_file")
        if path is not None and _unreadable(path) is None:
            try:
                qlik_secret(qlik, name)
            except (ConfigError, NoPermissionError) as error:
                yield f"[qlik] `{name}_file`: {error}"


def anonymous_allowed(config: Config) -> bool:
    """Whether clients may connect without a name.

    ``anonymous`` decides if it is set. Otherwise they may if every listener is on loopback and
    there is no users file.
    """
    if config.access.anonymous is not None:
        return config.access.anonymous
    users = config.access.users_file
    return config.is_loopback_only and (users is None or not Path(users).exists())


def read_secret(
    value: Secret | None, file: ReadPath | None, kind: SecretKind = "text"
) -> Secret | None:
    """The secret that a key has, or that the file beside it holds (surrounding blanks removed).

    Raises ``ConfigError`` or ``NoPermissionError`` when the file can't be read, is empty or has
    another form than its kind wants.
    """
    if value is not None:
        # The end of a line is no part of it: a variable may hold what a file held.
        value = Secret(value.reveal().rstrip("\r\n"))
        if problem := secret_problem(value.reveal(), kind):
            raise ConfigError(f"[qlik]: {problem}")
        return value
    if file is None:
        return None
    try:
        with files.open_to_read(Path(file)) as opened:
            data = opened.read(_LARGEST_SECRET + 1)
    except PermissionError:
        raise NoPermissionError(
            f"{shown_name(file)}: this user may not read it; change its rights"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{shown_name(file)}: the secret can't be read: {error.strerror}"
        ) from None
    if len(data) > _LARGEST_SECRET:
        raise ConfigError(f"{file}: too long for a secret; name the file that holds it")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; write the secret as plain text") from None
    if not text:
        raise ConfigError(f"{file}: the file is empty; write the secret into it")
    if problem := secret_problem(text, kind):
        raise ConfigError(f"{file}: {problem}")
    return Secret(text)


def qlik_secret(qlik: QlikConfig, name: str) -> Secret | None:
    """The secret of the key ``name`` or ``name_file`` in ``[qlik]``; raises as ``read_secret``."""
    kind: SecretKind = "token" if name in TOKEN_KEYS else "line"
    return read_secret(getattr(qlik, name), getattr(qlik, f"{name}_file"), kind)


def bridge_password(bridge: BridgeConfig) -> Secret | None:
    """The password of a bridge, from its key or its file; raises as ``read_secret``."""
    return read_secret(bridge.password, bridge.password_file)


def database_password(recorder: RecorderConfig) -> Secret | None:
    """The password of a recorder's database, from its key or file; raises as ``read_secret``."""
    if recorder.database is None:
        return None
    given, file = recorder.database.password, recorder.database.password_file
    return read_secret(given, file, "text" if given is not None else "line")


def all_secrets(config: Config) -> tuple[Secret, ...]:
    """Every secret of the configuration, also those in files, so that the log can mask them.

    A file that can't be read is skipped: the part that needs its secret reports the error.
    """
    qlik = config.qlik
    found = [qlik.header.value if qlik and qlik.header else None]
    for name in SECRET_KEYS if qlik else ():
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.append(read_secret(getattr(qlik, name), getattr(qlik, f"{name}_file")))
    for bridge in config.bridge:
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.append(bridge_password(bridge))
    for recorder in config.recorder:
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.append(database_password(recorder))
    for notify in config.notify:
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.extend(_address_secrets(read_secret(notify.url, notify.url_file)))
    for plugin in config.access.plugins:
        found.extend(_setting_secrets(plugin.settings))
    for proxy in getproxies().values():  # of the environment; Qlik and notices go through them
        found.extend(address_secrets(proxy))
    return tuple(secret for secret in found if secret)


def _setting_secrets(value: object) -> Iterator[Secret | None]:
    """Every secret in a plugin's settings, and what the files hold that they name."""
    if isinstance(value, Secret):
        yield value
        # A password within an address (of a database) is one by itself.
        if password := urlsplit(value.reveal()).password:
            yield Secret(unquote(password))
    elif isinstance(value, ReadPath):
        with contextlib.suppress(ConfigError, NoPermissionError):
            yield read_secret(None, value)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _setting_secrets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _setting_secrets(each)


def _address_secrets(address: Secret | None) -> Iterator[Secret]:
    """The address of a receiver of notices, and what may be a password or token in it."""
    if address is None:
        return
    yield address
    with contextlib.suppress(ValueError):
        parts = urlsplit(address.reveal())
        if parts.password:
            yield Secret(unquote(parts.password))
        tokens = (parts.username or "", parts.hostname or "", *parts.path.split("/"))
        values = (value for _, value in parse_qsl(parts.query))
        # Services of chats have their tokens there. A shorter text may be any word.
        yield from (Secret(each) for each in (*tokens, *values) if len(each) >= _SHORTEST_TOKEN)


def _unreadable(path: str, *, is_secret: bool = False) -> str | None:
    """Why a file can't be read, or ``None``. It is opened: its mode alone is not enough."""
    try:
        with files.open_to_read(Path(path)):
            return None
    except OSError as error:
        name = shown_name(path) if is_secret else path
        if isinstance(error, FileNotFoundError):
            return f"{name} does not exist; put the file there or name another"
        if isinstance(error, PermissionError):
            user = f" (user id {os.geteuid()})" if hasattr(os, "geteuid") else ""
            return f"{name} can't be read by this user{user}; change the file's rights"
        if isinstance(error, IsADirectoryError):
            return f"{name} is a folder; name a file"
        return f"{name} can't be read: {error.strerror}"
