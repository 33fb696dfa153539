"""Whether a bridge goes to another server that its broker names (MQTT 5, section 4.11).

The other server is asked for as long as it accepts; one that does not is left for the configured
one. Not for: connecting.
"""

from __future__ import annotations

from appliance.bridge.causes import Cause, Kind
from appliance.bridge.transport import Address

_MOST = 5
"""Servers that may name yet another one in a row."""
_LONGEST_HOST = 253


def parse(reference: str, usual_port: int) -> Address | None:
    """The first server of a server reference; ``None`` if it can't be read.

    The standard leaves the form open, and suggests ``host:port`` with several separated by spaces.
    """
    first = reference.split(" ", maxsplit=1)[0]
    host, port = first, usual_port
    if first.startswith("["):
        host, _, rest = first[1:].partition("]")
        digits = rest[1:] if rest.startswith(":") else ""
        if rest and not digits:
            return None
    else:
        host, _, digits = first.partition(":")
    if digits:
        if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:6]) < 65536:
            return None
        port = int(digits)
    is_name = bool(host) and len(host) <= _LONGEST_HOST and host.isascii() and host.isprintable()
    if not is_name or set(host) & set(" /\\@?#%*\"'<>,;"):
        return None
    return Address(host, port)


class Redirects:
    """Where a bridge was sent. ``address`` is ``None`` while the configured server counts."""

    def __init__(self, is_followed: bool, usual_port: int) -> None:
        self._is_followed = is_followed
        self._usual_port = usual_port
        self._in_a_row = 0
        self.address: Address | None = None

    def follow(self, cause: Cause, *, is_stable: bool) -> bool:
        """A connection failed or ended; returns whether another server is to be tried at once.

        ``is_stable``: it had lasted, so servers that name each other are not at work.
        """
        if is_stable:
            self._in_a_row = 0
        address = parse(cause.server, self._usual_port) if cause.server else None
        if (
            cause.kind is not Kind.MOVED
            or not self._is_followed
            or address is None
            or self._in_a_row >= _MOST
        ):
            self._in_a_row = 0 if cause.kind is not Kind.MOVED else self._in_a_row
            self.address = None
            return False
        self._in_a_row += 1
        self.address = address
        return True
