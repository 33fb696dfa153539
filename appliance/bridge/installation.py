"""The random text that tells this installation from every other one.

It stands in a file of its own in the data directory, because it must outlive the journal: a new one
is a new client id at every other broker, and what waits there for the old one would not come. A
backup has it, so an appliance that is restored on another machine goes on with the sessions of the
old one. Not for: the client ids themselves (the bridge's configuration may name one).
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from pathlib import Path

from appliance.errors import UnavailableError
from appliance.storage import files
from appliance.storage.sqlite import explain

FILE_NAME = "installation"
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_LENGTH = 20
"""Characters, 100 bits."""
_LARGEST_FILE = 4096
_making = threading.Lock()
"""Bridges and recorders of databases ask at the same time, in threads of their own."""

_log = logging.getLogger(__name__)


def installation_id(data_dir: Path) -> str:
    """The text that the data directory has; one is made where there is none. Waits for the disk.

    Letters and digits without those that look alike.

    Raises:
        UnavailableError: the file can't be read or written.
    """
    path = data_dir / FILE_NAME
    try:
        with _making:
            found = _read(path)
            if found is not None:
                return found
            made = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
            files.replace_file(path, f"{made}\n".encode())
    except OSError as error:
        raise UnavailableError(
            f"{path} can't be used: {explain(error)}. It has the text by which other brokers and"
            " databases know this appliance. Correct that and start again."
        ) from error
    return made


def _read(path: Path) -> str | None:
    try:
        with files.open_to_read(path) as file:
            text = file.read(_LARGEST_FILE)
    except FileNotFoundError:
        return None
    found = text.decode("ascii", "replace").strip()
    if re.fullmatch(f"[{_ALPHABET}]{{{_LENGTH}}}", found):
        return found
    _log.error(
        "%s is damaged, and a new one is made: bridges without client_id are new clients to their"
        " brokers, which send what waits for the old ones to nobody, and new rows in databases"
        " have the new text",
        path,
    )
    return None
