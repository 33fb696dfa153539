"""``python -m appliance`` and the ``appliance`` command.

Not for: anything but handing over; cli.py has the commands.
"""

from __future__ import annotations

from appliance.process import interrupts

interrupts.end_at_once()  # before the imports that take time

import sys  # noqa: E402  see above

from appliance.cli import main  # noqa: E402  see above
from appliance.storage import rights  # noqa: E402

rights.begin()

if __name__ == "__main__":
    sys.exit(main())
