"""What the connections of one HTTP port share.

Not for: accepting them, their times (port.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from appliance.http_api.admission import Admission
from appliance.http_api.bounds import Bounds, Kind
from appliance.http_api.connections import Connections
from appliance.http_api.context import Context


class Shared:
    """For the loop that it is made on; ``app``: what answers, for ASGI."""

    def __init__(self, context: Context, kind: Kind, app: Any, *, is_tls: bool) -> None:
        self._context = context
        self._kind = kind
        self._seen: object = None
        self._bounds: Bounds
        self.is_tls = is_tls
        self.loop = asyncio.get_running_loop()
        self.count = context.count
        self.connections = Connections(self.bounds, kind.ended, self.count)
        self.admission = Admission(kind, self.bounds, self.count, self.loop.time)
        self.state = ServerState()
        self.uvicorn = uvicorn.Config(
            app,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # an address that a client claims is not believed
            server_header=False,
        )
        self.uvicorn.load()

    def bounds(self) -> Bounds:
        """What counts now; a reload of the configuration changes it."""
        config = self._context.config
        if config is not self._seen:
            self._seen, self._bounds = config, self._kind.bounds_of(config)
        return self._bounds
