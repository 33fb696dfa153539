"""A simulated Qlik Sense server that speaks real HTTP on loopback, for the demo and for tests.

It follows docs/qlik.md: Repository Service (QRS) under ``/qrs`` and behind virtual proxies, and
the calls of Qlik Cloud under ``/api``. Not for: measuring a real Qlik Sense server, or any address
but loopback.
"""

from appliance.qlik.simulated.demo import demo_site
from appliance.qlik.simulated.faults import Fault, FaultKind
from appliance.qlik.simulated.server import Proxy, Received, SimulatedQlik, TlsFiles
from appliance.qlik.simulated.site import ManualClock, Outcome, SimulatedTask, Site

__all__ = [
    "Fault",
    "FaultKind",
    "ManualClock",
    "Outcome",
    "Proxy",
    "Received",
    "SimulatedQlik",
    "SimulatedTask",
    "Site",
    "TlsFiles",
    "demo_site",
]
