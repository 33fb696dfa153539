"""The errors that a user may see, each with the exit code it ends the process with.

Not for: programming errors, which are left to be tracebacks. The text of an error says what
happened, where (file, key, client, task) and what to do next; the exit codes are those of BSD's
sysexits.h, so that service managers can tell "do not restart" (64, 77, 78) from "try again".
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_SOFTWARE = 70
EXIT_NO_PERMISSION = 77
EXIT_CONFIG = 78


class ApplianceError(Exception):
    """A problem that the user can fix. ``str()`` is the whole message; no traceback is shown."""

    exit_code = EXIT_SOFTWARE


class UsageError(ApplianceError):
    """The command line asks for something that can't be."""

    exit_code = EXIT_USAGE


class UnavailableError(ApplianceError):
    """A port, the data directory, a broker or another resource is in use or out of reach."""

    exit_code = EXIT_UNAVAILABLE


class NotNotedError(UnavailableError):
    """A request was taken and is not on disk: it is forgotten if the appliance ends before."""


class NoPermissionError(ApplianceError):
    """The operating system refused access to a file, folder or port."""

    exit_code = EXIT_NO_PERMISSION


class ConfigError(ApplianceError):
    """The configuration is wrong. One error may carry several problems, one a line."""

    exit_code = EXIT_CONFIG
