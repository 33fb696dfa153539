"""Promises about listening sockets."""

import asyncio
import socket

import pytest

from appliance.listening import bind, bound_sockets, is_taken, serve_each


@pytest.mark.parametrize("theirs", ["127.0.0.1", ""])
@pytest.mark.parametrize("ours", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("shares", [False, True])
async def test_no_other_program_gets_the_port(ours: str, theirs: str, shares: bool) -> None:
    """Neither a more specific address nor SO_REUSEADDR takes the clients away, on any system."""
    [first] = await bound_sockets(ours, 0)
    first.listen()
    with first, socket.socket() as second:
        if shares:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError) as caught:
            second.bind((theirs, first.getsockname()[1]))
        assert is_taken(caught.value)


async def test_a_port_that_another_program_has_is_taken() -> None:
    """Whatever the system says of it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError) as caught:
            await bound_sockets("127.0.0.1", port)
        assert is_taken(caught.value)
        with socket.socket() as probe, pytest.raises(OSError) as caught:
            bind(probe, ("127.0.0.1", port))
        assert is_taken(caught.value)


async def test_an_address_of_another_machine_is_not_taken() -> None:
    """192.0.2.1 is for documentation (RFC 5737)."""
    with pytest.raises(OSError) as caught:
        await bound_sockets("192.0.2.1", 0)
    assert not is_taken(caught.value)


async def test_all_addresses_are_served_or_none() -> None:
    """A server that can't start leaves no socket open."""
    sockets = await bound_sockets("127.0.0.1", 0) + await bound_sockets("127.0.0.1", 0)

    async def serve(sock: socket.socket) -> asyncio.Server:
        if sock is sockets[1]:
            raise OSError(24, "Too many open files")
        return await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=sock)

    with pytest.raises(OSError, match="Too many"):
        await serve_each(sockets, serve)
    assert [each.fileno() for each in sockets] == [-1, -1]
