"""``python -m appliance`` with short waits: the Qlik server and the operator are answered at once.

The same waits of the task engine are for an appliance in the test's own process: ``WAITS`` and ``LIMITS``.
"""

from __future__ import annotations

import sys

from appliance.cli import main
from appliance.ops import supervisor
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

if __name__ == "__main__":
    assert TaskEngine.__init__.__kwdefaults__ is not None
    TaskEngine.__init__.__kwdefaults__.update(WAITS, limits=LIMITS)
    supervisor._TICK_S = 0.1
    sys.exit(main())
