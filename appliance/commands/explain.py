"""``appliance explain``: what a message would start, and why, or why one of the journal did.

A running appliance is asked, by the way of ``appliance start``. Where none runs, the rules of the
configuration answer alone.

Not for: finding it out (tasks/explanation.py), or its words (ui/explanation_text.py).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from appliance.commands.output import print_json
from appliance.commands.target import config_of, target_of
from appliance.config.reading import load_tables
from appliance.engine_api import Explanation
from appliance.errors import EXIT_OK, ApplianceError, UnavailableError, UsageError
from appliance.log.sanitize import escape
from appliance.model import Message, decode_hook
from appliance.mqtt.topics import topic_problem
from appliance.remote import protocol
from appliance.remote.command_link import CommandLink
from appliance.tasks.explanation import Hearing, rules_alone
from appliance.tasks.verdicts import Triggers
from appliance.ui.explanation_text import FIELD_CELLS, conclusions, has_prospect, past, rows

_CONNECT_S = 10.0
_SIGNS = {"ok": "  ok  ", "waits": " waits", "stops": "  NO  "}
_EXPLANATION: Callable[[bytes], Explanation | list[str]] = msgspec.msgpack.Decoder(
    Explanation | list[str], dec_hook=decode_hook
).decode


def execute(options: argparse.Namespace) -> int:
    """Ask, and print the answer; returns the exit code."""
    if options.seq is None:
        if options.topic is None:
            raise UsageError("name a topic (-t), or a message of the journal (--seq)")
        if problem := topic_problem(options.topic):
            raise UsageError(f"-t {options.topic}: {problem}")
    elif options.topic is not None or options.message is not None or options.file is not None:
        raise UsageError("--seq is a message of the journal: it has its own topic and payload")
    payload = _payload(options)
    config = config_of(options)
    found, note = None, "."
    if not options.offline:
        try:
            found = _ask(options, config, payload)
        except UnavailableError as error:
            if config is None or options.seq is not None:
                raise
            note = f", because no appliance answers ({error})."
    elif config is None or options.seq is not None:
        raise UsageError("--offline needs a configuration (-c) and a topic (-t)")
    if found is None:
        assert config is not None
        found = _of_rules(options, config, payload)
        note = f"Only the rules of {config} were asked{note} Tasks and waits were not looked at."
    else:
        note = ""
    if options.json:
        texts = [text for _, text in conclusions(found, _at)]
        print_json({"conclusion": texts, "note": note, "explanation": found})
        return EXIT_OK
    for line in _lines(found):
        sys.stdout.write(f"{escape(line)}\n")
    if note:
        sys.stdout.write(f"{escape(note)}\n")
    return EXIT_OK


def _ask(options: argparse.Namespace, config: str | None, payload: bytes) -> Explanation:
    target = target_of(options, config=config, client="terminal", timeout_s=_CONNECT_S)
    link = CommandLink(target)
    operation: protocol.Explain | protocol.ExplainMessage
    if options.seq is not None:
        operation = protocol.Explain(options.seq, is_whole=True)
    else:
        operation = protocol.ExplainMessage(
            options.topic, payload, options.retain, options.client or ""
        )
    try:
        link.open()
        found = link.request(operation, _EXPLANATION)
    finally:
        with contextlib.suppress(ApplianceError):
            link.close()
    if isinstance(found, Explanation):
        return found
    # An older appliance gives the reasons alone.
    return Explanation("", seq=options.seq or 0, reasons=tuple(found), is_whole=False)


def _of_rules(options: argparse.Namespace, config: str, payload: bytes) -> Explanation:
    tables = load_tables(config, trigger=(), service=("name",))
    name = tables.service.name
    triggers = Triggers(tables.trigger, service_name=name)
    client = options.client or (f"${name}" if options.topic.startswith(f"{name}/") else "")
    message = Message(
        0, time.time_ns(), options.topic, payload, retain=options.retain, client_id=client
    )
    verdicts = triggers.verdicts(message)
    said = triggers.sentences(message, verdicts)
    return rules_alone(message, Hearing(triggers, verdicts, reasons=said))


def _lines(found: Explanation) -> Iterator[str]:
    for row in rows(found, _at):
        margin = "  " * row.indent
        match row.kind:
            case "rule":
                yield f"Trigger {row.field}: {row.text}"
            case "start":
                yield f"{margin}{row.field}"
            case "text":
                yield row.text
            case kind:
                yield f"{margin}{_SIGNS[kind]}  {row.field.ljust(FIELD_CELLS)} {row.text}"
    if found.seq:
        yield past(found)
    if has_prospect(found):
        if found.seq:
            yield "If it came again now:"
        yield from (text for _, text in conclusions(found, _at))


def _at(time_ns: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time_ns // 1_000_000_000))


def _payload(options: argparse.Namespace) -> bytes:
    if options.file is None:
        return str(options.message or "").encode("utf-8", "surrogateescape")
    if options.file == "-":
        if options.password_stdin:
            raise UsageError("--file - and --password-stdin can't both read the input; use a file")
        return sys.stdin.buffer.read()
    try:
        return Path(options.file).read_bytes()
    except OSError as error:
        raise UsageError(f"--file {options.file}: {error.strerror}") from None
