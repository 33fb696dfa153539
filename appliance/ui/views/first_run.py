"""What the first run shows: what to do next, with commands to copy.

Not for: anything once a message has come.
"""

from __future__ import annotations

from appliance.engine_api import Snapshot
from appliance.ui.lines import Line


def address(snapshot: Snapshot) -> tuple[str, str]:
    """Host and port to publish to from this machine."""
    for listener in snapshot.listeners:
        if listener.transport == "tcp" and not listener.tls:
            host, _, port = listener.bind.rpartition(":")
            if host in ("", "0.0.0.0", "[::]", "::"):  # noqa: S104 - compared, not bound
                host = "127.0.0.1"
            return host.strip("[]"), port
    return "127.0.0.1", "1883"


def command(snapshot: Snapshot) -> str:
    """The command that publishes a first message; it is what ``c`` copies."""
    host, port = address(snapshot)
    return f"mosquitto_pub -h {host} -p {port} -t demo/hello -m '{{\"hello\": 1}}'"


def lines(snapshot: Snapshot) -> list[Line]:
    """The whole page."""
    host, port = address(snapshot)
    config = snapshot.config_path or "config.toml (there is none yet: appliance init)"
    return [
        [],
        [(" The appliance runs and waits for its first message.", "strong")],
        [],
        [(" 1 ", "key"), ("Publish one, from another terminal:", "")],
        [("     ", ""), (command(snapshot), "accent")],
        [("     or  ", "dim"), ("appliance publish -t demo/hello -m hello", "accent")],
        [("     or here, with the key  ", "dim"), ("n", "key")],
        [],
        [(" 2 ", "key"), ("Let other machines in: name a user, then listen on the network.", "")],
        [("     ", ""), ("appliance user add NAME", "accent")],
        [
            ("     ", ""),
            ('[[listener]] bind = "0.0.0.0:1883"', "accent"),
            (" in the config", "dim"),
        ],
        [],
        [(" 3 ", "key"), ("Start Qlik tasks: say where the server is, then check.", "")],
        [
            ("     ", ""),
            ("[qlik] edition, url, user, certificate", "accent"),
            (" in the config", "dim"),
        ],
        [("     ", ""), ("appliance check", "accent")],
        [],
        [(" config  ", "dim"), (config, "")],
        [(" data    ", "dim"), (snapshot.data_dir, ""), (f"    broker  {host}:{port}", "dim")],
    ]
