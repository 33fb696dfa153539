"""The bash scripts hold where they are run: macOS has bash 3.2, Windows redirects in a code page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="bash scripts")


def bash_scripts() -> list[Path]:
    """Each script of the project that begins with bash or sh."""
    places = ["packaging", "packaging/linux", "scripts", ".ci"]
    files = (path for place in places for path in sorted((ROOT / place).iterdir()))
    return [
        path
        for path in files
        if path.is_file() and re.match(rb"#!.*\b(ba)?sh$", path.read_bytes().split(b"\n")[0])
    ]


NOT_IN_BASH_3_2 = {
    r"\b(declare|local|typeset|readonly) -[a-zA-Z]*[Agn]": "declare -A name=()",
    r"\b(mapfile|readarray)\b": "mapfile -t lines < file",
    r"\$\{!?\w+(\[[^]]*\])?(,,?|\^\^?)\}": '"${name,,}"',
    r"\$\{\w+(\[[^]]*\])?@[A-Za-z]\}": '"${name@Q}"',
    r"\|&": "command |& tee log",
    r"&>>": "command &>> log",
    r"\bwait -[nfp]": "wait -n",
    r"\bcoproc\b": "coproc command",
    r"(\[\[|\btest|\[) -v ": "[[ -v name ]]",
    r"\bEPOCH(SECONDS|REALTIME)\b|\bBASHPID\b|\bSRANDOM\b": "echo $EPOCHSECONDS",
    r"\[-\d+\]\}": '"${list[-1]}"',
    r"\$\{\w+:[^}:]*: ?-": '"${name:0:-1}"',
    r";;?&": "x) true ;;&",
    r"shopt -s (globstar|lastpipe|inherit_errexit|autocd|dirspell)": "shopt -s globstar",
    r"\bread -[a-zA-Z]*[Ni]": "read -N 4 word",
    r"\bread [^|;]*-t ?0?\.\d": "read -t 0.5 word",
    r"\{[a-z_]+\}[<>]": "exec {log}> file",
    r"\$'[^']*\\[uU]": "$'\\u00e9'",
    r"printf[^|;]*%\([^)]*\)T": "printf '%(%F)T'",
    r"printf -v \w+\[": "printf -v list[0] x",
    r"\{0\d+\.\.|\{\d+\.\.\d+\.\.": "{01..10}",
}
"""What bash learned after 3.2, each with an example."""


def without_comments(text: str) -> str:
    return re.sub(r"(^|\s)#.*", r"\1", text)


def newer_than_3_2(text: str) -> list[str]:
    """The parts of a script that bash 3.2 refuses or reads differently."""
    text = without_comments(text)
    found = [match[0] for rule in NOT_IN_BASH_3_2 for match in re.finditer(rule, text)]
    # Under "set -u" an empty array is an unset variable there: ${name[@]+"${name[@]}"} is safe.
    for name in set(re.findall(r"\b(\w+)=\(\)", text)):
        guarded = f'${{{name}[@]+"${{{name}[@]}}"}}'
        found += re.findall(rf'"\$\{{{name}\[[@*]\]\}}"', text.replace(guarded, ""))
    return found


@pytest.mark.parametrize("path", bash_scripts(), ids=lambda path: path.name)
def test_a_script_needs_no_bash_after_3_2(path: Path) -> None:
    """macOS will never have a newer one in /bin."""
    assert newer_than_3_2(path.read_text("utf-8")) == []


@pytest.mark.parametrize("example", NOT_IN_BASH_3_2.values())
def test_what_bash_3_2_lacks_is_found(example: str) -> None:
    assert newer_than_3_2(f"set -u\n{example}\n")


def test_an_empty_array_is_found() -> None:
    assert newer_than_3_2('set -u\nflags=()\ntar "${flags[@]}" -cf x y\n') == ['"${flags[@]}"']
    assert newer_than_3_2('set -u\nflags=()\ntar ${flags[@]+"${flags[@]}"} -cf x y\n') == []


@POSIX
@pytest.mark.parametrize("path", bash_scripts(), ids=lambda path: path.name)
def test_the_shell_scripts_are_sound(path: Path) -> None:
    """shellcheck finds nothing, or where it is not there, the shell at least reads the script."""
    tool = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]
    done = subprocess.run([*tool, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.access(path, os.X_OK) or path.parent.name == "linux"


@POSIX
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not there")
def test_the_scripts_in_the_workflow_are_sound(tmp_path: Path) -> None:
    """shellcheck finds nothing in the lines that the jobs run with bash."""
    for name, job in FLOW["jobs"].items():
        lines = [
            step["run"] for step in job["steps"] if "run" in step and step.get("shell") != "pwsh"
        ]
        script = tmp_path / name
        script.write_text("#!/usr/bin/env bash\n" + "\n".join(f"(\n{each}\n)" for each in lines))
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert newer_than_3_2(script.read_text()) == []


def test_no_script_gets_other_line_ends(tmp_path: Path) -> None:
    """A checkout on Windows, where Git writes CR LF unless it is told not to, has the scripts as
    they are: bash ends at a carriage return."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "-c", "core.autocrlf=true", ROOT, clone], check=True, timeout=60
    )
    shutil.copy(ROOT / ".gitattributes", clone)
    subprocess.run(["git", "rm", "-q", "--cached", "-r", "."], cwd=clone, check=True, timeout=60)
    subprocess.run(["git", "reset", "-q", "--hard"], cwd=clone, check=True, timeout=60)
    for path in bash_scripts():
        assert b"\r" not in (clone / path.relative_to(ROOT)).read_bytes(), path


def redirected(arguments: list[object], out: Path, cwd: Path = ROOT) -> bytes:
    """Run a Python program with standard output in a file, as Windows would: in cp1252."""
    env = os.environ | {
        "PYTHONIOENCODING": "cp1252",
        "PYTHONUTF8": "0",
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    with out.open("wb") as file:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            stdout=file, stderr=subprocess.PIPE, cwd=cwd, env=env, timeout=120,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2000:]
    return out.read_bytes()


def test_the_programs_of_the_build_write_in_any_code_page(tmp_path: Path) -> None:
    """archive.py with a name outside cp1252; complete.py."""
    folder = tmp_path / "appliance"
    folder.mkdir()
    (folder / "Übersicht-表.txt").write_text("x", "utf-8")
    packaging = ROOT / "packaging"
    redirected([packaging / "archive.py", folder, tmp_path / "a.zip"], tmp_path / "out")
    redirected([packaging / "complete.py", tmp_path], tmp_path / "out")
    assert (tmp_path / "appliance.1").stat().st_size > 1000


CONFIG = """
[service]
name = "Žižkov-工場"
data_dir = "dåta-工"
[qlik]
edition = "simulated"
[[listener]]
bind = "127.0.0.1:0"
[[recorder]]
topic = "工場/+"
path = "тест.json"
format = "json"
"""


@pytest.mark.parametrize(
    "command",
    [["--version"], ["--help"], ["check"], ["tasks"], ["tasks", "--json"],
     ["run", "--headless", "--run-for", "100ms"], ["export"],
     pytest.param(["export", "--format", "csv"], marks=pytest.mark.campaign)],
    ids=" ".join,
)  # fmt: skip
def test_a_command_s_output_can_be_redirected_in_any_code_page(
    command: list[str], tmp_path: Path
) -> None:
    """Names outside the code page end no command, and JSON stays JSON."""
    folder = tmp_path / "Jürgen-東"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG, "utf-8")
    if command[0] == "export":
        redirected(
            ["-m", "appliance", "run", "--headless", "--run-for", "100ms"], tmp_path / "run", folder
        )
    found = redirected(["-m", "appliance", *command], tmp_path / "out", folder)
    if command[-1] == "--json":
        assert json.loads(found.decode("utf-8"))
