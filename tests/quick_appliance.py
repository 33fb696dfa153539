"""``python -m appliance`` with short waits: the Qlik server and the operator are answered at once.

The same waits of the task engine are for an appliance in the test's own process: ``WAITS`` and ``LIMITS``.
"""

from __future__ import annotations

import sys
from functools import partial

from appliance.bridge.backoff import Pace
from appliance.bridge.context import BridgeContext
from appliance.cli import main
from appliance.engine import service
from appliance.engine.service import Appliance
from appliance.ops import supervisor
from appliance.recorders import uploads
from appliance.tasks.engine import TaskEngine
from appliance.tasks.jobs import Limits

WAITS = {"first_poll_s": 0.02, "slowest_poll_s": 0.05, "elsewhere_s": 0.0}
LIMITS = Limits(
    look_first_s=0.02,
    look_settle_s=0.1,
    lost_after_s=0.5,
    backoff_first_s=0.05,
    backoff_most_s=0.1,
)

PACE = Pace(first_s=0.1, longest_s=1.0, patient_s=1.0, takeover_s=1.0)

if __name__ == "__main__":
    assert TaskEngine.__init__.__kwdefaults__ is not None
    TaskEngine.__init__.__kwdefaults__.update(WAITS)
    assert Appliance.__init__.__kwdefaults__ is not None
    Appliance.__init__.__kwdefaults__.update(task_limits=LIMITS)
    service.BridgeContext = partial(BridgeContext, pace=PACE)
    supervisor._TICK_S = 0.1
    uploads.FIRST_PAUSE_S, uploads.LONGEST_PAUSE_S = 0.05, 0.5
    uploads.LOOK_EVERY_S, uploads.STATE_EVERY_S = 0.1, 1.0
    sys.exit(main())
