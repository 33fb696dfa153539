"""The formats by their names in the configuration.

Not for: what a format is (format.py).
"""

from __future__ import annotations

from appliance.config.tables import RecorderConfig
from appliance.recorders.csv import CsvFormat
from appliance.recorders.format import Format
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat

_FORMATS = {each.kind: each for each in (JsonFormat, JsonLinesFormat, CsvFormat)}


def make_format(config: RecorderConfig) -> Format:
    """The format that a recorder's configuration asks for."""
    return _FORMATS[config.format](metadata=config.metadata)
