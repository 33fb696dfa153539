"""The URL of a ``[[notify]]`` table, and what Apprise makes of it.

Apprise imports all of its services (some 150 modules) for its first URL: that takes a second of
processor time and 27 MB. A start therefore reads the URL and looks at its form only. ``appliance
check``, a reload that brings a new target, and the first notice import Apprise.

Not for: sending (notices.py).
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from appliance.config.key_files import shown_name
from appliance.config.tables import NotifyConfig
from appliance.errors import ConfigError

# Apprise's own schemes are letters and digits; a plugin's may have the others of RFC 3986, 3.1.
_MAIL = frozenset({"mailto", "mailtos"})
_ATTACHED_PLAIN = 1024 * 1024
"""Bytes of a script log that is attached as it is; a larger one is compressed, for mail servers
bound what they take."""
_FORM = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)


def name_of(number: int) -> str:
    """What messages call the table with this number, counted from 1."""
    return f"notify {number}"


def url_of(config: NotifyConfig, where: str) -> str:
    """The URL, from the table or from its file.

    Raises ``ConfigError`` if there is none, or if it does not have the form of one.
    """
    if (config.url is None) == (config.url_file is None):
        raise ConfigError(f"{where} must have either url or url_file.")
    url = config.url.reveal() if config.url is not None else _read(config.url_file or "", where)
    if not _FORM.match(url):
        raise _not_understood(where)
    key = "to_owner" if config.to_owner else "to_property" if config.to_property else ""
    if key and url.partition(":")[0].lower() not in _MAIL:
        raise ConfigError(
            f"{where}: {key} adds receivers of mail, so the URL must begin with mailto:// or "
            f"mailtos://. Write another [[notify]] for mail, or leave {key} out."
        )
    return url


def require_apprise() -> None:
    """Raise ``ConfigError`` if Apprise is not installed. Does not import it."""
    if importlib.util.find_spec("apprise") is None:
        raise ConfigError(
            "[[notify]] needs a package that is not installed; install it with "
            "pip install 'qlik-mqtt-appliance[notify]', or remove the table."
        )


def sender_of(url: str, where: str) -> Any:
    """An ``apprise.Apprise`` for this URL.

    Imports Apprise, so not for the engine's loop. Raises ``ConfigError`` if it does not know the
    service, or if a part of the URL is missing.
    """
    apprise = importlib.import_module("apprise")
    # Its finer lines have the URLs in them, and those have passwords.
    logging.getLogger("apprise").setLevel(logging.ERROR)
    sender = apprise.Apprise()
    if not sender.add(url):
        raise _not_understood(where)
    return sender


def sender_to(url: str, address: str) -> Any:
    """A sender for a ``mailto`` URL that has one receiver instead of the URL's own.

    The URL must be one that ``sender_of`` took, and the address a plain one.
    """
    apprise = importlib.import_module("apprise")
    # As a structure: what is in an address can't become another part of the URL.
    parts = importlib.import_module("apprise.plugins").url_to_dict(url, secure_logging=True)
    sender = apprise.Apprise()
    sender.add({**parts, "targets": [address], "cc": None, "bcc": None})
    return sender


def own_receivers(sender: Any) -> frozenset[str]:
    """The addresses that a sender for a ``mailto`` URL writes to, without regard to case."""
    targets = (one for plugin in sender for one in getattr(plugin, "targets", ()))
    return frozenset(str(one[1]).casefold() for one in targets if isinstance(one, tuple | list))


def takes_attachments(sender: Any) -> bool:
    """Whether the service takes files."""
    return any(getattr(plugin, "attachment_support", False) for plugin in sender)


def attachment_of(path: Path) -> Any:
    """A script log as Apprise attaches it; ``None`` if it is not there any more."""
    attachment = importlib.import_module("apprise").AppriseAttachment()
    memory = importlib.import_module("apprise.attachment.memory").AttachMemory
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) <= _ATTACHED_PLAIN:
        attachment.add(memory(content=content, name=path.name, mimetype="text/plain"))
    else:
        # Apprise takes only types of Python's own table, and those of this machine.
        name, kind = f"{path.name}.gz", "application/octet-stream"
        attachment.add(memory(content=gzip.compress(content), name=name, mimetype=kind))
    return attachment


def problems(configs: Sequence[NotifyConfig]) -> Iterator[str]:
    """What is wrong with these tables, a sentence each. Imports Apprise if there is a table.

    For a command that sends nothing: Apprise's log, which shows parts of a URL, is turned off.
    """
    if not configs:
        return
    logging.getLogger("apprise").disabled = True
    try:
        require_apprise()
    except ConfigError as error:
        yield str(error)
        return
    for number, config in enumerate(configs, 1):
        where = name_of(number)
        try:
            sender_of(url_of(config, where), where)
        except ConfigError as error:
            yield str(error)


def _not_understood(where: str) -> ConfigError:
    return ConfigError(
        f"{where}: the URL is not one that Apprise understands. It begins with the kind of "
        "service, like mailto:// or slack://; Apprise's documentation lists them."
    )


def _read(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{where}: url_file: {shown_name(path)} can't be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: url_file: {path} is not UTF-8 text") from None
