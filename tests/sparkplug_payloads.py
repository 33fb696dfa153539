"""Sparkplug B payloads, put together byte by byte after ``sparkplug_b.proto`` of Eclipse Tahu."""

from __future__ import annotations

import struct


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def part(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


BIRTH = (
    whole(1, 1_764_482_400_123)
    + part(2, part(1, b"bdSeq") + whole(4, 8) + whole(11, 7))
    + part(2, part(1, b"Inputs/A") + whole(2, 1) + whole(4, 11) + whole(14, 1))
    + part(
        2, part(1, b"Temperature") + whole(2, 2) + whole(4, 9) + b"\x65" + struct.pack("<f", 21.3)
    )
    + part(
        2,
        part(1, b"Offset")
        + whole(2, 3)
        + whole(4, 3)
        + whole(10, (-5) & 0xFFFF_FFFF)
        + part(9, part(1, b"engUnit") + part(2, whole(1, 12) + part(8, "°C".encode()))),
    )
    + whole(3, 0)
)
DATA = (
    whole(1, 1_764_482_401_000)
    + part(2, whole(2, 2) + whole(4, 9) + b"\x65" + struct.pack("<f", 21.5))
    + whole(3, 1)
)
