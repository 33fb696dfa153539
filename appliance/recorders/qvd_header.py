"""The beginning of a QVD file: an XML text that says what fields the bytes behind it are of.

Elements and their order are those of files that Qlik writes. Readers refuse a file in which some of
them are missing, even if they are empty. Not for: the bytes (qvd.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

_BUILD = 50668
"""The number of a Qlik version that writes such files; readers want one."""

TIME_FORMAT = "YYYY-MM-DD hh:mm:ss[.fff]"
"""How Qlik shows a time that has no text of its own."""

# Not allowed in XML 1.0 at all, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# As they are, a reader of XML would make blanks or nothing of them.
_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)


class Field(msgspec.Struct, frozen=True):
    """A field and where its bytes and bits are."""

    name: str
    is_time: bool
    tags: tuple[str, ...]
    has_nulls: bool
    symbols: int
    offset: int
    """Of its symbols, in bytes behind the header."""
    length: int
    bit_offset: int
    bit_width: int


def header(
    table: str,
    fields: Sequence[Field],
    *,
    rows: int,
    record_bytes: int,
    symbol_bytes: int,
    comment: str,
    created: datetime | None = None,
) -> bytes:
    """The header with its end, a NUL.

    Args:
        table: the table's name.
        fields: in the order of the columns.
        rows: how many.
        record_bytes: length of a row's symbol numbers.
        symbol_bytes: length of all symbols; behind them are the rows.
        comment: a text that Qlik keeps with the table.
        created: by default now.
    """
    import uuid  # noqa: PLC0415  # only where a file is written

    time = (created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S")
    text = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<QvdTableHeader>
  <QvBuildNo>{_BUILD}</QvBuildNo>
  <CreatorDoc>{uuid.uuid4()}</CreatorDoc>
  <CreateUtcTime>{time}</CreateUtcTime>
  <SourceCreateUtcTime></SourceCreateUtcTime>
  <SourceFileUtcTime></SourceFileUtcTime>
  <SourceFileSize>-1</SourceFileSize>
  <StaleUtcTime></StaleUtcTime>
  <TableName>{xml_text(table)}</TableName>
  <Fields>
{"".join(map(_field, fields))}  </Fields>
  <Compression></Compression>
  <RecordByteSize>{record_bytes}</RecordByteSize>
  <NoOfRecords>{rows}</NoOfRecords>
  <Offset>{symbol_bytes}</Offset>
  <Length>{rows * record_bytes}</Length>
  <Lineage></Lineage>
  <Comment>{xml_text(comment)}</Comment>
</QvdTableHeader>
"""
    return text.replace("\n", "\r\n").encode() + b"\0"


def _field(field: Field) -> str:
    return f"""    <QvdFieldHeader>
      <FieldName>{xml_text(field.name)}</FieldName>
      <BitOffset>{field.bit_offset}</BitOffset>
      <BitWidth>{field.bit_width}</BitWidth>
      <Bias>{-2 if field.has_nulls else 0}</Bias>
      <NumberFormat>
        <Type>{"TIMESTAMP" if field.is_time else "UNKNOWN"}</Type>
        <nDec>0</nDec>
        <UseThou>0</UseThou>
        <Fmt>{TIME_FORMAT if field.is_time else ""}</Fmt>
        <Dec></Dec>
        <Thou></Thou>
      </NumberFormat>
      <NoOfSymbols>{field.symbols}</NoOfSymbols>
      <Offset>{field.offset}</Offset>
      <Length>{field.length}</Length>
      <Comment></Comment>
      <Tags>{"".join(f"<String>{tag}</String>" for tag in field.tags)}</Tags>
    </QvdFieldHeader>
"""


def xml_text(text: str) -> str:
    """A text as the content of an element; what XML can't hold becomes U+FFFD."""
    return _NOT_XML.sub("\ufffd", text).translate(_ESCAPED)
