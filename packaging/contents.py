"""What a frozen program is made of: each file and module in its folder, and the part it belongs to.

A part is a Python distribution, the appliance itself, Python, a library of the system, or
PyInstaller's bootloader. What belongs to none is an error, and so is a part without a licence text:
the list of parts can't differ from what is given away. Runs in the environment that froze the
program. Not for: writing the lists (licences.py, sbom.py).
"""

from __future__ import annotations

import decimal
import importlib.metadata
import platform
import re
import sqlite3
import ssl
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from xml.parsers import expat

_HERE = Path(__file__).parent
_TEXTS = re.compile(r"licen[cs]e|copying|notice|authors", re.IGNORECASE)
_APPLIANCE = "qlik-mqtt-appliance"
_BOOTLOADER = "pyinstaller"
# Their metadata name the licence of the tools. What they put into a program is given away under
# these terms: the bootloader's exception, and that of the hooks that run in the program.
_IN_A_PROGRAM = {
    _BOOTLOADER: "GPL-2.0-or-later WITH Bootloader-exception",
    "pyinstaller-hooks-contrib": "Apache-2.0",
}


@dataclass
class Part:
    """One entry of the lists."""

    name: str
    version: str | None
    licence: str
    """As it is declared; an SPDX expression if ``is_spdx``."""
    is_spdx: bool
    texts: list[str]
    is_distribution: bool = True
    places: set[str] = field(default_factory=set)
    """Paths in the folder; ``program#name`` is a top-level module in the program's own archive."""


@dataclass(frozen=True)
class _Library:
    """A part that no package manager of Python knows."""

    name: str
    licence: str
    text: str
    """A file in packaging/licences."""
    files: tuple[str, ...] = ()
    module: str = ""
    """Python's module that holds the library where it is no file of its own."""
    version: Callable[[], str] | None = None


# Licences: each project's own page. The texts: Debian's packages and Python's sources.
_LIBRARIES = (
    _Library(
        "OpenSSL",
        "Apache-2.0",
        "openssl.txt",
        ("libssl*", "libcrypto*"),
        "_ssl",
        lambda: ssl.OPENSSL_VERSION.split()[1],
    ),
    _Library(
        "SQLite",
        "blessing",
        "sqlite.txt",
        ("libsqlite3*", "sqlite3.dll"),
        "_sqlite3",
        lambda: sqlite3.sqlite_version,
    ),
    _Library(
        "zlib",
        "Zlib",
        "zlib.txt",
        ("libz.*", "zlib*.dll"),
        "zlib",
        lambda: zlib.ZLIB_RUNTIME_VERSION,
    ),
    _Library("libffi", "MIT", "libffi.txt", ("libffi*",), "_ctypes"),
    # Linked into google-re2's module. The text is that of the licence alone.
    _Library("Abseil", "Apache-2.0", "openssl.txt", (), "_re2"),
    _Library(
        "Expat",
        "MIT",
        "expat.txt",
        ("libexpat*",),
        "pyexpat",
        lambda: expat.EXPAT_VERSION.removeprefix("expat_"),
    ),
    _Library(
        "libmpdec",
        "BSD-2-Clause",
        "libmpdec.txt",
        ("libmpdec*",),
        "_decimal",
        lambda: str(getattr(decimal, "__libmpdec_version__", "")),
    ),
    _Library(
        "GCC runtime libraries",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "gcc-runtime.txt",
        ("libgcc_s*", "libstdc++*"),
    ),
)
# Microsoft's run-time library comes with Python for Windows, under the conditions of its licence.
_PYTHON = ("libpython*", "python3*.dll", "Python", "base_library.zip", "vcruntime*", "msvcp*",
           "ucrtbase.dll", "api-ms-win-*.dll")  # fmt: skip


def parts(tree: Path) -> list[Part]:
    """All parts of the program in ``tree``, sorted by name. Raises ``SystemExit``, see above."""
    program = next(each for each in (tree / "appliance", tree / "appliance.exe") if each.is_file())
    files = sorted(
        path.relative_to(tree).as_posix() for path in (tree / "lib").rglob("*") if path.is_file()
    )
    found = _Found()
    for file in files:
        found.add_file(file)
    for module in _modules(program):
        found.add_module(module, f"{program.name}#{module.partition('.')[0]}")
    found.add(_BOOTLOADER, program.name)
    found.add(_APPLIANCE, program.name)
    return found.finished(files)


def _modules(program: Path) -> Iterator[str]:
    """The modules in the archive within the program, and the scripts that run before it."""
    from PyInstaller.archive.readers import CArchiveReader  # noqa: PLC0415  where it is frozen only

    outer = CArchiveReader(str(program))
    for name, (*_, kind) in outer.toc.items():
        if kind == "z":
            yield from outer.open_embedded_archive(name).toc
        elif kind in ("m", "s", "M"):
            yield name


class _Found:
    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._owners: dict[str, str] = {}
        self._tops: dict[str, set[str]] = {}
        self._unknown: list[str] = []
        self._distributions: dict[str, Distribution] = {}
        for each in importlib.metadata.distributions():
            name = re.sub("[-_.]+", "-", each.name).lower()
            self._distributions[name] = each
            for path in each.files or ():
                if ".." not in path.parts:
                    self._owners[path.as_posix()] = name
                    self._tops.setdefault(path.parts[0], set()).add(name)

    def add(self, name: str, place: str) -> None:
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = _distribution_part(self._distributions[name])
        part.places.add(place)

    def add_file(self, file: str) -> None:
        path = PurePosixPath(file).relative_to("lib")
        owner = self._owners.get(path.as_posix()) or self._only_owner(path.parts[0])
        if owner is not None:
            self.add(owner, file)
        elif library := _library(path.name):
            self._library(library).places.add(file)
        elif _is_python(path):
            self._python().places.add(file)
        else:
            self._unknown.append(file)

    def _only_owner(self, top: str) -> str | None:
        """The one package that has this folder; it may hold files that the build has made."""
        owners = self._tops.get(top, set())
        return next(iter(owners)) if len(owners) == 1 else None

    def add_module(self, module: str, place: str) -> None:
        base = module.replace(".", "/")
        sources = (f"{base}.py", f"{base}/__init__.py", f"PyInstaller/hooks/rthooks/{base}.py",
                   f"_pyinstaller_hooks_contrib/rthooks/{base}.py")  # fmt: skip
        owner = next((self._owners[each] for each in sources if each in self._owners), None)
        top = module.partition(".")[0]
        if owner is not None:
            self.add(owner, place)
        elif top in sys.stdlib_module_names or top.startswith("_sysconfigdata"):
            self._python().places.add(place)
        elif module == "entry":
            self.add(_APPLIANCE, place)
        elif top.startswith(("pyimod", "pyiboot", "_pyi")):
            self.add(_BOOTLOADER, place)
        elif (only := self._only_owner(top)) is not None:
            self.add(only, place)
        else:
            self._unknown.append(place)

    def _python(self) -> Part:
        return self._parts.setdefault(
            "Python",
            Part(
                "Python", platform.python_version(), "PSF-2.0", True, [_text("python.txt")], False
            ),
        )

    def _library(self, library: _Library) -> Part:
        version = library.version() if library.version is not None else ""
        return self._parts.setdefault(
            library.name,
            Part(
                library.name, version or None, library.licence, True, [_text(library.text)], False
            ),
        )

    def finished(self, files: Iterable[str]) -> list[Part]:
        for library in _LIBRARIES:
            if library.module and library.name not in self._parts:
                self._library(library).places.add(_holder(library.module, files))
        result = sorted(self._parts.values(), key=lambda each: each.name.lower())
        problems = [f"{each} belongs to no package that is known" for each in self._unknown]
        problems += [f"{each.name} has no licence text" for each in result if not any(each.texts)]
        problems += [f"{each.name} declares no licence" for each in result if not each.licence]
        if problems:
            raise SystemExit("\n".join(problems))
        return result


def _library(file: str) -> _Library | None:
    for library in _LIBRARIES:
        if any(fnmatch(file, pattern) for pattern in library.files):
            return library
    return None


def _holder(module: str, files: Iterable[str]) -> str:
    """The file that has this module of Python's: its own, or Python's library."""
    for file in files:
        if PurePosixPath(file).name.partition(".")[0] == module:
            return file
    libraries = ("libpython*", "python3*.dll", "Python")
    return next(
        file
        for file in files
        if any(fnmatch(PurePosixPath(file).name, pattern) for pattern in libraries)
    )


def _is_python(path: PurePosixPath) -> bool:
    return (
        re.match(r"python3\.\d+$", path.parts[0]) is not None
        or path.parts[0] == "Python.framework"
        or path.name.partition(".")[0] in sys.stdlib_module_names
        or any(fnmatch(path.name.lower(), pattern.lower()) for pattern in _PYTHON)
    )


def _distribution_part(distribution: Distribution) -> Part:
    metadata = distribution.metadata
    expression = _IN_A_PROGRAM.get(metadata["Name"]) or metadata["License-Expression"]
    return Part(
        metadata["Name"],
        distribution.version,
        expression or _declared(distribution),
        bool(expression),
        list(_licence_texts(distribution)),
    )


def _declared(distribution: Distribution) -> str:
    """The licence's name in metadata that are older than ``License-Expression``."""
    metadata = distribution.metadata
    classes = [each for each in metadata.get_all("Classifier", []) if each.startswith("License")]
    named = [each.rpartition(" :: ")[2] for each in classes if each.count(" :: ") > 1]
    if named:
        return ", ".join(named)
    return str(metadata["License"] or "").strip().partition("\n")[0]


def _licence_texts(distribution: Distribution) -> Iterator[str]:
    """The licence files in a package's metadata (PEP 639 has a folder for them)."""
    for file in sorted(distribution.files or []):
        path = file.as_posix()
        if ".dist-info/" not in path or file.suffix in (".py", ".pyc"):
            continue
        if ".dist-info/licenses/" in path or _TEXTS.search(file.name):
            yield Path(str(file.locate())).read_text("utf-8", "replace").strip()


def _text(name: str) -> str:
    return (_HERE / "licences" / name).read_text("utf-8").strip()
