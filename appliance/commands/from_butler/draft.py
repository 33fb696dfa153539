"""The new configuration while it is made: its tables, files of secrets, and what was found.

Not for: writing it (init.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from appliance.commands.from_butler.findings import Findings
from appliance.commands.from_butler.toml_table import TomlTable

_VARIABLE = re.compile(r"\$\{[A-Za-z_]")


class Draft:
    """What the modules of the parts add to.

    ``folder`` is where the new file will stand, ``source`` is Butler's file; both absolute.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.source = source
        self.findings = Findings()
        self.tables: list[TomlTable] = []
        self.secrets: dict[str, str] = {}
        """Names of files beside the new one, and what is written into them."""
        self.scheduled_tasks: list[str] = []
        """Ids of tasks that timers start."""
        self.service_name = "appliance"

    def add(self, table: TomlTable) -> TomlTable:
        """Add a table at the end."""
        self.tables.append(table)
        return table

    def secret_file(self, name: str, content: str) -> str:
        """Have ``content`` written into a file of its own; returns its name."""
        stem, number = name, 2
        while f"{name}.txt" in self.secrets:
            name, number = f"{stem}_{number}", number + 1
        self.secrets[f"{name}.txt"] = f"{content}\n"
        return f"{name}.txt"

    def located(self, path: str) -> Path | None:
        """A file that Butler's configuration names, if it is there.

        Butler takes a relative path from the folder that it was started in. That is usually the one
        above the folder of its file (`config/`), so it is looked for there, beside the file, and in
        the present folder.
        """
        if not path or _VARIABLE.search(path) or not path.isprintable():
            return None
        for folder in (self.source.parent.parent, self.source.parent, Path.cwd()):
            try:
                found = folder / path
                if found.is_file():
                    return Path(os.path.normpath(found))
            except (OSError, ValueError):
                continue
        return None

    def written(self, file: Path) -> str:
        """How the new configuration names a file: relative if it stands beside it or below."""
        try:
            return file.relative_to(self.folder).as_posix()
        except ValueError:
            return str(file)
