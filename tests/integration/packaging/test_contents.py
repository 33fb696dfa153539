"""What is given away is what the lists say: parts, licences and links of archive and packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import marshal
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging"
MEGABYTE = 1_000_000


def program(name: str) -> ModuleType:
    """A module of packaging/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, PACKAGING / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def contents():
    yield program("contents")
    sys.modules.pop("contents")


@pytest.fixture(scope="session")
def tree(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked."""
    folder = tmp_path_factory.mktemp("archive")
    (archive,) = dist.glob("appliance-*-linux-*.tar.xz")
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True, timeout=120)
    (found,) = folder.iterdir()
    return found


def files(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


def modules(path: Path) -> set[str]:
    """The top-level modules in the archive of a program that PyInstaller made."""
    data = path.read_bytes()
    begin = data.rindex(b"PYZ\0" + importlib.util.MAGIC_NUMBER)
    (at,) = struct.unpack_from("!i", data, begin + 8)
    return {name.partition(".")[0] for name, _ in marshal.loads(data[begin + at :])}


def test_a_file_of_no_known_part_fails_the_build(contents) -> None:
    """Files and modules belong to the package that installed them, to Python or to a known library;
    what belongs to none is named."""
    found = contents._Found()
    msgspec = next(each for each in importlib.metadata.files("msgspec") if each.suffix == ".so")
    names = [f"lib/{msgspec.as_posix()}", "lib/libssl.so.3", "lib/libpython3.11.so.1.0"]
    for name in names:
        found.add_file(name)
    found.add_module("textual.app", "appliance#textual")
    found.add_module("asyncio.events", "appliance#asyncio")
    parts = {part.name: part for part in found.finished(names)}
    assert parts["msgspec"].places == {names[0]}
    assert parts["msgspec"].version == importlib.metadata.version("msgspec")
    assert parts["OpenSSL"].places == {names[1]}
    assert parts["Python"].places == {names[2], "appliance#asyncio"}
    assert parts["textual"].places == {"appliance#textual"}
    # Libraries that are no file of their own are in Python's.
    assert parts["Expat"].places == {names[2]}
    assert all(any(part.texts) for part in parts.values())
    found.add_file("lib/libunheard.so.1")
    found.add_module("unheard", "appliance#unheard")
    with pytest.raises(SystemExit, match=r"lib/libunheard\.so\.1 belongs to no package") as caught:
        found.finished(names)
    assert "appliance#unheard belongs to no package" in str(caught.value)


def test_each_pinned_package_has_a_licence_and_its_text(contents) -> None:
    """Also those whose licence files have names of their own, as paho-mqtt's."""
    pinned = re.findall(
        r"^([\w.-]+)==", (PACKAGING / "requirements" / "runtime.txt").read_text(), re.MULTILINE
    )
    missing = []
    for name in pinned:
        try:
            part = contents._distribution_part(importlib.metadata.distribution(name))
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        if not part.licence or not any(part.texts):
            missing.append(name)
        if name == "paho-mqtt":
            assert "Eclipse Public License" in "".join(part.texts)
    assert not missing


def test_the_pages_that_are_carried_have_links_that_work(tmp_path: Path) -> None:
    """Each link and picture of README.md and docs leads to a file that is carried beside it."""
    subprocess.run([sys.executable, PACKAGING / "documents.py", tmp_path], check=True, timeout=60)
    links_lead_somewhere(tmp_path)
    assert "](../packaging" not in (tmp_path / "docs" / "installing.md").read_text("utf-8")


def links_lead_somewhere(folder: Path) -> None:
    pages = [*folder.glob("*.md"), *folder.glob("docs/*.md")]
    assert {page.name for page in pages} >= {"README.md", "CHANGELOG.md", "installing.md"}
    for page in pages:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), (page, link)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_sbom_says_what_is_in_the_archive(dist: Path, tree: Path) -> None:
    """Each file and module of the program belongs to an entry, each entry is there, has a licence
    and a text, and each Python package of them is pinned."""
    bom = json.loads((dist / "SBOM.cdx.json").read_text("utf-8"))
    texts = (dist / "THIRD-PARTY-LICENSES.txt").read_text("utf-8")
    components = [bom["metadata"]["component"], *bom["components"]]
    places = {
        component["name"]: {each["location"] for each in component["evidence"]["occurrences"]}
        for component in components
    }
    named = set().union(*places.values())
    there = {name for name in files(tree) if name.startswith("lib/") or name == "appliance"}
    there |= {f"appliance#{name}" for name in modules(tree / "appliance")}
    assert not there - named
    scripts = {
        name for name in named - there if re.match(r"appliance#(_?pyi|struct$|entry$)", name)
    }
    assert named - there == scripts  # what runs before the modules
    pinned = set(
        re.findall(
            r"^([\w.-]+)==", (PACKAGING / "requirements" / "runtime.txt").read_text(), re.MULTILINE
        )
    )
    for component in components:
        name, version = component["name"], component.get("version", "")
        assert places[name], name
        assert component["licenses"], name
        title = f"{name} {version}".strip()
        text = re.search(rf"^=+\n{re.escape(title)}: .+\n=+\n\S", texts, re.MULTILINE)
        assert text, title
        if "purl" in component and not name.startswith(("pyinstaller", "qlik-mqtt-appliance")):
            assert re.sub("[-_.]+", "-", name).lower() in pinned, name
    for name in ("paho-mqtt", "pyinstaller", "GCC runtime libraries", "OpenSSL", "Python"):
        assert name in places
    for name in ("SBOM.cdx.json", "THIRD-PARTY-LICENSES.txt"):
        assert (tree / name).read_bytes() == (dist / name).read_bytes()


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_archive_is_small_and_its_pages_have_links_that_work(dist: Path, tree: Path) -> None:
    """18 MB at most, 1.2 of them for regular expressions in linear time (re2 and its C++ runtime), 1.3
    for databases and zstd; the README in the archive and the one in the deb lead to their pages."""
    (archive,) = dist.glob("appliance-*-linux-*.tar.xz")
    assert archive.stat().st_size <= 19 * MEGABYTE
    links_lead_somewhere(tree)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_deb_is_small_and_its_pages_have_links_that_work(dist: Path, tmp_path: Path) -> None:
    """The compression of the packages is as good as the archive's."""
    (deb,) = dist.glob("appliance_*.deb")
    assert deb.stat().st_size <= 19 * MEGABYTE
    subprocess.run(["dpkg-deb", "-x", deb, tmp_path], check=True, timeout=120)
    links_lead_somewhere(tmp_path / "usr" / "share" / "doc" / "appliance")
