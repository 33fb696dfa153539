"""Rules about the addresses that the appliance listens at: ``[http]``, ``[metrics]``, listeners.

Not for: who must sign in there (checks.py), certificates (commands/check.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from appliance.config.bridge_checks import Problem
from appliance.config.problems import ConfigPath, shown
from appliance.config.tables import Config
from appliance.config.values import is_loopback, parse_bind

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound to


def port_problems(config: Config) -> Iterator[Problem]:
    """Every rule about ``[http]`` and ``[metrics]`` that ``config`` breaks."""
    taken = list(_listeners(config))
    for table, bind in (("[http]", config.http.bind), ("[metrics]", config.metrics.bind)):
        if bind is None:
            continue
        where = ConfigPath(table, "bind")
        try:
            host, port = parse_bind(bind)
        except ValueError as error:
            if table == "[metrics]":  # of [http] it is reported elsewhere
                yield Problem(where, f"value {shown(bind)}: {error}", ("bind",))
            continue
        if table == "[metrics]" and not (is_loopback(host) or config.metrics.remote):
            text = (
                f"value {shown(bind)}: other machines could read metrics without a password; "
                f'write "127.0.0.1:{port}", or add remote = true to allow it'
            )
            yield Problem(where, text, ("bind", "remote"))
        for other, other_port, owner in taken:
            if port and port == other_port and collide(host, other):
                text = f"value {shown(bind)}: {owner} has this port; choose another"
                yield Problem(where, text, ("bind",))
        taken.append((host, port, table))


def _listeners(config: Config) -> Iterator[tuple[str, int, str]]:
    for number, listener in enumerate(config.listener, 1):
        try:
            host, port = parse_bind(listener.bind)
        except ValueError:  # reported elsewhere
            continue
        yield host, port, f"[[listener]] {number}"


def port_advice(config: Config) -> Iterator[str]:
    """Settings of ``[http]`` that are allowed and may be a mistake."""
    http = config.http
    if http.bind is None or is_loopback(parse_bind(http.bind)[0]):
        return
    if http.tls is None:
        yield (
            f"[http] ({http.bind}) has no `tls`: passwords and payloads cross the network "
            "unencrypted"
        )
    if not http.hosts:
        yield (
            f"[http] has no `hosts`: requests for another name than {socket.gethostname()}, "
            "localhost or an address are answered with 421"
        )


def collide(host: str, other: str) -> bool:
    """Whether both can't be listened at with one port."""
    if host.lower() == other.lower():
        return True
    if not {host, other} & _EVERYWHERE:
        return False
    return (":" in host) == (":" in other)
