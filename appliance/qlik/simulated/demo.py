"""A believable site for the demo: the tasks of a factory. One of them fails, one is disabled.

Ids are fixed, so that a configuration may name them. Not for: tests of single behaviours, which
make their own tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from appliance.model import TaskKind
from appliance.qlik.simulated.site import SimulatedChain, SimulatedTask, Site, Status

_MAINTENANCE = "08b5d6c7-e19f-4f24-a3c8-6d4e7b0f1a52"
_ARCHIVE = "6d2e8f1b-c7a0-4b95-a9d3-04f5e6b7c812"


def demo_tasks() -> list[SimulatedTask]:
    """The tasks of the demo site, with the same ids each time."""
    return [
        SimulatedTask(
            "Reload line 7",
            id="5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10",
            app_id="b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733",
            app_name="Line 7 quality",
            tags=("mqtt-start", "production"),
            properties=(("factory", "line-7"),),
            duration_s=(3.0, 4.0),
        ),
        SimulatedTask(
            "Reload line 8",
            id="2c6f0a94-7be1-4d38-8e52-1f9d3b7c6a05",
            app_id="0f3b7a6d-95c4-4e21-b8f0-7d2c1e9a4b68",
            app_name="Line 8 quality",
            tags=("mqtt-start", "production"),
            properties=(("factory", "line-8"),),
            duration_s=(4.0, 6.0),
        ),
        SimulatedTask(
            "Reload sales",
            id="91d4e7b3-2f60-4a8c-b5d9-e06c8f1a3721",
            app_id="c85a1f02-6d9e-4b37-a4c1-3e7f0b2d9654",
            app_name="Sales",
            tags=("finance",),
            duration_s=(3.0, 4.0),
        ),
        SimulatedTask(
            "Reload stock levels",
            id="e3a8c5f1-4b07-4962-9d1e-58b2f7c0d94a",
            app_id="7b90d2e4-1c5f-48a3-86e7-f4d1a0c3b295",
            app_name="Stock",
            tags=("mqtt-start", "logistics"),
            duration_s=(8.0, 10.0),
            max_retries=1,
        ),
        SimulatedTask(
            "Reload maintenance",
            id=_MAINTENANCE,
            app_id="d16e4c8b-a2f7-4059-93bd-0c5a8e7f2d31",
            app_name="Maintenance",
            tags=("production",),
            duration_s=(3.0, 5.0),
            fail_every=3,
            every_s=90.0,
        ),
        SimulatedTask(
            "Reload supplier prices",
            id="b40f9e2d-58c3-4716-8a6f-92d7c1e0b3f4",
            app_id="3e7c5a19-f048-4d62-b9a1-8f0d6e2c4b75",
            app_name="Suppliers",
            tags=("finance",),
            duration_s=(1.5, 2.0),
            fail_every=1,
            error_text="Cannot open file 'lib://suppliers/prices.xlsx' "
            "(Password=Winter2026; user loader)",
        ),
        SimulatedTask(
            "Reload archive (switched off)",
            id=_ARCHIVE,
            app_id="a9c0e3f6-7d41-4258-9b6e-5f1d8c2a0e47",
            app_name="Archive",
            enabled=False,
            duration_s=5.0,
        ),
        SimulatedTask(
            "Copy files",
            id="a6d0c9b4-7e21-4f58-93bc-0e5f8a1d2c77",
            kind=TaskKind.EXTERNAL_PROGRAM,
            program="powershell.exe",
            tags=("logistics",),
            duration_s=(1.0, 2.0),
        ),
        SimulatedTask(
            "Synchronise users",
            id="f5c1a7e8-03d2-4b6f-8e94-b7d0c2f1e596",
            kind=TaskKind.USER_SYNC,
            duration_s=(2.0, 3.0),
        ),
    ]


def demo_site(clock: Callable[[], int] = time.time_ns) -> Site:
    """The demo's site.

    Args:
        clock: nanoseconds since the epoch.
    """
    site = Site(clock=clock)
    for task in demo_tasks():
        site.add_task(task)
    # The task is disabled: the chain is to be seen, and starts nothing.
    site.add_chain(SimulatedChain("After maintenance", _ARCHIVE, ((_MAINTENANCE, Status.SUCCESS),)))
    return site
