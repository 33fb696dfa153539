"""The release workflow: each script line of its jobs is run here, in the way the job calls it.

What another system must run (PowerShell, package managers of other systems) is named in
``ELSEWHERE`` with the reason, and checked as far as a parser can.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from release_workflow import BUILD, FLOW, ROOT, WORKFLOW, run_step, stand_in, steps

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="bash scripts")

ELSEWHERE = {
    "dnf install -y epel-release": "a Red Hat",
    "dnf install -y git tar xz binutils dpkg gzip findutils diffutils which": "a Red Hat",
    'git config --global --add safe.directory "$PWD"': "would change this user's settings",
    "uv python install 3.13": "fetches a Python from outside",
    "command -v xz || brew install xz": "a macOS",
    "the service, installed, killed, upgraded, stopped and removed": "PowerShell",
    "what the service wrote, if it failed": "PowerShell",
}
"""Steps that nothing here runs, by their name or their one line."""

VERIFY = (
    "PYTHON=$(uv python find 3.13) packaging/verify dist/*.tar.xz dist/*.deb dist/*.rpm dist/*.whl"
)
FLOOR = "mkdir tree && tar -xf dist/appliance-*-linux-*.tar.xz -C tree\npackaging/glibc-floor tree 2.28\n"
HERE = {
    BUILD: "the fixture dist",
    FLOOR: "test_the_floor_is_asked_of_the_archive",
    VERIFY: "test_the_artefacts_prove_themselves",
    "packaging/install-check / dist/*.rpm": "test_a_package_is_installed_used_and_removed",
    "packaging/install-check / dist/*.deb": "test_a_package_is_installed_used_and_removed",
    # Windows and macOS call the same scripts; the artefacts are this system's.
    "PYTHON=python packaging/build dist": "the fixture dist",
    "packaging/verify dist/*.zip dist/*.exe": "test_the_artefacts_prove_themselves",
    "/bin/bash packaging/build dist": "the fixture dist",
    "/bin/bash packaging/verify dist/*.tar.xz": "test_the_artefacts_prove_themselves",
    "all files in one folder": "test_the_draft_has_each_file_once_with_its_sum",
    "the draft": "test_the_draft_has_each_file_once_with_its_sum",
}
"""Steps that a test runs, by their name or their lines."""


@pytest.fixture
def checkout(tmp_path: Path, dist: Path) -> Path:
    """A folder as a job has it: the project's files, and the artefacts in ``dist``; in ``bin``
    a stand-in for uv, which names this Python."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "packaging").symlink_to(ROOT / "packaging")
    shutil.copytree(dist, folder / "dist")
    stand_in(tmp_path / "bin", "uv", f"echo {sys.executable}")
    return folder


def text_of(log: Path) -> str:
    return log.read_bytes().decode("utf-8", "replace")[-3000:]


def test_each_step_is_run_here_or_named() -> None:
    """A new script line in a job needs a test that runs it, or a reason why none can."""
    found = set(steps())
    assert found == set(ELSEWHERE) | set(HERE)


@POSIX
@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_two_builds_at_once_make_the_same_bytes(two_builds: tuple[Path, Path]) -> None:
    """Neither disturbs the other, and the folder in which a build works leaves no trace."""
    first, second = two_builds
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in second.iterdir()}
    assert len(names) >= 8
    assert {"SBOM.cdx.json", "SHA256SUMS", "THIRD-PARTY-LICENSES.txt"} <= names
    differ = [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]
    assert differ == []
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=first,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    listed = {line.split("  ")[1] for line in (first / "SHA256SUMS").read_text().splitlines()}
    assert listed == names - {"SHA256SUMS"}


@POSIX
@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_artefacts_prove_themselves(tmp_path: Path, checkout: Path) -> None:
    """``packaging/verify`` with the relative paths of the job, several at once."""
    for tool in ("dpkg-deb", "rpm2archive"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there, and packaging/verify needs it")
    log = tmp_path / "log"
    code = run_step(steps()[VERIFY], checkout, log, tmp_path / "bin")
    assert code == 0, text_of(log)
    assert log.read_bytes().count(b"== verified") == 4, text_of(log)


@POSIX
@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_a_single_file_proves_itself(tmp_path: Path, checkout: Path) -> None:
    """The form that the Windows job tries too (dist/*.exe); here without its ending."""
    log = tmp_path / "log"
    code = run_step(
        "packaging/verify dist/appliance-*-x86_64 ./dist/appliance-*-x86_64", checkout, log
    )
    assert code == 0, text_of(log)
    assert log.read_bytes().count(b"== verified") == 2


@POSIX
@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_floor_is_asked_of_the_archive(tmp_path: Path, checkout: Path) -> None:
    """A program that was built on a newer system than the job's is refused with its glibc."""
    log = tmp_path / "log"
    code = run_step(steps()[FLOOR], checkout, log)
    needed = re.search(r"^glibc (2\.\d+)[\d.]* or newer is needed", text_of(log), re.MULTILINE)
    assert needed, text_of(log)
    newer = int(needed[1].partition(".")[2]) > 28
    assert code == int(newer)
    assert ("that is newer than glibc 2.28" in text_of(log)) == newer


LOOPBACK_UP = (
    "import fcntl, socket, struct; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH22x', b'lo', 1))"  # SIOCSIFFLAGS, IFF_UP
)
THROWN_AWAY = f"""
"{sys.executable}" -c "{LOOPBACK_UP}"
umask 022
mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --bind /dev "$1/root/dev"
mkdir -p "$1/root$2"
mount --bind "$2" "$1/root$2"
exec chroot "$1/root" bash -e -c "cd '$2' && $3"
"""
"""Run step $3 in folder $2 of a copy of this system that is gone afterwards; $1 is a folder for it.
It has a network of its own: the port of the first configuration may be in use here."""


@POSIX
@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_a_package_is_installed_used_and_removed(kind: str, tmp_path: Path, checkout: Path) -> None:
    """``packaging/install-check /`` as the jobs call it in their containers."""
    if os.geteuid() != 0:
        pytest.skip("installing needs root")
    if shutil.which("dpkg" if kind == "deb" else "rpm") is None:
        pytest.skip(f"nothing here installs a {kind}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    probe = ["unshare", "--mount", "--net", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && mkdir "$0/u" "$0/w" "$0/r" && '
             'mount -t overlay overlay -o "lowerdir=/,upperdir=$0/u,workdir=$0/w" "$0/r"']  # fmt: skip
    if subprocess.run([*probe, scratch], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("no throw-away copy of this system can be mounted")
    if Path("/etc/appliance").exists() or Path("/var/lib/appliance").exists():
        pytest.skip("an appliance is installed on this machine")
    step = steps()[f"packaging/install-check / dist/*.{kind}"]
    (checkout / "packaging").unlink()
    shutil.copytree(ROOT / "packaging", checkout / "packaging")
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-e", "-c", THROWN_AWAY, "-", scratch, checkout, step],
        capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "== holds" in done.stdout


@POSIX
@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not there")
def test_the_draft_has_each_file_once_with_its_sum(tmp_path: Path) -> None:
    """The files of three systems become one folder: what each has of its own under its own name,
    the wheel once, a sum for each. The draft is asked for with all of them."""
    for system in ("linux", "windows", "macos"):
        (tmp_path / system).mkdir()
        for name in ("SBOM.cdx.json", "THIRD-PARTY-LICENSES.txt", "SHA256SUMS", "a-1-any.whl"):
            (tmp_path / system / name).write_text(system)
        (tmp_path / system / f"a-1-{system}.zip").write_text(system)
    # coreutils 9.2 to 9.4, as Ubuntu 24.04 has them: "mv -n" onto a file that is there fails.
    mv = shutil.which("mv")
    stand_in(tmp_path / "bin", "mv", f'case $1 in -n) exit 1 ;; esac\nexec {mv} "$@"')
    stand_in(tmp_path / "bin", "gh", f'printf "%s\\n" "$@" >> {tmp_path}/gh-calls')
    log = tmp_path / "log"
    settings = "export GITHUB_REF_NAME=v1 GITHUB_REPOSITORY=some/where\n"
    for name in ("all files in one folder", "the draft"):
        code = run_step(settings + steps()[name], tmp_path, log, tmp_path / "bin")
        assert code == 0, text_of(log)
    names = {path.name for path in (tmp_path / "all").iterdir()}
    assert names == {
        "a-1-any.whl", "a-1-linux.zip", "a-1-macos.zip", "a-1-windows.zip", "SHA256SUMS",
        *(f"SBOM-{system}.cdx.json" for system in ("linux", "windows", "macos")),
        *(f"THIRD-PARTY-LICENSES-{system}.txt" for system in ("linux", "windows", "macos")),
    }  # fmt: skip
    assert (tmp_path / "all" / "a-1-any.whl").read_text() == "linux"
    sums = (tmp_path / "all" / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in sums} == names - {"SHA256SUMS"}
    calls = (tmp_path / "gh-calls").read_text().splitlines()
    assert calls[:7] == [
        "release",
        "create",
        "v1",
        "--draft",
        "--verify-tag",
        "--repo",
        "some/where",
    ]
    assert set(calls[8:]) == names


@POSIX
def test_verify_says_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    """Without a file, or with one that is not there, it ends before it tries any."""
    for arguments, code in ([], 64), (["README.md", "nowhere/a.tar.xz"], 66):
        done = subprocess.run(
            [ROOT / "packaging" / "verify", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code
        assert "Usage" in done.stderr or "there is no artefact nowhere/a.tar.xz" in done.stderr
        assert "==" not in done.stdout


def test_each_job_may_do_only_what_it_needs() -> None:
    """Actions are pinned by commit; nothing may write except the job that attests and the one that
    makes the draft; no step keeps the token; each job ends by itself."""
    assert FLOW["permissions"] == {}
    for name, job in FLOW["jobs"].items():
        wanted = {
            "attest": {"id-token": "write", "attestations": "write"},
            "draft": {"contents": "write"},
        }
        assert job["permissions"] == wanted.get(name, {"contents": "read"}), name
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    assert FLOW["concurrency"]["cancel-in-progress"] is False
    versions = re.findall(
        r"uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", WORKFLOW.read_text(), re.MULTILINE
    )
    assert len(versions) == WORKFLOW.read_text().count("uses: ")


@pytest.mark.parametrize(
    "command", [["zizmor", "--offline"], ["actionlint"]], ids=lambda each: each[0]
)
def test_the_linters_find_nothing_in_the_workflow(command: list[str]) -> None:
    """zizmor (security), and actionlint where it is installed."""
    folder = Path(sys.executable).parent
    tool = shutil.which(command[0], path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip(f"{command[0]} is not there")
    done = subprocess.run(
        [tool, *command[1:], WORKFLOW], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
