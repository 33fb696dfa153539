"""Reads a TOML file: decodes its text, parses it, then calls the decoder and the checks.

Not for: keys and values (decoder.py), rules about several keys (checks.py). No file that a key
names is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomli

from appliance.config import checks
from appliance.config.decoder import Decoder
from appliance.config.problems import Problems
from appliance.config.tables import Config, ListenerConfig, RecorderConfig
from appliance.errors import ConfigError, NoPermissionError
from appliance.storage import files

_LARGEST_FILE = 10 * 1024 * 1024
"""Bytes. A longer file is not a configuration: the wrong file was named."""


_CREDENTIALS = {"CREDENTIALS_DIRECTORY": "/run/credentials/appliance.service"}
"""The place that systemd.exec(5) names for the credentials of the packaged unit. Root finds them
there while the service runs, so its commands read the same configuration as the service."""


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file ``path``, checked as far as that goes without opening more.

    ``environ`` has the variables for ``${NAME}``, by default the process's own. Raises
    ``ConfigError`` (one line a problem) or ``NoPermissionError``.
    """
    return loads(_read(path), file=os.fspath(path), environ=environ)


def load_data_dir(path: str | os.PathLike[str]) -> Path:
    """The data directory that the file ``path`` names, for commands that need nothing else.

    Raises ``ConfigError`` or ``NoPermissionError``.
    """
    return Path(load_tables(path, service=("data_dir",)).service.data_dir)


def load_tables(path: str | os.PathLike[str], **wanted: tuple[str, ...]) -> Config:
    """The named tables of the file ``path`` with the named keys (none: all keys of the table).

    Everything else has its default and is not read: it may be unfinished, or need variables that
    only the service has. ``service.data_dir``, which paths are relative to, is always read. Raises
    ``ConfigError`` or ``NoPermissionError``.
    """
    shown = os.fspath(path)
    document = _parse(_read(path), shown)
    wanted["service"] = (*wanted.get("service", ()), "data_dir")
    problems = Problems(shown)
    decoder = Decoder(problems, str(Path(path).absolute().parent), _CREDENTIALS | dict(os.environ))
    config = decoder.decode(
        {table: _only(document[table], keys) for table, keys in wanted.items() if table in document}
    )
    if config.qlik is not None:
        checks.check_qlik(config.qlik, problems)
    problems.raise_if_any()
    return msgspec.structs.replace(config, file=str(Path(path).absolute()))


def _only(table: Any, keys: tuple[str, ...]) -> Any:
    if not keys or not isinstance(table, dict):
        return table
    return {key: value for key, value in table.items() if key in keys}


def _read(path: str | os.PathLike[str]) -> str:
    shown = os.fspath(path)
    init = f'write one with "appliance init {shown}", or name another with -c'
    try:
        with files.open_to_read(Path(path)) as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: there is no such file; {init}") from None
    except (IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"{shown}: this is not a file; {init}") from None
    except PermissionError:
        raise NoPermissionError(
            f"{shown}: the system refuses to let this user read it; change the file's rights or "
            "run as a user with the right to read it"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown}: it can't be read ({error}); {init}") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{shown}: longer than 10 MiB, so this is no configuration; {init}")
    return decode(data, shown)


def loads(text: str, *, file: str = "", environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in ``text``; relative paths count from the folder of ``file``.

    Raises ``ConfigError`` with one line a problem.
    """
    shown = file or "configuration"
    document = _parse(text, shown)
    absolute = Path(file).absolute() if file else Path.cwd() / "config.toml"
    problems = Problems(shown)
    variables = _CREDENTIALS | dict(os.environ) if environ is None else environ
    decoder = Decoder(problems, str(absolute.parent), variables)
    config = msgspec.structs.replace(decoder.decode(document), file=str(absolute) if file else "")
    checks.check(config, problems)
    problems.raise_if_any()
    return msgspec.structs.replace(
        config, listener=_named(config.listener), recorder=_named_recorders(config.recorder)
    )


def recheck(config: Config) -> None:
    """Check a configuration that was combined from two valid ones.

    Raises ``ConfigError`` with one line a problem.
    """
    problems = Problems(config.file or "configuration")
    checks.check(config, problems)
    problems.raise_if_any()


def decode(data: bytes, shown: str) -> str:
    """The text of a file, called ``shown``; raises ``ConfigError`` if it is not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{shown}: this is UTF-16 text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{shown}, line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as "
            "UTF-8"
        ) from None


def _parse(text: str, shown: str) -> dict[str, Any]:
    try:
        # TOML wants \n or \r\n; a lone \r is an error that tomli reports.
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        lines = text.splitlines()
        line = lines[error.lineno - 1] if 0 < error.lineno <= len(lines) else ""
        if '"' in line and "\\" in line:
            advice = (
                "a backslash in double quotes begins an escape; write the text in single quotes"
            )
        elif re.match(r"\s*[\w.-]+\s*=\s*[^\s\"'\[{0-9+-]", line):
            advice = 'write text in quotes: key = "value"'
        else:
            advice = "correct the line; https://toml.io/ has the rules"
        raise ConfigError(
            f"{shown}, line {error.lineno}, column {error.colno}: {error.msg}; {advice}"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"{shown}: brackets are nested too deeply; correct the brackets"
        ) from None


def _named(listeners: tuple[ListenerConfig, ...]) -> tuple[ListenerConfig, ...]:
    """The listeners, each with a unique name, for the UI and the log."""
    taken = {each.name for each in listeners if each.name}
    named: list[ListenerConfig] = []
    for each in listeners:
        name = each.name
        if not name:
            kind = "ws" if each.transport == "websocket" else "mqtt"
            usual = kind + ("s" if each.tls else "")
            name = usual if usual not in taken else f"{usual}-{len(named) + 1}"
            while name in taken:
                name += "'"
            taken.add(name)
        named.append(msgspec.structs.replace(each, name=name))
    return tuple(named)


def _named_recorders(recorders: tuple[RecorderConfig, ...]) -> tuple[RecorderConfig, ...]:
    """The recorders, each with a unique name: ``a``, ``a-2`` for two files ``a.json``.

    Databases come first, and each has its table: they are known again by these names, so that a
    file that is added or removed must not change them.
    """
    taken = {each.name for each in recorders if each.name}
    named: dict[int, RecorderConfig] = {}
    for at in sorted(range(len(recorders)), key=lambda at: recorders[at].database is None):
        recorder = recorders[at]
        name = recorder.used_name
        number = 2
        while not recorder.name and name in taken:
            name, number = f"{recorder.used_name}-{number}", number + 1
        taken.add(name)
        database = recorder.database
        if database is not None and not database.table:
            database = msgspec.structs.replace(database, table=recorder.used_name)
        named[at] = msgspec.structs.replace(recorder, name=name, database=database)
    return tuple(named[at] for at in range(len(recorders)))
