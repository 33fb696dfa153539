"""Rules about ``[[bridge]]``: names, addresses, sign-in and TLS.

Not for: topics (bridge_topics.py), what is allowed and may be a mistake (bridge_advice.py), single
values (decoder.py), whether named files exist (files.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from appliance.config.bridge_topics import circles, same_broker, topic_problems
from appliance.config.problems import ConfigPath, shown
from appliance.config.tables import BridgeConfig, Config
from appliance.config.values import is_loopback, parse_bind

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PATH = re.compile(r"/[!-~]*")
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound to
_MOST_BRIDGES = 50
_MOST_FILTERS = 500
"""Of all bridges in one direction; they are compared with each other."""
_LONGEST_HOST = 253
_LONGEST_STRING = 65535


class Problem(NamedTuple):
    """One broken rule."""

    where: ConfigPath
    text: str
    about: tuple[str, ...]
    """Keys of the table that the rule depends on."""


def bridge_problems(config: Config) -> Iterator[Problem]:
    """Every rule about bridges that ``config`` breaks."""
    if len(config.bridge) > _MOST_BRIDGES:
        text = f"there are {len(config.bridge)} bridges, and at most {_MOST_BRIDGES} can be served"
        yield Problem(ConfigPath("[[bridge]]"), f"{text}; remove some", ("name",))
        return
    for direction in ("subscribe", "publish"):
        count = sum(len(getattr(each, direction)) for each in config.bridge)
        if count > _MOST_FILTERS:
            text = f"the bridges have {count} filters to {direction}, and at most {_MOST_FILTERS}"
            text += " can be served; use wider ones (+ and #)"
            yield Problem(ConfigPath("[[bridge]]", direction), text, (direction,))
            return
    names: dict[str, int] = {}
    for number, bridge in enumerate(config.bridge, 1):
        table = f"[[bridge]] {number}"
        for key, text in (
            *_name(bridge, names),
            *_host(bridge, config),
            *_connection(bridge),
            *_tls(bridge),
            *topic_problems(bridge, config.service.name),
        ):
            yield Problem(ConfigPath(table, key), text, (re.split(r"[.\[]", key)[0],))
        names.setdefault(bridge.name, number)
    yield from _client_ids(config)
    for number, key, text in circles(config.bridge):
        about = ("publish", "subscribe", "host", "port", "version")
        yield Problem(ConfigPath(f"[[bridge]] {number}", key), text, about)


def _name(bridge: BridgeConfig, names: dict[str, int]) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(bridge.name):
        text = (
            f"value {shown(bridge.name)}: a name has 1 to 64 letters (a to z), digits, `-`, `_` "
            'and `.`; write for example "plant"'
        )
        yield "name", text
    elif bridge.name in names:
        text = (
            f"value {shown(bridge.name)}: [[bridge]] {names[bridge.name]} has this name; choose "
            "another"
        )
        yield "name", text


def _host(bridge: BridgeConfig, config: Config) -> Iterator[tuple[str, str]]:
    problem = host_problem(bridge.host)
    if problem is not None:
        value = "(not shown)" if "@" in bridge.host else shown(bridge.host)
        yield "host", f"value {value}: {problem}"
        return
    for number, listener in enumerate(config.listener, 1):
        try:
            host, port = parse_bind(listener.bind)
        except ValueError:  # reported elsewhere
            continue
        if port == bridge.used_port and _reaches(bridge.host, host):
            text = (
                f"value {shown(bridge.host)}: {bridge.address} is [[listener]] {number} of this "
                "appliance; name the other broker, or give the listener another port"
            )
            yield "host", text


def _reaches(host: str, bound: str) -> bool:
    """Whether a connection to ``host`` comes to a listener of this machine at ``bound``."""
    host, bound = host.lower(), bound.lower()
    if host == bound:
        return True
    if bound not in _EVERYWHERE:
        return "localhost" in (host, bound) and is_loopback(host) and is_loopback(bound)
    if host in ("localhost", socket.gethostname().lower()):
        return True
    return (":" in host) == (":" in bound) and _is_own_address(host)


def _is_own_address(host: str) -> bool:
    """Whether this machine has the address; asked of the operating system, no packet is sent."""
    if is_loopback(host):
        return True
    try:
        address = ipaddress.ip_address(host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            # What goes to an address of this machine comes from it.
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except (ValueError, OSError):
        return False


def host_problem(host: str) -> str | None:
    """Why a text is no host name or address, and what to write; ``None`` if it is one."""
    example = 'write for example "broker.example.com"'
    if not host:
        return f"it is empty; {example}"
    if "://" in host:
        return (
            "only the host's name or address goes here; `port`, `transport`, `path` and `tls` say "
            f"the rest; {example}"
        )
    if "@" in host:
        return "a name or password does not belong here; use `username` and `password_file`"
    if "/" in host:
        return f"a path does not belong here; use `path`; {example}"
    if host.startswith("["):
        return 'write an IPv6 address without brackets, for example "::1"'
    name, colon, port = host.partition(":")
    if colon and port.isdigit():
        return f"the port goes into `port`; write host = {shown(name)} and port = {port}"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return None
    is_name = host.isprintable() and not set(host) & set(" :?#*%\\\"'<>,;")
    if not is_name or len(host) > _LONGEST_HOST:
        return f"not a host name or address; {example}"
    try:
        host.encode("idna")  # as the resolver is asked for it
    except UnicodeError:
        return f"not a host name or address; {example}"
    return None


def _connection(bridge: BridgeConfig) -> Iterator[tuple[str, str]]:
    if bridge.transport == "tcp" and bridge.path != BridgeConfig("", "").path:
        yield "path", 'it is for transport = "websocket"; remove it, or add that'
    elif not _PATH.fullmatch(bridge.path) or "#" in bridge.path:
        text = (
            f"value {shown(bridge.path)}: a path begins with / and has no blanks, no # and only "
            'ASCII characters; write for example "/mqtt"'
        )
        yield "path", text
    if bridge.username is not None and (problem := _string_problem(bridge.username)):
        yield "username", f"value {shown(bridge.username)}: {problem}"
    if bridge.client_id and (problem := _string_problem(bridge.client_id)):
        yield "client_id", f"value {shown(bridge.client_id)}: {problem}"
    if bridge.password is not None and bridge.password_file is not None:
        yield "password", "`password_file` is set too; keep one of the two"
    for key in ("password", "password_file"):
        if getattr(bridge, key) is None or bridge.username is not None or bridge.version == "5":
            continue
        text = (
            "MQTT 3.1.1 has no password without a user name; add `username`, or version = "
            '"5" if the other broker wants a password alone'
        )
        yield key, text


def _string_problem(text: str) -> str | None:
    """Why a user name or client id can't be sent (MQTT 3.1.1, section 1.5.3)."""
    if not text:
        return "it is empty; remove it, or write the name"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        return "it has a control character in it; remove that"
    if len(text.encode("utf-8", "surrogatepass")) > _LONGEST_STRING:
        return "it is longer than 65535 bytes, the most that MQTT can send; write a shorter one"
    return None


def _tls(bridge: BridgeConfig) -> Iterator[tuple[str, str]]:
    tls = bridge.tls
    if tls is None:
        return
    if tls.certfile is not None and tls.keyfile is None:
        yield "tls.keyfile", "this key is missing; `certfile` needs its private key"
    if tls.keyfile is not None and tls.certfile is None:
        yield "tls.certfile", "this key is missing; `keyfile` is of use only with a certificate"
    if tls.server_name and (problem := host_problem(tls.server_name)):
        yield "tls.server_name", f"value {shown(tls.server_name)}: {problem}"
    for number, protocol in enumerate(tls.alpn, 1):
        if not protocol or not protocol.isascii() or len(protocol) > 255:
            text = (
                f"value {shown(protocol)}: a protocol's name has 1 to 255 ASCII characters; write "
                'for example "mqtt"'
            )
            yield f"tls.alpn[{number}]", text


def _client_ids(config: Config) -> Iterator[Problem]:
    numbered = enumerate(config.bridge, 1)
    for (number, one), (other_number, other) in combinations(numbered, 2):
        if one.client_id and one.client_id == other.client_id and same_broker(one, other):
            yield Problem(
                ConfigPath(f"[[bridge]] {other_number}", "client_id"),
                f"value {shown(other.client_id)}: [[bridge]] {number} has this client id at the "
                "same broker, and they would end each other's connection for ever; choose "
                "another, or remove it",
                ("client_id", "host", "port", "transport", "tls"),
            )
