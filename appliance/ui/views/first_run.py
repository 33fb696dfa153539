"""What the first run shows: what to do next, with the actual values and commands to copy.

Not for: anything once a message has come.
"""

from __future__ import annotations

import shlex

from appliance.engine_api import ListenerState, Setup, Snapshot
from appliance.ui.lines import Line
from appliance.ui.text import printable, wrap

_IN_CONFIG: Line = [(" in the configuration", "dim")]
_LEAST_CELLS = 20
"""With less room than that, the last part of a line begins a row of its own."""
_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound


def _listener(snapshot: Snapshot) -> ListenerState | None:
    """The listener to publish to: plain TCP where there is one, else TLS, else WebSocket."""
    return min(
        snapshot.listeners,
        key=lambda one: (one.transport != "tcp", one.tls),
        default=None,
    )


def address(snapshot: Snapshot) -> tuple[str, str]:
    """Host and port to publish to from this machine."""
    listener = _listener(snapshot)
    host, _, port = (listener.bind if listener is not None else "127.0.0.1:1883").rpartition(":")
    return ("127.0.0.1" if host in _EVERYWHERE else host.strip("[]")), port


def _way(snapshot: Snapshot) -> str:
    """What a client has to know besides the address."""
    listener = _listener(snapshot)
    ways = [] if listener is None or listener.transport == "tcp" else ["over WebSocket"]
    if listener is not None and listener.tls:
        ways.append("with TLS")
    return f"  (MQTT 3.1.1 or 5{''.join(f' {way}' for way in ways)})"


def _setup(snapshot: Snapshot) -> Setup:
    return snapshot.setup or Setup()


def _topic(snapshot: Snapshot) -> str:
    """A topic for the first message: one that is recorded, if the filter is a topic."""
    recorded = _setup(snapshot).recorded_topic
    return recorded if recorded and not set("+#") & set(recorded) else "demo/hello"


def command(snapshot: Snapshot) -> str:
    """The command that publishes a first message; it is what ``c`` copies.

    Empty where no client can connect, or only WebSocket clients: the common command can't do that.
    """
    host, port = address(snapshot)
    listener = _listener(snapshot)
    if listener is None or listener.transport != "tcp":
        return ""
    user = " -u NAME -P PASSWORD" if _setup(snapshot).users else ""
    user += " --cafile CA.pem" if listener.tls else ""
    return f"mosquitto_pub -h {host} -p {port}{user} -t {_topic(snapshot)} -m '{{\"hello\": 1}}'"


def _option(snapshot: Snapshot) -> str:
    """How a command names this configuration."""
    return f" -c {shlex.quote(snapshot.config_path)}" if snapshot.config_path else ""


def lines(snapshot: Snapshot, cells: int) -> list[Line]:
    """The whole page; it fits on 80x24. What is longer than a row goes on in the next one."""
    return [row for line in _lines(snapshot) for row in _rows(line, cells)]


def _rows(line: Line, cells: int) -> list[Line]:
    if sum(len(text) for text, _ in line) <= cells:
        return [line]
    *before, (text, tone) = line
    room = cells - sum(len(part) for part, _ in before) - 1
    if room < _LEAST_CELLS:
        return [before, *([("   ", ""), (piece, tone)] for piece in wrap(text.strip(), cells - 4))]
    first, *rest = wrap(printable(text), room)
    return [[*before, (first, tone)], *([("   ", ""), (piece, tone)] for piece in rest)]


def _lines(snapshot: Snapshot) -> list[Line]:
    host, _ = address(snapshot)
    setup, option = _setup(snapshot), _option(snapshot)
    config = snapshot.config_path or "none yet; appliance init writes config.toml"
    return [
        [
            (" The appliance runs and waits for its first message.", "strong"),
            ("  Esc hides this page", "dim"),
        ],
        *_way_in(snapshot),
        [],
        *_publish(snapshot),
        [],
        *(_users(setup, option, host) if snapshot.listeners else _listeners()),
        [],
        *_qlik(setup, option),
        [],
        [(" config  ", "dim"), (config, "")],
        [(" data    ", "dim"), (snapshot.data_dir, "")],
    ]


def _way_in(snapshot: Snapshot) -> list[Line]:
    host, port = address(snapshot)
    lines: list[Line] = []
    if snapshot.listeners:
        lines.append(
            [
                (" Point publishers at  ", ""),
                (f"{host}:{port}", "accent"),
                (_way(snapshot), "dim"),
            ]
        )
    bringing = [one for one in snapshot.bridges if one.subscriptions]
    if bringing or not snapshot.listeners:
        names = ", ".join(f"{one.name} ({one.address})" for one in bringing) or "none subscribes"
        lines.append([(" Messages come by bridges  ", ""), (names, "accent")])
    return lines


def _listeners() -> list[Line]:
    return [
        [(" 2 ", "key"), ("No client can connect, as listener = [] says. To let clients in:", "")],
        [("   ", ""), ('[[listener]] bind = "127.0.0.1:1883"', "accent"), *_IN_CONFIG],
    ]


def _publish(snapshot: Snapshot) -> list[Line]:
    if not (example := command(snapshot)):
        return [[(" 1 ", "key"), ("Publish a message here, with ", ""), ("n", "key")]]
    return [
        [
            (" 1 ", "key"),
            ("Publish a message, from another terminal (", ""),
            ("c", "key"),
            (" copies it), or here with ", ""),
            ("n", "key"),
            (":", ""),
        ],
        [("   ", ""), (example, "accent")],
    ]


def _users(setup: Setup, option: str, host: str) -> list[Line]:
    if setup.users:
        known = f"{setup.users} user{'s' * (setup.users != 1)} may connect ({setup.users_file})."
    else:
        known = "No user is named yet."
    lines: list[Line] = [[(" 2 ", "key"), (f"{known} Let other machines in:", "")]]
    if not setup.users_file:
        lines.append([("   ", ""), ('[access] users_file = "users.txt"', "accent"), *_IN_CONFIG])
    lines.append([("   ", ""), (f"appliance user add NAME{option}", "accent")])
    if host in ("127.0.0.1", "::1", "localhost"):
        lines.append([("   ", ""), ('[[listener]] bind = "0.0.0.0:1883"', "accent"), *_IN_CONFIG])
    return lines


def _qlik(setup: Setup, option: str) -> list[Line]:
    number: tuple[str, str] = (" 3 ", "key")
    if setup.qlik_edition in ("client-managed", "cloud"):
        lines: list[Line] = [
            [number, ("Tasks are started on ", ""), (setup.qlik_url, "accent"), (". Try it:", "")],
            [("   ", ""), (f"appliance check --connect{option}", "accent")],
        ]
    else:
        here = (
            "Tasks are started on a simulated server. "
            if setup.qlik_edition
            else "No Qlik server is set. "
        )
        lines = [
            [number, (f"{here}Set yours:", "")],
            [
                ("   ", ""),
                ('[qlik] edition = "client-managed", url = "https://HOST:4242", user,', "accent"),
            ],
            [("   ", ""), ("certificate, ca_file", "accent"), *_IN_CONFIG, ("; then", "dim")],
            [("   ", ""), (f"appliance check --connect{option}", "accent")],
        ]
    if setup.start_topic and setup.qlik_edition:
        lines.append(
            [
                ("   ", ""),
                ("t", "key"),
                (" starts a task now; so does its id on ", "dim"),
                (setup.start_topic, "accent"),
            ]
        )
    return lines
