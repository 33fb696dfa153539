"""The licences of everything that the single binary carries, as one text on standard output.

Usage: licences.py REQUIREMENTS. The packages are those of the file that are installed here; their
texts come from their own metadata. Not for: deciding whether a licence will do.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_RULE = "=" * 78
_TEXTS = re.compile(r"licen[cs]e|copying|notice|authors", re.IGNORECASE)


def names(requirements: str) -> list[str]:
    """The packages that a requirements file pins."""
    return sorted(set(re.findall(r"^([A-Za-z0-9][\w.-]*)==", requirements, re.MULTILINE)))


def texts(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """The licence files that a package has in its metadata."""
    for file in sorted(distribution.files or []):
        in_metadata = ".dist-info/" in file.as_posix()
        if in_metadata and _TEXTS.search(file.name) and file.suffix not in (".py", ".pyc"):
            yield Path(str(file.locate())).read_text("utf-8", "replace").strip()


def licence(distribution: importlib.metadata.Distribution) -> str:
    """The licence's name, as the package declares it."""
    metadata = distribution.metadata
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    classes = [each for each in metadata.get_all("Classifier", []) if each.startswith("License")]
    if classes:
        return ", ".join(each.rpartition(" :: ")[2] for each in classes)
    return (metadata["License"] or "not declared").strip().splitlines()[0]


def main() -> int:
    """Write the text; returns 1 if a package declares no licence at all."""
    missing = []
    # Redirected on Windows, standard output would have the system's code page, which lacks letters
    # of these texts, and its line ends: the same bytes are written everywhere.
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    write = sys.stdout.write
    write("The single binary of the appliance carries these, each under its own licence.\n")
    for name in names(Path(sys.argv[1]).read_text("utf-8")):
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        kind, bodies = licence(found), list(texts(found))
        if kind == "not declared" and not bodies:
            missing.append(name)
        write(f"\n{_RULE}\n{found.metadata['Name']} {found.version}: {kind}\n{_RULE}\n")
        write("\n\n".join(bodies) + "\n")
    write(f"\n{_RULE}\nPython {sys.version.split()[0]}: Python Software Foundation License\n")
    write("with OpenSSL (Apache License 2.0), SQLite (public domain), zlib, libffi, Expat, mpdec")
    write(f"\n{_RULE}\n")
    for folder in (Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix)):
        for name in ("LICENSE.txt", "LICENSE"):
            if (folder / name).is_file():
                write((folder / name).read_text("utf-8", "replace").strip() + "\n")
                break
    for name in missing:
        sys.stderr.write(f"{name} declares no licence; look it up before it is given away\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
