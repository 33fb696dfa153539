"""``appliance replay``: sends a range of the journal again, to other topics or another broker.

Each message has a mark, a user property of MQTT 5, by which an appliance knows that it must start
nothing. So a broker that speaks MQTT 3.1.1 only gets no replay unless starts are asked for.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from appliance.commands.journal_range import JournalRange, journal_of, range_of
from appliance.commands.meter import Meter
from appliance.commands.target import target_of
from appliance.config.reading import load_tables
from appliance.errors import (
    EXIT_NO_PERMISSION,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    ApplianceError,
    UsageError,
)
from appliance.journal.search import History
from appliance.log.sanitize import escape
from appliance.model import BRIDGED_CLIENT, REPLAYED, Message, MessageProperties, is_own
from appliance.mqtt.publish_stream import PublishStream
from appliance.mqtt.topics import reserved_problem, topic_problem
from appliance.mqtt.v5_encode import encode_publish_properties
from appliance.process.interrupts import EXIT_INTERRUPTED

_LAST_S = 2.0
"""How long an interrupted replay waits for what is under way."""
_STEP_S = 0.5
_NOT_REPLAYED = frozenset({REPLAYED, "appliance-path", BRIDGED_CLIENT})
"""User properties of the way that the original took (bridge/marks.py), and of an earlier replay."""
_NO_PROPERTIES = MessageProperties()


def execute(options: argparse.Namespace) -> int:
    """Replay; returns the exit code."""
    wanted = range_of(options)
    speed = speed_of(options.speed)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: write a number above zero")
    name = load_tables(options.config, service=("name",)).service.name
    is_here = options.host is None
    if is_here and not options.prefix:
        raise UsageError(
            "the messages would come back to this appliance on their own topics; write for example "
            "--prefix replay/, or name another broker with --host"
        )
    prefix = options.prefix or ""
    if prefix:
        problem = topic_problem(prefix) or reserved_problem(prefix, name if is_here else "")
        if problem:
            raise UsageError(f"--prefix {prefix}: {problem}")
    target = target_of(
        options, config=options.config if is_here else None, client="appliance-replay"
    )
    with journal_of(options.config) as history, PublishStream(target) as stream:
        if not stream.has_properties and not options.start_tasks:
            raise UsageError(
                f"{target.shown} speaks MQTT 3.1.1 only, which has no mark that keeps a replayed "
                "message from starting tasks; if nothing there starts tasks, add --start-tasks"
            )
        return _Replay(options, wanted, history, stream, speed=speed).run()


def speed_of(text: str) -> float:
    """How many times as fast as the messages came; infinite for ``max``. Raises ``UsageError``."""
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0 or (speed == math.inf and text != "max"):
        raise UsageError(
            f'--speed {text}: write how many times as fast, for example "10" or "0.5", or "max"'
        )
    return speed


class _Replay:
    """One replay, from its first message to the line that says how it ended."""

    def __init__(
        self,
        options: argparse.Namespace,
        wanted: JournalRange,
        history: History,
        stream: PublishStream,
        *,
        speed: float,
    ) -> None:
        self._limit = options.limit
        self._keeps_retain = bool(options.retain)
        self._starts_tasks = bool(options.start_tasks)
        self._wanted = wanted
        self._history = history
        self._stream = stream
        self._prefix = options.prefix or ""
        self._speed = speed
        self._meter = Meter(sys.stderr)
        self._own = 0
        self._unsendable = 0
        self._why_unsendable = ""
        self._seen = wanted.after_seq
        """Number of the last message that was sent or left out."""

    def run(self) -> int:
        """Send everything; returns the exit code."""
        try:
            self._send_all()
            self._stream.drain()
        except KeyboardInterrupt:
            self._stream.drain(_LAST_S)
            self._end("interrupted", is_complete=False)
            return EXIT_INTERRUPTED
        except ApplianceError:
            self._end("not complete", is_complete=False)
            raise
        self._end("", is_complete=True)
        refused = self._stream.refused
        if refused.count:
            return EXIT_NO_PERMISSION if refused.is_for_want_of_a_right else EXIT_UNAVAILABLE
        return EXIT_UNAVAILABLE if self._unsendable else EXIT_OK

    def _send_all(self) -> None:
        first, last = self._history.bounds()
        first = max(first, self._wanted.after_seq + 1)
        pace = Pace(self._speed)
        for message in self._messages(last):
            while (wait_s := pace.wait_s(message.received_ns)) > 0:
                self._show(message, first, last)
                self._stream.wait(min(wait_s, _STEP_S))
            self._send(message)
            self._seen = message.seq
            if self._meter.is_due:
                self._show(message, first, last)
            if self._stream.sent == self._limit:
                return
        self._seen = max(self._seen, last)

    def _messages(self, last: int) -> Iterator[Message]:
        """The messages of the range. What comes from now on is not among them."""
        for piece in self._history.forward(self._wanted.asked, self._wanted.after_seq, last):
            for message in piece.messages:
                # Status and outcomes are told by whoever publishes them, and by nobody else.
                if is_own(message.client_id) or message.topic.startswith("$"):
                    self._own += 1
                else:
                    yield message
            if not self._stream.under_way:
                self._stream.wait(0.0)  # a broker that is gone is noticed where nothing is found

    def _send(self, message: Message) -> None:
        listed = b""
        if self._stream.has_properties:
            listed = encode_publish_properties(self._properties(message))
        try:
            self._stream.put(
                message.seq,
                self._prefix + message.topic,
                message.payload,
                listed,
                qos=message.qos,
                retain=message.retain and self._keeps_retain,
            )
        except UsageError as error:
            self._unsendable += 1
            self._why_unsendable = self._why_unsendable or f"message {message.seq}: {error}"

    def _properties(self, message: Message) -> MessageProperties:
        kept = message.properties.decoded() if message.properties is not None else _NO_PROPERTIES
        pairs = tuple(pair for pair in kept.user_properties if pair[0] not in _NOT_REPLAYED)
        if not self._starts_tasks:
            pairs += ((REPLAYED, str(message.seq)),)
        return msgspec.structs.replace(kept, user_properties=pairs)

    def _show(self, message: Message, first: int, last: int) -> None:
        share = (message.seq - first + 1) / max(1, last - first + 1)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message.received_ns / 1e9))
        self._meter.show(f"{self._stream.sent:,} sent, now at {at}", share)

    def _end(self, why: str, *, is_complete: bool) -> None:
        """Say how it ended, and how to go on."""
        self._meter.clear()
        refused, sent = self._stream.refused, self._stream.sent
        if not is_complete:
            sent -= self._stream.under_way
        lines = [f"{counted(sent - refused.count, 'message')} replayed"]
        if self._own:
            lines.append(f"{counted(self._own, 'message')} of the appliance itself left out")
        if refused.count:
            lines.append(
                f"{counted(refused.count, 'message')} refused by the broker, the first one "
                f"{refused.number} on {escape(refused.topic)}: {refused.text}"
            )
        if self._unsendable:
            text = f"{counted(self._unsendable, 'message')} could not be sent, the first one: "
            lines.append(text + escape(self._why_unsendable))
        if is_complete:
            lines.append(f"the last number is {self._seen}")
        else:
            done = max(self._stream.done, self._wanted.after_seq)
            if not self._stream.under_way:
                done = max(done, self._seen)
            lines.insert(0, why)
            lines.append(f"to go on, add: --after {done}")
        sys.stderr.write("\n".join(lines) + "\n")


class Pace:
    """When each message is due: at the distances in which they came, divided by the speed."""

    def __init__(self, speed: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._speed = speed
        self._clock = clock
        self._began: float | None = None
        self._first_ns = 0

    def wait_s(self, received_ns: int) -> float:
        """Seconds until a message that was received at this time is due; 0: now."""
        if self._speed == math.inf:
            return 0.0
        if self._began is None:
            self._began, self._first_ns = self._clock(), received_ns
        # The clock may have been set back between two messages: the later one is due at once.
        due = self._began + (received_ns - self._first_ns) / 1e9 / self._speed
        return max(0.0, due - self._clock())


def counted(count: int, what: str) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{count:,} {what}{'s' * (count != 1)}"
