"""The pages that archive and packages carry, with links that work there.

Usage: documents.py FOLDER. README.md and its companions come into the folder and ``docs`` beside
them, so their links to each other stay; a link to a file of the sources that is not carried becomes
its text. Not for: the description on a package index (metadata.py).
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z][a-z0-9+.-]*:|#)([^)\s#]+)(#[^)\s]*)?\)")


def write(folder: Path) -> None:
    """Copy the pages."""
    for name in _PAGES:
        shutil.copyfile(_ROOT / name, folder / name)
    shutil.copytree(_ROOT / "docs", folder / "docs")
    for page in (*folder.glob("*.md"), *folder.glob("docs/*.md")):
        page.write_text(_unlinked(page), "utf-8", newline="\n")


def _unlinked(page: Path) -> str:
    """The text, without links to what is not there."""
    return _LINK.sub(
        lambda link: link[0] if (page.parent / link[2]).exists() else link[1],
        page.read_text("utf-8"),
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
