"""Edition ``simulated``: the simulated server within the appliance, talked to over real HTTP.

Not for: tests that need faults; they start their own ``SimulatedQlik``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from appliance.config.tables import QlikConfig
from appliance.errors import UnavailableError
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.simulated import SimulatedQlik, demo_site
from appliance.qlik.transport import Transport
from appliance.secret import Secret

_MOST_FILES_BYTES = 256 * 1024 * 1024
"""Data files stay in memory."""

_LOG = logging.getLogger(__name__)


class EmbeddedQlik(ClientManaged):
    """A client with its own server, which holds the demo site."""

    def __init__(self, timeout_s: float = 30.0, *, clock: Callable[[], int] = time.time_ns) -> None:
        """Start the server on a free loopback port.

        Args:
            timeout_s: seconds, as for any other server.
            clock: nanoseconds since the epoch, for the server and for us.

        Raises:
            UnavailableError: there is no free loopback port.
        """
        self.simulated = SimulatedQlik(site=demo_site(clock), keep_requests=200)
        self.simulated.cloud.data_files.max_all = _MOST_FILES_BYTES
        try:
            url = self.simulated.start()
        except OSError as error:
            raise UnavailableError(
                f"The simulated Qlik server can't listen on 127.0.0.1: {error.strerror}. Free a "
                "port, or configure a real server in [qlik]."
            ) from None
        _LOG.info(
            "the simulated Qlik server listens on %s/qrs; other programs may use it, with the "
            "header X-Qlik-User: UserDirectory=INTERNAL;UserId=NAME",
            url,
        )
        super().__init__(
            Transport(
                url,
                timeout_s=timeout_s,
                headers={"X-Qlik-User": "UserDirectory=INTERNAL;UserId=simulated"},
                clock=clock,
            )
        )
        self.label = "simulated"

    def as_cloud(self, config: QlikConfig) -> QlikConfig:
        """How the same server is reached as a Qlik Cloud tenant."""
        key = Secret(self.simulated.cloud.api_key)
        return msgspec.structs.replace(config, edition="cloud", url=self.simulated.url, api_key=key)

    def close(self) -> None:
        """Close connections and stop the server."""
        super().close()
        self.simulated.stop()
