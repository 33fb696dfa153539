"""The operator's choices: keys and theme from the configuration, the rest remembered.

Remembered settings are a small JSON file in the data directory. If the file can't be read or
written, nothing is remembered and the UI goes on. Not for: reading config.toml.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from appliance.storage import files

_HISTORY = 20
_MAX_BYTES = 65536


class UiSettings(msgspec.Struct, frozen=True):
    """The settings that the UI is started with.

    ``keys`` maps an action of the table of keys to the keys that do it (``{"pause": ("f5",)}``);
    ``theme`` is a name of the themes the UI offers, empty for what was remembered or the default;
    ``remember`` is the file that keeps the settings, ``None`` to forget them; ``exports`` is the
    folder for exported rows, ``None`` for the one in the data directory.
    """

    keys: Mapping[str, tuple[str, ...]] = {}
    theme: str = ""
    remember: Path | None = None
    exports: Path | None = None
    in_browser: bool = False
    """Whether a browser draws the UI, so that its person has none of the files that it writes."""


class Remembered(msgspec.Struct):
    """Settings that the UI keeps between two runs."""

    theme: str = ""
    utc: bool = False
    show_age: bool = False
    show_own: bool = False
    filters: list[str] = []
    """Filters that were used, the newest first."""
    publish_topics: list[str] = []


def load(path: Path | None) -> Remembered:
    """Read the remembered settings; anything unreadable counts as nothing remembered."""
    if path is None:
        return Remembered()
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Remembered)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Remembered()


def save(path: Path | None, remembered: Remembered) -> None:
    """Write the settings in one step, so that a crash leaves the old ones or the new ones."""
    if path is None:
        return
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(OSError):  # a full or read-only disk must not end the UI
        new.write_bytes(msgspec.json.encode(remembered))
        files.rename(new, path)


def used(history: list[str], entry: str) -> list[str]:
    """``history`` with ``entry`` as its newest, bounded, nothing twice."""
    if not entry:
        return history
    return [entry, *(old for old in history if old != entry)][:_HISTORY]
