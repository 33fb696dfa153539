"""What packages promise, as far as that can be tried without building and installing them.

``packaging/verify`` tries the artefacts themselves.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
import yaml

from appliance import errors
from appliance.cli import command_parser
from appliance.commands import selftest
from appliance.config.reading import loads

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "linux" / "appliance.service"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a script for Linux")


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_s_exposure_is_small() -> None:
    """systemd's own tool gives the unit 1.5 or less."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not there")
    done = subprocess.run(
        [tool, "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_unit_starts_what_there_is_and_does_not_loop() -> None:
    """Its command line is one that the appliance has; what a restart can't fix is not restarted;
    it waits for READY and watches."""
    lines = unit()
    program, *arguments = shlex.split(lines["ExecStart"][0])
    assert program == "/usr/bin/appliance"
    options = command_parser().parse_args(arguments)
    assert (options.module, options.headless) == ("run", True)
    assert lines["ConditionPathExists"] == [options.config]
    prevented = set(map(int, lines["RestartPreventExitStatus"][0].split()))
    assert {errors.EXIT_USAGE, errors.EXIT_NO_PERMISSION, errors.EXIT_CONFIG} <= prevented
    assert lines["Type"] == ["notify"]
    assert int(lines["WatchdogSec"][0]) >= 10


def test_a_reload_of_the_unit_asks_and_the_folder_of_credentials_may_be_missing() -> None:
    """`systemctl reload` ends with the answer of the service, not with the success of a signal; the
    folder that LoadCredential reads has a default for when it is missing."""
    lines = unit()
    program, *arguments = shlex.split(lines["ExecReload"][0])
    assert program == "/usr/bin/appliance"
    options = command_parser().parse_args(arguments)
    assert (options.module, options.config) == ("reload", lines["ConditionPathExists"][0])
    name = lines["LoadCredential"][0].partition(":")[0]
    assert lines["SetCredential"][0].startswith(f"{name}:"), (
        "an empty one is refused by systemd 252"
    )


def test_the_packaged_configuration_is_valid_and_writes_where_a_service_may(tmp_path) -> None:
    """What the deb and rpm offer to copy is valid and puts all data into the service's folder."""
    script = (PACKAGING / "linux" / "packages").read_text()
    text = (ROOT / "appliance" / "config" / "example.toml").read_text()
    edits = re.findall(r"s\|\^(.*?)\|(.*?)\|'", script)
    assert len(edits) == 2
    for old, new in edits:
        assert text.count(f"\n{old}") == 1, old
        text = text.replace(f"\n{old}", f"\n{new}")
    config = loads(text, file="/etc/appliance/config.toml")
    if sys.platform != "win32":
        assert config.service.data_dir == "/var/lib/appliance"
        assert config.access.users_file == "/var/lib/appliance/users.txt"


def run_script(
    name: str,
    argument: str,
    tmp_path: Path,
    *,
    booted: bool,
    active: bool = False,
    systemd: str = "252 (252.39-1)",
) -> tuple[list[str], str]:
    """Run a package's script with stubs for what changes the system. Returns the calls of the
    stubs and what the script printed. Paths below ``/etc``, ``/var`` and ``/run`` are in
    ``tmp_path``."""
    calls = tmp_path / "calls"
    calls.write_text("")
    stubs = tmp_path / "stubs"
    stubs.mkdir(exist_ok=True)
    codes = {"getent": 1, "systemctl": 0, "groupadd": 0, "useradd": 0, "install": 0}
    for stub, code in codes.items():
        path = stubs / stub
        asked = f'[ "$2" != is-active ] || exit {0 if active else 3}\n'
        version = f'[ "$1" != --version ] || {{ echo "systemd {systemd}"; exit 0; }}\n'
        path.write_text(f'#!/bin/sh\n{version}echo {stub} "$@" >> {calls}\n{asked}exit {code}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    text = (PACKAGING / "linux" / name).read_text()
    text = re.sub(r"(?<![\w./])/(etc|var|run)/", rf"{tmp_path}/\1/", text)
    (tmp_path / "run" / "systemd").mkdir(parents=True, exist_ok=True)
    system = tmp_path / "run" / "systemd" / "system"
    system.mkdir(exist_ok=True) if booted else shutil.rmtree(system, ignore_errors=True)
    done = subprocess.run(
        ["/bin/sh", "-c", text, name, argument], env={"PATH": f"{stubs}:/bin:/usr/bin"},
        check=True, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return calls.read_text().splitlines(), done.stdout


@POSIX
def test_installing_makes_the_user_and_starts_nothing(tmp_path) -> None:
    """The script that deb and rpm run makes user and folders and says what comes next; nothing is
    enabled or started. A folder that exists keeps its owner and its mode."""
    calls, said = run_script("postinst", "configure", tmp_path, booted=True)
    assert any(call.startswith("useradd --system --gid appliance") for call in calls)
    credentials = f"{tmp_path}/etc/appliance/credentials"
    assert f"install -d -o root -g root -m 0700 {credentials}" in calls
    assert [call for call in calls if call.startswith("systemctl")] == ["systemctl daemon-reload"]
    assert "systemctl enable --now appliance" in said
    for folder in (credentials, f"{tmp_path}/var/lib/appliance"):
        Path(folder).mkdir(parents=True)
    calls, _ = run_script("postinst", "configure", tmp_path, booted=False)
    assert not [call for call in calls if call.startswith(("install", "systemctl"))]


@POSIX
@pytest.mark.parametrize(
    "systemd", ["247 (247.3-7+deb11u8)", "249 (249.11-0ubuntu3)", "250", "257.9", ""]
)
def test_old_systemd_gets_no_folder_that_it_refuses(tmp_path, systemd: str) -> None:
    """systemd 247 (tried) to 249 end with 243 at a folder of credentials. Without one the unit starts
    with its default; an empty folder of an earlier installation goes, one in use stays."""
    credentials = tmp_path / "etc" / "appliance" / "credentials"
    takes_folders = not systemd.startswith("24")
    calls, _ = run_script("postinst", "configure", tmp_path, booted=False, systemd=systemd)
    assert any(str(credentials) in call for call in calls) == takes_folders
    credentials.mkdir(parents=True)
    run_script("postinst", "configure", tmp_path, booted=False, systemd=systemd)
    assert credentials.exists() == takes_folders
    credentials.mkdir(exist_ok=True)
    (credentials / "key.pem").write_text("")
    run_script("postinst", "configure", tmp_path, booted=False, systemd=systemd)
    assert credentials.exists()


@POSIX
@pytest.mark.parametrize("phase", ["upgrade", "2"])
def test_an_upgrade_stops_what_runs_before_it_replaces_the_program(tmp_path, phase: str) -> None:
    """For deb ("upgrade") and rpm (2): a service that runs is stopped before the new files come and
    started again after that; one that does not run is left alone."""
    calls, _ = run_script("preinst", phase, tmp_path, booted=True, active=True)
    assert calls[-1] == "systemctl stop appliance.service"
    calls, _ = run_script("postinst", "configure", tmp_path, booted=True)
    assert calls[-2:] == ["systemctl daemon-reload", "systemctl start appliance.service"]
    calls, _ = run_script("postinst", "configure", tmp_path, booted=True)
    assert calls[-1] == "systemctl daemon-reload"
    calls, _ = run_script("preinst", phase, tmp_path, booted=True, active=False)
    assert not [call for call in calls if " stop " in call]
    calls, _ = run_script("preinst", "install", tmp_path, booted=True, active=True)
    assert calls == []


@POSIX
def test_removing_stops_and_disables_and_an_upgrade_does_not(tmp_path) -> None:
    for phase, stops in (("upgrade", False), ("1", False), ("remove", True), ("0", True)):
        calls, _ = run_script("prerm", phase, tmp_path, booted=True)
        assert (calls == ["systemctl disable --now appliance.service"]) == stops, phase
    data = tmp_path / "var" / "lib" / "appliance"
    configuration = tmp_path / "etc" / "appliance"
    for folder in (data, configuration):
        folder.mkdir(parents=True, exist_ok=True)
    for phase, is_kept in (("remove", True), ("upgrade", True), ("1", True), ("purge", False)):
        run_script("postrm", phase, tmp_path, booted=True)
        assert configuration.exists() == is_kept, phase
        assert data.exists()


def test_deb_and_rpm_carry_what_a_service_needs_and_no_configuration() -> None:
    """nfpm's file names scripts and sources that there are; program, unit, completion and manual
    page have their places; nothing is put into /etc or /var, so no upgrade can change what is
    there."""
    packed = yaml.safe_load((PACKAGING / "linux" / "nfpm.yaml").read_text())
    for script in packed["scripts"].values():
        assert (PACKAGING / "linux" / script).is_file(), script
    places = [each["dst"] for each in packed["contents"]]
    assert all(place.startswith("/usr/") for place in places)
    for place in (
        unit()["ExecStart"][0].split()[0],
        "/usr/lib/systemd/system/appliance.service",
        "/usr/share/bash-completion/completions/appliance",
        "/usr/share/zsh/site-functions/_appliance",
        "/usr/share/fish/vendor_completions.d/appliance.fish",
        "/usr/share/man/man1/appliance.1.gz",
    ):
        assert place in places
    assert "@" not in packed["maintainer"]  # no person and no host is made up


def test_every_package_is_pinned_with_its_hashes() -> None:
    """The lock has every dependency of pyproject.toml, hashes for all of them, and no address."""
    text = (PACKAGING / "requirements" / "runtime.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["ntlm"]]
    names = {re.match(r"[\w.-]+", each)[0].lower() for each in wanted}
    assert names <= pinned, names - pinned
    for kind in ("runtime", "build"):
        text = (PACKAGING / "requirements" / f"{kind}.txt").read_text()
        assert "://" not in text
        entries = re.split(r"\n(?=\S)", text.strip())
        assert all("--hash=sha256:" in each for each in entries)


def python(*arguments: object, **more: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], check=True, capture_output=True, text=True,
        timeout=60, encoding="utf-8", cwd=ROOT, **more,
    )  # fmt: skip
    return done.stdout


def test_an_archive_is_the_same_each_time(tmp_path) -> None:
    """Packed twice, with other times on the files, the zip file has the same bytes."""
    folder = tmp_path / "appliance"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "b").write_text("b")
    (folder / "a").write_text("a")
    (folder / "a").chmod(0o755)
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    for number in (1, 2):
        python(PACKAGING / "archive.py", folder, tmp_path / f"{number}.zip", env=env)
        os.utime(folder / "a", (1, 1))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.namelist() == ["appliance/a", "appliance/lib/b"]


@POSIX
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not there")
def test_the_floor_of_glibc_is_checked(tmp_path) -> None:
    """A program that wants a newer glibc than is allowed is refused by name."""
    shutil.copy("/bin/sh", tmp_path / "program")
    floor = [PACKAGING / "glibc-floor", tmp_path]
    done = subprocess.run([*floor, "2.99"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert re.match(r"glibc 2\.\d+ or newer is needed \(because of program\)", done.stdout)
    done = subprocess.run([*floor, "2.1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1


def test_the_self_test_notices_what_is_missing(capsys, monkeypatch) -> None:
    """A broken part is named, the others are still tried, and the exit code is not 0."""

    def broken() -> str:
        raise ModuleNotFoundError("No module named 'x__mypyc'")

    monkeypatch.setattr(selftest, "_modules", broken)
    monkeypatch.setattr(selftest, "_broker", lambda: "left out")
    assert selftest.execute(None) == errors.EXIT_SOFTWARE
    out = capsys.readouterr().out
    assert "modules    FAILED: ModuleNotFoundError: No module named 'x__mypyc'" in out
    assert re.search(r"^passwords +argon2id$", out, re.MULTILINE)


def pages() -> list[Path]:
    return [
        ROOT / "docs" / f"{name}.md"
        for name in ("installing", "windows", "publishers", "troubleshooting")
    ]


@cache
def help_of(command: str) -> str:
    """What a command says of its options; pages name the same ones many times."""
    asked = [sys.executable, "-m", "appliance", command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_what_the_pages_tell_to_type_exists(page: Path) -> None:
    """Each `appliance ...` in them is a command with options that there are; each link leads to a
    file."""
    text = page.read_text("utf-8")
    parser = command_parser()
    commands = parser.format_help()
    for line in re.findall(r"\bappliance(?:\.exe)? ((?:[a-z-]+)(?: --?[a-z][\w-]*)?)", text):
        command, _, option = line.partition(" ")
        if not re.search(rf"^    {command}\b", commands, re.MULTILINE):
            continue  # a sentence about the appliance
        if option and command != "user":
            assert option in help_of(command), line
    for command in re.findall(r"`(?:sudo -u appliance )?appliance ([a-z-]+)", text):
        assert re.search(rf"^    {command}\b", commands, re.MULTILINE), command
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def test_the_examples_of_publishers_are_valid(tmp_path) -> None:
    """The Python example compiles; TOML examples in the pages are configurations."""
    text = (ROOT / "docs" / "publishers.md").read_text("utf-8")
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(example, "publishers.md", "exec")
    text = (ROOT / "docs" / "installing.md").read_text("utf-8")
    assert "[metrics]" in text
    for example in re.findall(r"```toml\n(\[.*?)```", text, re.DOTALL):
        loads(example)
