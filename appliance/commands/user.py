"""``appliance user add|remove|list``: the users file of a configuration, and typed passwords.

Not for: tokens (tokens.py).
"""

from __future__ import annotations

import argparse
import getpass
import sys

from appliance.broker.users import Users, name_problem
from appliance.commands import tokens
from appliance.config.reading import load_tables
from appliance.errors import EXIT_OK, ConfigError, UsageError


def execute(options: argparse.Namespace) -> int:
    """Do one action on the users file; returns the exit code."""
    config = load_tables(options.config, access=("users_file", "anonymous"))
    path = config.access.users_file
    if path is None:
        raise ConfigError(
            f"{options.config}: [access] `users_file`: this key is missing; write for example "
            'users_file = "users.txt"'
        )
    users = Users(path)
    if options.action == "token":
        return tokens.execute(options, users)
    if options.action == "list":
        for name in users.names():
            _print(name)
        return EXIT_OK
    if options.action == "remove":
        if not users.remove(options.name):
            raise UsageError(f"{path} has no user {options.name}; see: appliance user list")
        _print(f"{options.name} is removed from {path}")
        return EXIT_OK
    problem = name_problem(options.name)
    if problem:  # before the password is typed
        raise UsageError(f"user {options.name!r}: {problem}")
    is_first = not users.names()
    is_new = users.add(options.name, read_password(options, f"Password for {options.name}: ", True))
    what = "is added to" if is_new else "has a new password in"
    _print(f"{options.name} {what} {path}")
    if is_first and config.access.anonymous is None:
        _print("From now on, no client can connect without a password.")
    return EXIT_OK


def read_password(options: argparse.Namespace, prompt: str, twice: bool) -> bytes:
    """The password from a terminal, without echo, or from the first line of the input.

    Raises ``UsageError`` when there is neither, or when the two typed ones differ.
    """
    if options.password_stdin:
        line = sys.stdin.buffer.readline(70_000)
        password = line.rstrip(b"\r\n")
    elif not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for the password; use --password-stdin")
    else:
        password = getpass.getpass(prompt).encode()
        if twice and getpass.getpass("Once more: ").encode() != password:
            raise UsageError("the two passwords differ; nothing was changed")
    if not password:
        raise UsageError("the password is empty; nothing was changed")
    return password


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
