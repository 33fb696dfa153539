"""``appliance user token add|remove|list``: tokens of users, for HTTP.

Not for: the file of tokens (broker/tokens.py).
"""

from __future__ import annotations

import argparse
import math
import sys
import time

from appliance.broker.tokens import Token
from appliance.broker.users import Users
from appliance.config.values import parse_duration
from appliance.errors import EXIT_OK, UsageError

_DAY_S = 86400.0


def execute(options: argparse.Namespace, users: Users) -> int:
    """Do one action on the tokens; returns the exit code."""
    action = options.action_of_tokens
    if action == "list":
        for line in _listed(users, options.name):
            _print(line)
        return EXIT_OK
    if action == "remove":
        if not users.tokens.remove(options.name, options.label):
            raise UsageError(
                f"{options.name} has no token {options.label!r}; see: appliance user token list"
            )
        _print(f"The token {options.label} of {options.name} does not count any more.")
        return EXIT_OK
    if options.name not in users.names():
        raise UsageError(f"{users.path} has no user {options.name}; see: appliance user list")
    days = None if options.expires is None else _days(options.expires)
    token = users.tokens.add(options.name, options.label, time.time(), days)
    # The token alone goes to the output, so that a script can take it from there.
    sys.stderr.write(
        "The token is shown this once; only its hash is kept. It is sent as: Authorization: Bearer"
        " TOKEN\n"
    )
    _print(token)
    return EXIT_OK


def _days(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--expires {text}: {error}") from None
    if not 1 <= seconds / _DAY_S <= 36500:
        raise UsageError(f"--expires {text}: write a number of days from 1d to 36500d")
    return math.ceil(seconds / _DAY_S)


def _listed(users: Users, name: str | None) -> list[str]:
    """A table: whose token, its label, its last characters, until when it counts."""
    found = sorted(users.tokens.of(name), key=lambda token: (token.user, token.label))
    if not found:
        return []
    rows = [("USER", "LABEL", "ENDS WITH", "MADE", "COUNTS UNTIL")]
    rows += [
        (
            token.user,
            token.label,
            f"...{token.end}",
            token.created.isoformat(),
            _until(token, users),
        )
        for token in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _until(token: Token, users: Users) -> str:
    if token.user not in users.names():
        return "its user is gone"
    until = "it is removed" if token.expires is None else token.expires.isoformat()
    return until if token.counts(time.time()) else f"{until}, expired"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
