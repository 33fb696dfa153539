"""Listening sockets that are this process's alone.

On Windows, another program may bind a port that is in use: a more specific address always, the
same one with SO_REUSEADDR. SO_EXCLUSIVEADDRUSE forbids both
(https://learn.microsoft.com/windows/win32/winsock/using-so-reuseaddr-and-so-exclusiveaddruse).
asyncio does not set it. Not for: accepting connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable

RESERVED = (
    ' or reserved by Windows ("netsh interface ipv4 show excludedportrange protocol=tcp" tells)'
    if sys.platform == "win32"
    else ""
)
"""What an explanation of ``is_taken`` adds."""


async def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """TCP sockets bound to every address of ``host`` (all of the machine if it is empty).

    Port 0 is a free port. The caller closes them, or gives them to a server that does.

    Raises:
        OSError: an address can't be had. ``is_taken`` tells whether another program has it.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with contextlib.ExitStack() as opened:
        sockets = []
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            try:
                each = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError:  # a kernel without IPv6
                if len(found) == 1:
                    raise
                continue
            bind(each, address)
            sockets.append(each)
        opened.pop_all()
    return sockets


async def serve_each(
    sockets: list[socket.socket], serve: Callable[..., Awaitable[asyncio.Server]]
) -> tuple[asyncio.Server, ...]:
    """Call ``serve(sock=...)`` for each socket. Raises what it raises; no socket is left then."""
    servers: list[asyncio.Server] = []
    try:
        for each in sockets:
            servers.append(await serve(sock=each))  # noqa: PERF401  what stands is closed below
    except BaseException:
        for server in servers:
            server.close()
        for each in sockets:
            each.close()
        raise
    return tuple(servers)


def bind(unbound: socket.socket, address: tuple[object, ...]) -> None:
    """Bind a TCP socket as a listener's. Raises ``OSError`` as ``socket.bind`` does."""
    if sys.platform == "win32":
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    elif os.name == "posix":
        # There it only means that connections of an earlier process may still linger.
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unbound.family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    unbound.bind(address)


def is_taken(error: OSError) -> bool:
    """Whether an address can't be had because it is in use.

    Windows says EACCES of a port that another program has for itself, or that Windows has
    reserved; it has no other right to a port.
    """
    if error.errno == errno.EADDRINUSE:
        return True
    return sys.platform == "win32" and error.errno == errno.EACCES
