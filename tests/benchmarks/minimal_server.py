"""The least that a server in one Python process does for a PUBLISH: it reads, forces a few bytes to
the disk in place, and acknowledges. No session, no check, no database: it can't be faster.

Usage: python tests/benchmarks/minimal_server.py inline|thread|none PORT FILE
``inline`` waits for the disk on the loop, ``thread`` in a thread as a server with other clients has
to, ``none`` forces nothing.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from pathlib import Path

import uvloop

from appliance.storage import files

SIZE = 2**22
RECORD = b"x" * 150
CONNECT, PUBLISH_QOS_1 = 0x10, 0x32


class Disk:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(self._file, b"x" * SIZE)
        os.fsync(self._file)
        self._at = 0

    def force(self) -> None:
        os.pwrite(self._file, RECORD, self._at % SIZE)
        self._at += len(RECORD)
        files.sync_file(self._file)


class Client(asyncio.Protocol):
    def __init__(self, way: str, disk: Disk, waiting: queue.SimpleQueue[tuple]) -> None:
        self._way = way
        self._disk = disk
        self._waiting = waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data[0] == CONNECT:
            self._transport.write(b"\x20\x02\0\0")
            return
        assert data[0] == PUBLISH_QOS_1
        after_topic = 4 + data[3]
        ack = b"\x40\x02" + data[after_topic : after_topic + 2]
        if self._way == "thread":
            self._waiting.put((self._transport, ack))
            return
        if self._way == "inline":
            self._disk.force()
        self._transport.write(ack)


async def main() -> None:
    way, port, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    loop = asyncio.get_running_loop()
    disk = Disk(path)
    waiting: queue.SimpleQueue[tuple] = queue.SimpleQueue()

    def write() -> None:
        while True:
            transport, ack = waiting.get()
            disk.force()
            loop.call_soon_threadsafe(transport.write, ack)

    threading.Thread(target=write, daemon=True).start()
    server = await loop.create_server(lambda: Client(way, disk, waiting), "127.0.0.1", port)
    print("listening on", port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
