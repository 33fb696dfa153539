"""An appliance with an HTTP port whose simulated Qlik server speaks HTTPS, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import certificates
import pytest
import requests
from http_site import HttpSite
from quick_appliance import WAITS

from appliance.qlik.simulated import SimulatedQlik, Site, TlsFiles
from appliance.tasks.engine import TaskEngine


class QlikHttpSite(HttpSite):
    """For ``with``. The task engine waits as briefly as in ``quick_appliance``."""

    def __init__(self, site: Site, folder: Path, more: str = "", **parts: Any) -> None:
        files = certificates.make(folder / "certificates")
        tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
        self.qlik = SimulatedQlik(site=site, tls=tls)
        self.qlik.start()
        self._waits = pytest.MonkeyPatch()
        config = certificates.QLIK_CONFIG.format(url=self.qlik.url)
        super().__init__(folder, config + more, **parts)

    def __enter__(self) -> Self:
        for name, value in WAITS.items():
            self._waits.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._waits.undo()
            self.qlik.stop()

    def start(
        self, task: str, user: str | None = None, wait: str = "", **more: Any
    ) -> requests.Response:
        """``POST /tasks/{task}/start``."""
        query = f"?wait={wait}" if wait else ""
        return self.ask("POST", f"/tasks/{quote(task, safe='')}/start{query}", user, **more)
