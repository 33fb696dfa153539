"""The whole file of a recorder with ``mode`` ``latest`` or ``update``, in any format.

Not for: when it is written, and how it is put in its place (state_file.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.csv import CsvFormat
from appliance.recorders.formats import is_of_parts, make_format, make_part_writer
from appliance.recorders.state_rows import flattens
from appliance.recorders.table_maker import TableMaker


class StateWriter:
    """Writes the rows of one recorder. ``memory`` and ``recall`` are as those of formats."""

    memory: str

    def recall(self, memory: str) -> None:
        raise NotImplementedError

    def write(self, file: Path, messages: Sequence[Message]) -> None:
        """Write a file with a row for each message; one of that name is replaced.

        Raises:
            OSError: it can't be written.
        """
        raise NotImplementedError


def make_state_writer(config: RecorderConfig, *, has_one_topic: bool = False) -> StateWriter:
    """The writer that a recorder's configuration asks for.

    Args:
        config: of the recorder.
        has_one_topic: whether the file can have one topic only, although the filter has wildcards.

    Raises:
        ConfigError: the package that the format needs is not installed.
    """
    config = msgspec.structs.replace(config, flatten=flattens(config))
    if is_of_parts(config.format):
        return _TableWriter(config)
    has_one_topic |= not set(config.topic_filter.split("/")) & {"+", "#"}
    return _TextWriter(config, has_one_topic=has_one_topic)


class _TextWriter(StateWriter):
    def __init__(self, config: RecorderConfig, *, has_one_topic: bool) -> None:
        self._format = make_format(config)
        has_one = has_one_topic and not config.key and not config.flatten
        self._is_single = has_one and config.format == "json"

    @property
    def memory(self) -> str:  # type: ignore[override]
        return self._format.memory

    def recall(self, memory: str) -> None:
        self._format.recall(memory)

    def write(self, file: Path, messages: Sequence[Message]) -> None:
        form = self._format
        messages = form.with_rows(messages)
        with file.open("wb") as output:
            if not messages:
                output.write(form.empty)
                return
            if self._is_single and len(messages) == 1:
                # As the element of an array it stands two blanks further in.
                output.write(form.element(messages[0]).replace(b"\n  ", b"\n"))
                return
            if isinstance(form, CsvFormat):
                output.write(form.opening_of_all(messages))
            else:
                output.write(form.opening(messages[0]))
            output.write(form.separator.join(form.elements(messages)))
            output.write(form.closing)


class _TableWriter(StateWriter):
    def __init__(self, config: RecorderConfig) -> None:
        self._maker = TableMaker(config)
        self._writer = make_part_writer(config.format, config.used_name)

    @property
    def memory(self) -> str:  # type: ignore[override]
        return self._maker.memory

    def recall(self, memory: str) -> None:
        self._maker.recall(memory)

    def write(self, file: Path, messages: Sequence[Message]) -> None:
        table = self._maker.take(messages)
        try:
            self._writer.begin(file, table.columns)
            self._writer.write(table)
            first = min(table.seqs, default=0)
            self._writer.close(first, max(table.seqs, default=0))
        except BaseException:
            self._writer.abandon()
            raise
