"""The name of a file in Qlik Cloud.

Not for: names of files here (paths.py), what the tenant takes (qlik/data_files.py).
"""

from __future__ import annotations

from pathlib import Path

from appliance.config.path_placeholders import has_placeholders
from appliance.config.tables import RecorderConfig

_COMPRESSED = frozenset({".gz", ".zst"})


def remote_name(config: RecorderConfig, path: Path, series: Path, data_dir: Path) -> str:
    """The name of a file in the tenant, with its folder and ``/`` in between.

    Folders that placeholders of the recorder's path make are folders there, too.

    Args:
        config: of the recorder, with ``upload``.
        path: of the file.
        series: the path that it has without the numbers of messages in its name.
        data_dir: the data directory.
    """
    assert config.upload is not None
    used = series if config.upload.replace else path
    if config.upload.replace and path.suffix in _COMPRESSED:
        used = series.with_name(series.name + path.suffix)
    parts = [part for part in config.upload.folder.split("/") if part]
    top = _fixed_folder(Path(config.path), data_dir)
    below = used.relative_to(top).parts if used.is_relative_to(top) else (used.name,)
    return "/".join((*parts, *below))


def _fixed_folder(path: Path, data_dir: Path) -> Path:
    """The folder of a recorder's path up to the first placeholder."""
    folder = path.parent
    while has_placeholders(str(folder), str(data_dir)):
        folder = folder.parent
    return folder
