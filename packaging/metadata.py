"""Metadata that a package index shows: the description and the project's links.

hatchling calls this when it makes the wheel and the sdist (pyproject.toml,
``tool.hatch.metadata.hooks.custom``). The description is README.md. An index has none of the files
beside it, so relative links become absolute ones of the release; without a home on the web they
become plain text, and pictures are left out. Not for: the other fields, which pyproject.toml has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"\((?![a-z][a-z0-9+.-]*:|#)([^)\s]+)\)"
_PICTURE = re.compile(rf"!\[([^\]]*)\]{_RELATIVE}")
_LINK = re.compile(rf"(?<!!)\[([^\]]+)\]{_RELATIVE}")


def description(readme: str, home: str, version: str) -> str:
    """The text of README.md with no relative links; ``home`` may be empty."""
    if home:
        readme = _PICTURE.sub(rf"![\1]({home}/raw/v{version}/\2)", readme)
        return _LINK.sub(rf"[\1]({home}/blob/v{version}/\2)", readme)
    return _LINK.sub(r"\1", re.sub(rf"{_PICTURE.pattern}\n*", "", readme))


def urls(home: str, version: str) -> dict[str, str]:
    """The project's links; none without a home."""
    if not home:
        return {}
    return {
        "Homepage": home,
        "Documentation": f"{home}/tree/v{version}/docs",
        "Changelog": f"{home}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }


class Metadata(MetadataHookInterface):
    """The hook. hatchling has read the version before."""

    def update(self, metadata: dict[str, Any]) -> None:
        home, version = self.config["home"], metadata["version"]
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": description(readme, home, version),
        }
        metadata["urls"] = urls(home, version)
