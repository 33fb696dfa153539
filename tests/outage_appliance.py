"""``python -m appliance`` for which the host ``sense.test`` has a name only while a file says so.

Usage: outage_appliance.py FILE ARGUMENTS. The host is 127.0.0.1, and unknown while FILE exists.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from appliance.cli import main

HOST = "sense.test"

if __name__ == "__main__":
    unknown = Path(sys.argv.pop(1))
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        if host != HOST:
            return resolve(host, *arguments, **named)
        if unknown.exists():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", *arguments, **named)

    socket.getaddrinfo = getaddrinfo
    sys.exit(main())
