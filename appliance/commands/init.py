"""``appliance init``: writes the documented example and says what comes next."""

from __future__ import annotations

import argparse
import os
from importlib import resources
from pathlib import Path

from appliance.errors import EXIT_OK, NoPermissionError, UnavailableError, UsageError


def execute(options: argparse.Namespace) -> int:
    """Write the file; raises ``UsageError`` if there is one already."""
    path = Path(options.file)
    text = resources.files("appliance").joinpath("config/example.toml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Secrets are written into it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            f"{path}: this file exists and stays as it is; name another: appliance init FILE"
        ) from None
    except PermissionError:
        raise NoPermissionError(f"{path}: this user may not write there; name another") from None
    except OSError as error:
        raise UnavailableError(f"{path}: it can't be written: {error.strerror}") from None
    option = "" if options.file == "config.toml" else f" -c {options.file}"
    print(  # noqa: T201  what the command is for
        f"{path} is written. Next:\n"
        f"  appliance check{option}            see what it means\n"
        f"  appliance run{option}              run it; it starts tasks of a simulated Qlik server\n"
        f'  appliance publish{option} -t /demo/integers -m "{{}}"\n'
        f"  appliance user add NAME{option}    before other machines may connect\n"
        "Then put the address of your Qlik server into [qlik]."
    )
    return EXIT_OK
