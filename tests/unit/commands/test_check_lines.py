"""What ``appliance check`` says of a configuration fits the terminal."""

import sys

import pytest

from appliance import cli

CONFIG = """
[[listener]]
bind = "127.0.0.1:0"
[[recorder]]
topic = "plant/{line}/{sensor}"
path = "recordings/{line}_{date}.jsonl"
format = "jsonl"
metadata = true
rotate = {size = "64MB", every = "1h"}
keep = {age = "30d"}
"""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_lines_go_on_below_their_text(is_terminal, tmp_path, monkeypatch, capsys):
    """In a file each recorder is one line, for programs."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    code = cli.main(["check", "-c", str(file)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    lines = shown.out.splitlines()
    (first,) = (n for n, line in enumerate(lines) if line.startswith("  recorder    plant/"))
    if is_terminal:
        assert lines[first + 1].startswith(" " * 14)
        assert lines[first + 1].strip()
        assert all(len(line) < 80 for line in lines[first:] if str(tmp_path) not in line)
    else:
        assert lines[first].endswith("closed files kept for 30d")


# Apprise loads every one of its plugins, and some of them use what Python has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_http_and_notices_are_told(tmp_path, capsys):
    """Who can connect; who is told of what, without the URL."""
    file = tmp_path / "config.toml"
    file.write_text(
        CONFIG
        + """
[http]
bind = "127.0.0.1:8080"
[qlik]
edition = "simulated"
keep_script_logs = "30d"
[[notify]]
url = "mailto://user:topsecret@example.com"
on = ["failed", "aborted"]
tags = ["critical"]
to_owner = true
every = "10m"
log = "attach"
"""
    )
    code = cli.main(["check", "-c", str(file)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    for line in (
        "  http        127.0.0.1:8080, no TLS, this machine only, with Butler's calls",
        "  qlik        simulated within the appliance, script logs of failed reloads kept for 30d",
        "  notify      failed or aborted, by mailto; only tasks with tag critical; to the owner of the"
        " app too; at most 20 an hour, 10m apart for each task; with the script log attached",
    ):
        assert line in shown.out.splitlines()
    assert "topsecret" not in shown.out
