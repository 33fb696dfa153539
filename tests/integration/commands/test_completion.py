"""``appliance completion`` and ``manual``, read by the shells and by man themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import cli
from appliance.cli import SHELLS, command_parser
from appliance.commands import completion, manual


def printed(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    assert cli.main(list(arguments)) == 0
    return capfdbinary.readouterr().out.decode()


def shell(name: str, *arguments: str, script: str) -> list[str]:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [program, *arguments], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_actions_and_values() -> None:
    """After ``source <(appliance completion bash)`` bash offers what may follow."""
    ask = """
complete_() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _shtab_appliance; echo "${COMPREPLY[@]}"; }
complete_ appliance star
complete_ appliance start --wa
complete_ appliance user r
complete_ appliance log-level d
"""
    found = shell("bash", "--norc", script=completion.script(command_parser(), "bash") + ask)
    assert found == ["start", "--wait", "remove", "debug"]


def test_zsh_takes_it_by_eval(tmp_path: Path) -> None:
    """After compinit, ``eval`` of the script registers the completion."""
    file = tmp_path / "c.zsh"
    file.write_text(completion.script(command_parser(), "zsh"), "utf-8")
    ask = f"""
autoload -Uz compinit; compinit -u -d {tmp_path}/dump
eval "$(cat {file})"
print ${{_comps[appliance]}}
print -l $_shtab_appliance_start_options | grep -o -- "--variable"
"""
    assert shell("zsh", "-f", script=ask) == ["_shtab_appliance", "--variable"]


def test_fish_completes_commands_and_options() -> None:
    """fish itself tells what it would offer."""
    ask = """
complete -C "appliance comp" | string split -f1 \\t
complete -C "appliance start --wa" | string split -f1 \\t
"""
    found = shell("fish", "--no-config", script=completion.script(command_parser(), "fish") + ask)
    assert found == ["completion", "--wait"]


def test_powershell_can_read_it() -> None:
    """The script is PowerShell by its grammar, and names the commands."""
    grammar = pytest.importorskip("tree_sitter_powershell")
    tree_sitter = pytest.importorskip("tree_sitter")
    text = completion.script(command_parser(), "powershell")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    assert not parser.parse(text.encode()).root_node.has_error
    assert "'start'" in text
    assert "Register-ArgumentCompleter" in text


@pytest.mark.parametrize("name", SHELLS)
def test_the_command_prints_the_script(capfdbinary, name: str) -> None:
    """Standard output has the script as it is, with the line ends that shells want."""
    assert printed(capfdbinary, "completion", name) == completion.script(command_parser(), name)
    assert "\r" not in completion.script(command_parser(), name)


def test_an_unknown_shell_is_wrong_usage(capfd) -> None:
    """A slip gets a hint."""
    assert cli.main(["completion", "bsh"]) == 64
    assert "did you mean bash?" in capfd.readouterr().err


def test_man_formats_the_page_without_a_warning(capfdbinary, tmp_path: Path, monkeypatch) -> None:
    """Every command has its section, with examples as they can be copied."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setenv("COLUMNS", "200")
    text = printed(capfdbinary, "manual")
    assert text == manual.page(command_parser)
    assert '"1970-01-01"' in text
    program = shutil.which("groff")
    if program is None or sys.platform == "win32":
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [program, "-man", "-ww", "-Tutf8", "-P-c"], input=text, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    shown = re.sub(r".\x08", "", done.stdout)
    assert done.stderr == ""
    assert "appliance - MQTT broker that starts Qlik Sense tasks" in shown
    for name in ("START", "USER ADD", "SESSION END"):
        assert re.search(rf"^{name}$", shown, re.MULTILINE)
    assert "appliance start 'Reload sales' --wait --timeout 2h" in shown
