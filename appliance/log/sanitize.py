"""Text from outside made safe to show: on one line, inert for a terminal, without secrets.

Not for: payloads in the UI, which keep their line breaks (ui/).
"""

from __future__ import annotations

import json
import re
from functools import cache

from appliance.known_secrets import KnownSecrets
from appliance.secret import Secret

# C0, DEL, C1, line and paragraph separators, bidirectional overrides, lone surrogates: what could
# end a line, move a terminal's cursor, show text in another order than it has or not be encoded.
_COMMANDS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"

# Invisible characters, which could make a name look like another one: Unicode's
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), its other format characters, and the
# blank Braille pattern. Format characters that are drawn, such as the Arabic number sign, stay.
_INVISIBLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# A token of the appliance's own (broker/tokens.py), wherever somebody puts one.
_TOKEN = re.compile(r"\bapl_[\w-]{43}")
# What looks like a secret in the text of a foreign library's error.
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_ASSIGNED = re.compile(
    r"(?i)\b((?:\w*password|\w*secret|api[_-]?key|\w*token|passwd|pwd)[\"']?\s*[:=]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"
)


def escape(text: str) -> str:
    """``text`` on one line, with all that a terminal acts on or shows as nothing written out."""
    if text.isascii() and text.isprintable():
        return text
    return _unsafe().sub(_escaped, text)


@cache
def _unsafe() -> re.Pattern[str]:
    """The pattern of characters to escape. Compiling it takes five milliseconds of a start."""
    return re.compile(f"[{_COMMANDS}{_INVISIBLE}]")


def escape_json(text: str) -> str:
    """JSON with the same meaning, in which such characters are written as JSON escapes them.

    Line breaks and tabs between values stay.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return _unsafe().sub(_escaped_in_json, text)


def _escaped_in_json(match: re.Match[str]) -> str:
    if match[0] in "\n\r\t":
        return match[0]
    return "\\u007f" if match[0] == "\x7f" else json.dumps(match[0])[1:-1]


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class SecretMasker:
    """Replaces known secrets, and texts that look like secrets, by ``***``."""

    def __init__(self, *secrets: Secret) -> None:
        self._known = KnownSecrets(*secrets)

    def add(self, *secrets: Secret) -> None:
        """Mask these too, from now on."""
        self._known.add(*secrets)

    def apply(self, text: str) -> str:
        text = _TOKEN.sub("apl_***", self._known.mask(text))
        return _ASSIGNED.sub(r"\1***", _CREDENTIAL.sub(r"\1 ***", text))
