"""What a package index shows and a stranger installs: metadata, description, wheel and sdist."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUNTIME = ROOT / "packaging" / "requirements" / "runtime.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", each)[0].lower() for each in requirements}


def built_metadata(folder: Path) -> Message:
    """The metadata of a wheel that is built from ``folder``."""
    program = "import sys; from hatchling.build import prepare_metadata_for_build_wheel as make; "
    program += "print(make(sys.argv[1]))"
    out = folder / "metadata"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, out],
        check=True, capture_output=True, text=True, timeout=60, cwd=folder,
    )  # fmt: skip
    text = (out / done.stdout.split()[-1] / "METADATA").read_text("utf-8")
    return email.message_from_string(text)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What the metadata are made of."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "packaging/metadata.py",
                 "appliance/__init__.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def targets(description: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", description)


def test_no_link_on_an_index_points_nowhere(sources: Path) -> None:
    """With a home, every link and picture of the description is an address of the release's own
    files; without one, there are none and the texts stay."""
    settings = sources / "pyproject.toml"
    home = re.search(r'^home = "(.*)"$', settings.read_text("utf-8"), re.MULTILINE)
    settings.write_text(settings.read_text("utf-8").replace(home[0], 'home = ""'), "utf-8")
    without = built_metadata(sources)
    assert without["Project-URL"] is None
    assert targets(without.get_payload()) == []
    assert "docs/installing.md" in without.get_payload()
    (sources / "metadata").rename(sources / "without")
    settings.write_text(
        settings.read_text("utf-8").replace('home = ""', 'home = "https://example.com/us/it"'),
        "utf-8",
    )
    found = built_metadata(sources)
    begin = "https://example.com/us/it"
    for url in found.get_all("Project-URL"):
        assert url.partition(", ")[2].startswith(begin)
    links = targets(found.get_payload())
    assert f"{begin}/raw/v{found['Version']}/docs/pictures/live-80x24.svg" in links
    assert len(links) == len(targets((ROOT / "README.md").read_text("utf-8")))
    for link in links:
        assert link.startswith(begin), link
        file = link.partition(f"/v{found['Version']}/")[2].partition("#")[0]
        assert (ROOT / file).exists(), link


def test_the_metadata_say_what_it_is(sources: Path) -> None:
    """Licence, versions of Python, and the extras, as the project has them."""
    found = built_metadata(sources)
    assert (found["License-Expression"], found["License-File"]) == ("MIT", "LICENSE")
    assert found["Description-Content-Type"] == "text/markdown"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(
        found.get_all("Classifier")
    )
    assert set(found.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


def test_one_table_names_the_extras() -> None:
    """docs/installing.md has each extra of pyproject.toml with its packages, and no other."""
    text = (ROOT / "docs" / "installing.md").read_text("utf-8")
    table = re.search(r"^\| Extra \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    told = {extra.strip("`"): packages for extra, _, packages in rows}
    extras = PROJECT["optional-dependencies"]
    assert set(told) == set(extras)
    for extra, requirements in extras.items():
        if extra != "dev":
            assert set(told[extra].split(", ")) == names(requirements), extra
    for page in ROOT.glob("docs/*.md"):
        for extra in re.findall(r"qlik-mqtt-appliance\[([\w,]+)\]", page.read_text("utf-8")):
            assert set(extra.split(",")) <= set(extras), page


def run(*command: object, **more: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=900,
        stdin=subprocess.DEVNULL, **more,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of pipx, twine and uv."""
    place = tmp_path_factory.mktemp("tools")
    run(sys.executable, "-m", "venv", place)
    there = place / ("Scripts" if sys.platform == "win32" else "bin")
    command = [there / "python", "-m", "pip", "install", "--quiet", "pipx", "twine", "uv"]
    if subprocess.run(command, capture_output=True, timeout=600).returncode:
        pytest.skip("pipx, twine and uv can't be installed")
    return there


def with_index_of_pip() -> dict[str, str]:
    """The environment; uv is told of the index that pip takes on this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    index = done.stdout.strip()
    return {**os.environ, **({"UV_DEFAULT_INDEX": index} if index else {})}


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_a_stranger_installs_it_and_runs_it(kind: str, dist: Path, tools: Path, tmp_path) -> None:
    """twine finds nothing; pip and pipx install it in a clean place, and it proves itself."""
    (file,) = dist.glob(f"qlik_mqtt_appliance-{kind}")
    run(tools / "twine", "check", "--strict", file)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    clean["HOME"] = str(tmp_path)
    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", place)
    run(place / "bin" / "pip", "install", "--quiet", file, env=clean, cwd=tmp_path)
    told = run(place / "bin" / "appliance", "--version", env=clean, cwd=tmp_path)
    assert re.fullmatch(r"appliance \d+\.\d+\.\d+\S*\n", told)
    assert re.search(r"^broker +messages recorded", run(
        place / "bin" / "appliance", "selftest", env=clean, cwd=tmp_path
    ), re.MULTILINE)  # fmt: skip
    clean["PIPX_HOME"] = str(tmp_path / "pipx")
    command = [tools / "pipx", "run", "--spec", file, "qlik-mqtt-appliance"]
    assert run(*command, "--version", env=clean, cwd=tmp_path) == told


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_uv_installs_what_is_pinned(dist: Path, tools: Path, tmp_path: Path) -> None:
    """``uv pip sync`` takes the file with the hashes, and the wheel needs nothing else."""
    (wheel,) = dist.glob("qlik_mqtt_appliance-*.whl")
    env = {**with_index_of_pip(), "VIRTUAL_ENV": str(tmp_path / "venv")}
    run(tools / "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "venv", env=env)
    run(tools / "uv", "pip", "sync", "--quiet", "--require-hashes", RUNTIME, env=env)
    run(tools / "uv", "pip", "install", "--quiet", "--no-deps", wheel, env=env)
    run(tools / "uv", "pip", "check", env=env)
    told = run(tmp_path / "venv" / "bin" / "appliance", "selftest", cwd=tmp_path)
    assert "NTLM" in told


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_wheel_and_sdist_hold_what_belongs_into_them(dist: Path) -> None:
    """The wheel has the program; the sdist has its tests, documents and licence too, and neither
    what the project's own machines run."""
    (wheel,) = dist.glob("qlik_mqtt_appliance-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = packed.namelist()
    tops = {name.partition("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"appliance"}
    for name in ("py.typed", "config/example.toml", "demo/demo.toml", "ui/appliance.tcss"):
        assert f"appliance/{name}" in inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)
    (sdist,) = dist.glob("qlik_mqtt_appliance-*.tar.gz")
    with tarfile.open(sdist) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    for name in ("LICENSE", "README.md", "docs/installing.md", "docs/pictures/live-80x24.svg",
                 "tests/unit/test_cli.py", "packaging/requirements/runtime.txt"):  # fmt: skip
        assert name in inside, name
    assert not {name.partition("/")[0] for name in inside} & {".git", ".venv", "dist"}
    assert not [name for name in inside if "__pycache__" in name or ".hypothesis" in name]
