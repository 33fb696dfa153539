"""``python -m appliance`` and the ``appliance`` command.

Not for: anything but handing over; cli.py has the commands.
"""

from __future__ import annotations

import sys

from appliance.cli import main

if __name__ == "__main__":
    sys.exit(main())
