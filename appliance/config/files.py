"""The files that keys name: whether they exist and can be read, and the secrets in them.

``load`` opens no other file, so a configuration can be checked on another machine; ``check`` and
``run`` call this module. Not for: parsing certificates (the listener and the Qlik client do that).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from appliance.config.key_files import key_files
from appliance.config.recorder_paths import disk_problems
from appliance.config.tables import Config
from appliance.config.values import ReadPath
from appliance.errors import ConfigError, NoPermissionError
from appliance.secret import Secret
from appliance.storage import files

_LARGEST_SECRET = 64 * 1024
"""Bytes. A JSON Web Token is a few kilobytes at most."""


def check_files(config: Config) -> list[str]:
    """The problems of the files that ``config`` names, one line each.

    A file to read may be missing or unreadable. A recorder may not write to another kind of file.
    A missing users file is no problem on loopback: it means that clients need no password.
    """
    problems: list[str] = []
    shown = config.file or "configuration"
    for where, path in key_files(config):
        problem = _unreadable(path)
        if problem:
            problems.append(f"{shown}: {where}: {problem}")
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


def anonymous_allowed(config: Config) -> bool:
    """Whether clients may connect without a name.

    ``anonymous`` decides if it is set. Otherwise they may if every listener is on loopback and
    there is no users file.
    """
    if config.access.anonymous is not None:
        return config.access.anonymous
    users = config.access.users_file
    return config.is_loopback_only and (users is None or not Path(users).exists())


def read_secret(value: Secret | None, file: ReadPath | None) -> Secret | None:
    """The secret that a key has, or that the file beside it holds (surrounding blanks removed).

    Raises ``ConfigError`` or ``NoPermissionError`` when the file can't be read or is empty.
    """
    if value is not None or file is None:
        return value
    try:
        with files.open_to_read(Path(file)) as opened:
            data = opened.read(_LARGEST_SECRET + 1)
    except PermissionError:
        raise NoPermissionError(f"{file}: this user may not read it; change its rights") from None
    except OSError as error:
        raise ConfigError(f"{file}: the secret can't be read: {error.strerror}") from None
    if len(data) > _LARGEST_SECRET:
        raise ConfigError(f"{file}: too long for a secret; name the file that holds it")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; write the secret as plain text") from None
    if not text:
        raise ConfigError(f"{file}: the file is empty; write the secret into it")
    return Secret(text)


def all_secrets(config: Config) -> tuple[Secret, ...]:
    """Every secret of the configuration, also those in files, so that the log can mask them.

    A file that can't be read is skipped: the part that needs its secret reports the error.
    """
    qlik = config.qlik
    found = [qlik.header.value if qlik and qlik.header else None]
    for name in ("jwt", "password", "api_key", "client_secret") if qlik else ():
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.append(read_secret(getattr(qlik, name), getattr(qlik, f"{name}_file")))
    for notify in config.notify:
        with contextlib.suppress(ConfigError, NoPermissionError):
            found.append(read_secret(notify.url, notify.url_file))
    for plugin in config.access.plugins:
        found.extend(_setting_secrets(plugin.settings))
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


def _unreadable(path: str) -> str | None:
    """Why a file can't be read, or ``None``. It is opened: its mode alone is not enough."""
    try:
        with files.open_to_read(Path(path)):
            return None
    except FileNotFoundError:
        return f"{path} does not exist; put the file there or name another"
    except PermissionError:
        user = f" (user id {os.geteuid()})" if hasattr(os, "geteuid") else ""
        return f"{path} can't be read by this user{user}; change the file's rights"
    except IsADirectoryError:
        return f"{path} is a folder; name a file"
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"
