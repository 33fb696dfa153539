"""``appliance check --connect``: triggers, timers and [allow] against the tasks of a Qlik server."""

from __future__ import annotations

import pytest

from appliance import cli
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask

SALES, OFF = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10", "6d2e8f1b-c7a0-4b95-a9d3-04f5e6b7c812"
CONFIG = """
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "client-managed"
url = "QLIK"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
"""
TRIGGER = '[[trigger]]\ntopic = "a"\ntask = '


@pytest.fixture(scope="module")
def url():
    tasks = [
        SimulatedTask("Reload sales", id=SALES, app_id="0a1b2c3d-0d4a-4c55-9a1b-7e3d2f6a9b10",
                      app_name="Sales", tags=("nightly",), properties=(("plant", "north"),)),
        SimulatedTask("Archive", id=OFF, enabled=False, tags=("old",)),
        SimulatedTask("Twin", tags=("twins",)),
        SimulatedTask("Twin", tags=("twins",)),
    ]  # fmt: skip
    with SimulatedQlik(tasks) as server:
        server.add_app("Bare")
        yield server.url


@pytest.mark.parametrize(
    ("tables", "code", "said"),
    [
        (TRIGGER + '{name = "Reload sales"}', 0, "ok   Each trigger that names a task finds it"),
        (TRIGGER + f'"{SALES.upper()}"', 0, "Each trigger that names a task finds it"),
        (TRIGGER + '"payload"', 0, "Executions can be read"),
        (TRIGGER + '{name = "reload Sales"}', 78,
         'bad  [[trigger]] 1: the server lists no task "reload Sales", so it starts nothing. Did you '
         'mean "Reload sales"? Check the spelling, and whether the user may see it.'),
        (TRIGGER + '"5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b11"', 78, f'Did you mean "{SALES}"?'),
        (TRIGGER + '"0a1b2c3d-0d4a-4c55-9a1b-7e3d2f6a9b10"', 78,
         'That is an app; it is reloaded by task "Reload sales"'),
        (TRIGGER + '{name = "Twin"}', 78, 'bad  [[trigger]] 1: 2 tasks answer to task "Twin"'),
        (TRIGGER + '{name = "Archive"}', 0, f'warn [[trigger]] 1: task "Archive" ({OFF}) is disabled'),
        (TRIGGER + '{tag = "nigthly"}', 0,
         'warn [[trigger]] 1: the server lists no tasks with tag "nigthly", so it starts nothing. Did '
         'you mean "nightly"?'),
        (TRIGGER + '{property = "plnt", value = "north"}', 0, 'Did you mean the property "plant"?'),
        (TRIGGER + '{property = "plant", value = "nort"}', 0, 'Did you mean "north"?'),
        ('[[timer]]\nname = "night"\nevery = "1h"\ntask = {name = "Relod sales"}', 78,
         'bad  [[timer]] 1 night: the server lists no task "Relod sales"'),
        ('[allow]\nnames = ["Archive"]\n' + TRIGGER + '{name = "Reload sales"}', 78,
         'bad  [[trigger]] 1: [allow] does not have task "Reload sales"'),
        ('[allow]\nnames = ["Reload sale"]\ntags = ["nightly"]\n', 0,
         'warn [allow] `names`: the server lists no task "Reload sale". Did you mean "Reload sales"?'),
        (TRIGGER + '{name = " Reload sales"}', 0, "Each trigger that names a task finds it"),
        (TRIGGER + '{app = "Sales"}', 0, "Each trigger that names a task finds it"),
        (TRIGGER + '{app = "Bare"}', 0, "Each trigger that names a task finds it"),
        ('[allow]\napps = ["Bare"]\n' + TRIGGER + '{app = "Bare"}', 0, "finds it, and may start it"),
        ('[allow]\napps = ["Bear", "Sales"]\n' + TRIGGER + '{app = "Bare"}', 78,
         'bad  [[trigger]] 1: [allow] does not have task "Reload of Bare"'),
        ('[allow]\napps = ["Bear", "Sales"]\n' + TRIGGER + '{app = "Sales"}', 0,
         'warn [allow] `apps`: the server lists no app "Bear".'),
        (TRIGGER + '{app = "Nobody"}', 78, 'the server lists no app "Nobody"'),
        (TRIGGER + '{name = "Reload sales"}\npartial = true', 78, "so `partial` starts nothing"),
        (TRIGGER + '{app = "Bare"}\npartial = true', 78, '"Partial reload" in a task of the QMC'),
        ('[[trigger]]\ntopic = "appliance/tasks/+/last"\ntask = {tag = "twins"}', 0, "a loop that never"),
    ],
)  # fmt: skip
def test_what_the_configuration_names_is_held_against_the_server(
    url, tmp_path, capfd, tables, code, said
) -> None:
    """Each task that can't be started is said before a message waits for it, with what may be meant."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.replace("QLIK", url) + tables)
    assert cli.main(["check", "--connect", "-c", str(file)]) == code
    out, err = capfd.readouterr()
    assert said in out
    assert err == ""


def test_a_loop_that_only_the_server_shows(url, tmp_path, capfd) -> None:
    """By names alone these triggers form a chain; by their ids they start each other."""
    file = tmp_path / "config.toml"
    file.write_text(
        CONFIG.replace("QLIK", url)
        + f'[[trigger]]\ntopic = "appliance/tasks/{SALES}/last"\ntask = {{name = "Archive"}}\n'
        + f'[[trigger]]\ntopic = "appliance/tasks/{OFF}/last"\ntask = {{name = "Reload sales"}}\n'
    )
    assert cli.main(["check", "-c", str(file)]) == 0
    assert "a loop" not in capfd.readouterr().out
    assert cli.main(["check", "--connect", "-c", str(file)]) == 0
    out = capfd.readouterr().out
    assert "warn [[trigger]]: a loop that never ends: an outcome of task" in out
    assert 'task "Reload sales" ([[trigger]] 2)' in out


def test_apps_that_can_not_be_listed_are_not_said_to_be_missing(tmp_path, capfd) -> None:
    """The server has a problem, not the configuration."""
    with SimulatedQlik([SimulatedTask("A")]) as server:
        server.fail(FaultKind.STATUS, path="/qrs/app$", status=500)
        config = tmp_path / "config.toml"
        tables = '[allow]\napps = ["Bare"]\n' + TRIGGER + '{app = "Bare"}\n'
        config.write_text(CONFIG.replace("QLIK", server.url) + tables, "utf-8")
        assert cli.main(["check", "--connect", "-c", str(config)]) == 0
    said = capfd.readouterr().out
    assert "lists no app" not in said
    for where in ("[[trigger]] 1", "[allow] `apps`"):
        assert f"warn {where}: no task reloads app \"Bare\", and the server's apps can't be" in said


def test_uploads_are_tried_up_to_the_right_to_write(tmp_path, capfd) -> None:
    """The space and the role are looked at, and nothing is sent; a bad one is the exit code."""
    with SimulatedQlik() as server:
        server.cloud.data_files.add_space("Plant")
        server.cloud.data_files.add_space("Closed", roles=("consumer",))
        config = tmp_path / "config.toml"
        text = f"""
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "cloud"
url = "{server.url}"
api_key = "simulated-api-key"
[[recorder]]
topic = "line/#"
path = "sensors.csv"
format = "csv"
rotate = {{every = "1m"}}
upload = {{space = "Plant", folder = "a"}}
"""
        config.write_text(text, "utf-8")
        assert cli.main(["check", "--connect", "-c", str(config)]) == 0
        assert '"sensors" go to the space "Plant", folder a, which has 0' in capfd.readouterr().out
        config.write_text(text.replace('"Plant"', '"Closed"'), "utf-8")
        assert cli.main(["check", "--connect", "-c", str(config)]) == 77
        assert 'bad  The uploads of recorder "sensors" can\'t go' in capfd.readouterr().out
        assert not server.posts
