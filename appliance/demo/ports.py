"""Free ports for the demo's servers. Not for: ports that a configuration names."""

from __future__ import annotations

import socket

from appliance.errors import UnavailableError
from appliance.listening import bind


def free_port(usual: int) -> int:
    """The usual port on 127.0.0.1, or any free one if a program uses it already.

    Raises:
        UnavailableError: no port is free.
    """
    for port in (usual, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                bind(probe, ("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("No port on 127.0.0.1 is free for the demo.")
