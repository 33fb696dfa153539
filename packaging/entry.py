"""Where the frozen program begins. Not for: anything but handing over to the command line."""

from __future__ import annotations

import sys

from appliance.cli import main

if __name__ == "__main__":
    sys.exit(main())
