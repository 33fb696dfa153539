"""Where the frozen program begins. Not for: anything but handing over to the command line."""

from __future__ import annotations

from appliance.process import interrupts

interrupts.end_at_once()  # before the imports that take time

import sys  # noqa: E402  see above

from appliance.cli import main  # noqa: E402  see above

if __name__ == "__main__":
    sys.exit(main())
