"""``appliance publish``: from options and configuration to one message sent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.commands.target import target_of
from appliance.config.reading import load_tables
from appliance.errors import EXIT_OK, UsageError
from appliance.mqtt.client import Client
from appliance.mqtt.topics import reserved_problem, topic_problem


def execute(options: argparse.Namespace) -> int:
    """Send one message; returns the exit code."""
    problem = topic_problem(options.topic) or reserved_problem(options.topic, "")
    if problem:
        raise UsageError(f"-t {options.topic}: {problem}")
    payload = _payload(options)
    config = options.config if options.host is None else None
    if config is not None:
        name = load_tables(config, service=("name",)).service.name
        if problem := reserved_problem(options.topic, name):
            raise UsageError(f"-t {options.topic}: {problem}")
    target = target_of(options, config=config, client="appliance-publish")
    with Client(target) as client:
        client.publish(options.topic, payload, qos=options.qos, retain=options.retain)
    return EXIT_OK


def _payload(options: argparse.Namespace) -> bytes:
    if options.message is not None:
        return str(options.message).encode("utf-8", "surrogateescape")
    if options.file != "-":
        try:
            return Path(options.file).read_bytes()
        except OSError as error:
            raise UsageError(f"--file {options.file}: {error.strerror}") from None
    if options.password_stdin:
        raise UsageError("--file - and --password-stdin can't both read the input; use a file")
    return sys.stdin.buffer.read()
