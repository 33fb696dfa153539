"""The Windows service, as far as it can be read here: WinSW's file and the PowerShell scripts.

``packaging/service-check.ps1`` tries it on a Windows machine; the release workflow calls it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from appliance.cli import command_parser

ROOT = Path(__file__).parents[3]
WINDOWS = ROOT / "packaging" / "windows"
SCRIPTS = [
    WINDOWS / "install.ps1",
    WINDOWS / "uninstall.ps1",
    ROOT / "packaging" / "service-check.ps1",
]
FLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))

WINSW_2_12 = {
    "id", "name", "description", "executable", "arguments", "workingdirectory", "logpath", "log",
    "startmode", "delayedAutoStart", "depend", "stoptimeout", "stopparentprocessfirst", "onfailure",
    "resetfailure", "serviceaccount",
}  # fmt: skip
"""Elements that WinSW 2.12 reads (ServiceDescriptor.cs of its 2.x); it passes over all others."""


def test_the_service_runs_what_there_is_with_few_rights() -> None:
    """WinSW 2.12 knows each element; the command line is one that the appliance has; the account is
    the service's own, of which Windows knows the password; a restart that can't help ends."""
    service = ET.parse(WINDOWS / "appliance-service.xml").getroot()
    assert {each.tag for each in service} <= WINSW_2_12
    options = command_parser().parse_args(shlex.split(service.findtext("arguments")))
    assert (options.module, options.headless) == ("run", True)
    account = {each.tag: each.text for each in service.find("serviceaccount")}
    assert account == {"domain": "NT SERVICE", "user": service.findtext("id")}
    assert service.findall("onfailure")[-1].get("action") == "none"


def powershell() -> list[tuple[str, str]]:
    """Each PowerShell text, by its name: the scripts, and the steps of the workflow."""
    found = [(path.name, path.read_text("ascii")) for path in SCRIPTS]
    for job in FLOW["jobs"].values():
        found += [
            (step["name"], step["run"]) for step in job["steps"] if step.get("shell") == "pwsh"
        ]
    return found


@pytest.mark.parametrize(("name", "text"), powershell(), ids=[name for name, _ in powershell()])
def test_a_powershell_script_can_be_read(name: str, text: str) -> None:
    """A parser finds no mistake; PowerShell itself is asked where it is installed."""
    import tree_sitter
    import tree_sitter_powershell

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    assert parser.parse(b"if ($a) { foo (b }").root_node.has_error  # it does find mistakes
    mistakes, nodes = [], [parser.parse(text.encode()).root_node]
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.is_error or node.is_missing:
            mistakes.append(f"line {node.start_point[0] + 1}: {node.text.decode()[:60]}")
    assert mistakes == []
    tool = shutil.which("pwsh")
    if tool:
        parse = (
            "$e = $null; [void][System.Management.Automation.Language.Parser]::ParseInput("
            "[Console]::In.ReadToEnd(), [ref]$null, [ref]$e); exit $e.Count"
        )
        subprocess.run([tool, "-NoProfile", "-Command", parse], input=text, text=True, check=True)


@pytest.mark.parametrize("path", SCRIPTS[:2], ids=lambda path: path.name)
def test_what_administrators_run_needs_no_new_powershell(path: Path) -> None:
    """Plain ASCII (PowerShell 5 guesses otherwise), no operators of version 7, nothing downloaded,
    every command of the appliance that is called exists."""
    text = path.read_text("ascii")
    assert not re.search(r"&&|\|\||\?\?|\?\.|-Parallel\b", text)
    assert not re.search(r"Invoke-WebRequest|Invoke-RestMethod|curl|Start-BitsTransfer", text)
    for command in re.findall(r"appliance\.exe'\)\)? (?:@\()?'?(\w+)", text):
        command_parser().parse_args([command])


def test_the_check_calls_commands_that_there_are() -> None:
    """Each call of the program in service-check.ps1 is a command line that the appliance has."""
    text = SCRIPTS[2].read_text("ascii")
    calls = re.findall(r"& \$program (.*?)(?: \*>| \||$)", text, re.MULTILINE)
    assert len(calls) >= 4
    for call in calls:
        command_parser().parse_args(shlex.split(call))


def test_winsw_is_known_by_its_sum() -> None:
    """install.ps1 refuses a wrapper whose SHA-256 it does not expect; the workflow fetches that
    version, and no step runs the file otherwise."""
    text = (WINDOWS / "install.ps1").read_text("ascii")
    assert re.search(r"\[string\] \$WinSWSha256 = '[0-9A-F]{64}'", text)
    assert text.index("Get-FileHash") < text.index("Copy-Item -Force $WinSW")
    [step] = [
        step["run"] for step in FLOW["jobs"]["windows"]["steps"] if "WinSW" in step.get("run", "")
    ]
    assert "v2.12.0 --repo winsw/winsw" in step
    assert "version 2.12.0" in text
    assert not re.search(r"&.*WinSW-x64\.exe", step)
