"""Text from outside made safe to show: on one line, inert for a terminal, without secrets.

Not for: payloads in the UI, which keep their line breaks (ui/).
"""

from __future__ import annotations

import re

from appliance.config.values import Secret

# C0, DEL, C1, line and paragraph separators, bidirectional overrides, lone surrogates: what could
# end a line, move a terminal's cursor, show text in another order than it has or not be encoded.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# What looks like a secret in the text of a foreign library's error.
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_ASSIGNED = re.compile(
    r"(?i)\b((?:\w*password|\w*secret|api[_-]?key|\w*token|passwd|pwd)[\"']?\s*[:=]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"
)
_LEAST_SECRET = 4
"""Characters. Masking a shorter one everywhere would hide the text, not the secret."""


def escape(text: str) -> str:
    """``text`` on one line, with everything that a terminal would act on written out."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Masks:
    """Puts ``***`` where a known secret, or what looks like one, stands in a text."""

    def __init__(self, *secrets: Secret) -> None:
        self._values: tuple[str, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: Secret) -> None:
        """Mask these too, from now on."""
        values = {secret.reveal() for secret in secrets} | set(self._values)
        # The longest first: a secret may be part of another.
        self._values = tuple(
            sorted((each for each in values if len(each) >= _LEAST_SECRET), key=len, reverse=True)
        )

    def apply(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, "***")
        return _ASSIGNED.sub(r"\1***", _CREDENTIAL.sub(r"\1 ***", text))
