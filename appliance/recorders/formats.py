"""The formats by their names in the configuration.

Not for: what a format is (format.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError
from appliance.recorders.csv import CsvFormat
from appliance.recorders.format import Format
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.recorders.parquet import ParquetWriter
from appliance.recorders.part_writer import PartWriter
from appliance.recorders.qvd import QvdWriter
from appliance.recorders.row_shape import make_shape

_FORMATS = {each.kind: each for each in (JsonFormat, JsonLinesFormat, CsvFormat)}
_PART_FORMATS: dict[str, Callable[[str], PartWriter]] = {
    each.kind: each for each in (ParquetWriter, QvdWriter)
}


def format_names() -> tuple[str, ...]:
    """All formats, as in ``[[recorder]] format``."""
    return (*_FORMATS, *_PART_FORMATS)


def is_of_parts(kind: str) -> bool:
    """Whether files of a format can't be appended to, so that a recorder makes a series of them."""
    return kind in _PART_FORMATS


def make_format(config: RecorderConfig) -> Format:
    """The format that a recorder's configuration asks for."""
    return _FORMATS[config.format](metadata=config.metadata, shape=make_shape(config))


def make_part_writer(kind: str, table_name: str) -> PartWriter:
    """What writes the parts of a recorder.

    Args:
        kind: the format, one that ``is_of_parts``.
        table_name: the table's name, for formats that have one in the file.

    Raises:
        ConfigError: the package that the format needs is not installed.
    """
    missing = missing_package(kind)
    if missing:
        raise ConfigError(missing)
    return _PART_FORMATS[kind](table_name)


def missing_package(kind: str) -> str:
    """What to install for a format, for people; an empty text if nothing."""
    if kind == ParquetWriter.kind and importlib.util.find_spec("pyarrow") is None:
        return (
            '`format = "parquet"` needs pyarrow, which is not installed:'
            " pip install 'qlik-mqtt-appliance[parquet]'"
        )
    return ""
