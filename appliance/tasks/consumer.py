"""From the journal to requests: read, ask the rules, note what came of each message.

A message that can't be dealt with by a mistake of ours is tried twice, then set aside as rejected:
it must neither end the starts of all others nor get lost unseen.

Not for: what a rule means (triggers.py) or when a request is carried out (planner.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from appliance.clock import Clock
from appliance.counters import Counter
from appliance.engine_api import RuleState
from appliance.errors import UnavailableError, UsageError
from appliance.journal.follower import Follower
from appliance.model import (
    Cause,
    ExecutionState,
    Message,
    bridge_of,
    is_own,
    is_replayed,
    outcome_of,
    sender,
    seq_of,
)
from appliance.tasks.dedup import WINDOW_S, Redeliveries
from appliance.tasks.explanation import Hearing
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.payloads import Rejection, WantedStart
from appliance.tasks.planner import Planner
from appliance.tasks.records import Reply
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.start_keys import KEPT_S
from appliance.tasks.state_store import ClosedError, StateStore
from appliance.tasks.triggers import INTERNAL_ERROR, Trigger
from appliance.tasks.verdicts import Check, Triggers, Verdict

_log = logging.getLogger(__name__)
BATCH = 500
WAIT_S = 1.0
SAVE_POSITION_EVERY_S = 5.0
"""How often the position is saved while no message concerns any rule."""
MAX_LINES_A_SECOND = 20
"""Log lines about rejected messages; more in the same second are only counted."""

SEEN_WITHIN_NS = 120 * SECOND_NS
"""So long after its end the end of a run is seen at the latest, while the appliance runs."""

MAX_TRIES = 2
"""How often a message is tried that the appliance itself can't deal with."""

NO_SERVER = Rejection("no Qlik", "No Qlik server is configured: add a [qlik] table.")
REDELIVERY = Rejection(
    "redelivery", "The same message again, from a client that got no answer.", harmless=True
)


REPLAY = Rejection(
    "replay",
    'It was sent by "appliance replay" without --start-tasks, so it starts nothing.',
    harmless=True,
)


_BEFORE_RULES = {one.label: one.reason for one in (NO_SERVER, REDELIVERY, REPLAY, INTERNAL_ERROR)}
"""Reasons that hold before any rule has a say, by the labels of their answers."""


class _Effects:
    """What a message led to so far: a second try does not do it again."""

    __slots__ = ("asked", "is_answered")

    def __init__(self) -> None:
        self.asked: set[tuple[Trigger, int]] = set()
        """The rule and the number of each start that was asked for."""
        self.is_answered = False
        """Whether its sender was told of a rejection."""


class _Tally:
    __slots__ = ("last_ns", "matched", "rejected")

    def __init__(self) -> None:
        self.matched = 0
        self.rejected = 0
        self.last_ns: int | None = None


class JournalConsumer:
    """Takes messages in. ``read`` is for one thread, the rest for any."""

    def __init__(
        self,
        state: StateStore,
        triggers: Triggers,
        outcomes: Outcomes,
        hear: Callable[[Sequence[Message]], None],
        *,
        own_time_ns: Callable[[int], int] | None,
    ) -> None:
        """Nothing is read yet.

        ``own_time_ns`` makes our time of one of the Qlik server, ``None`` if there is no server.
        ``hear`` gets the last message of each topic, for the watches of silence.
        """
        self._hear = hear
        self._state = state
        self._triggers = triggers
        self._outcomes = outcomes
        self._own_time_ns = own_time_ns
        self._cursors = state.cursors
        self._untaken: Sequence[Message] = ()
        self._unmet: list[int] = []
        """Messages of this batch that rules listen for, and whose conditions do not hold."""
        self._rules_ns = 0
        """When the present rules began to count, if that was after the start."""
        self._saved_at = 0.0
        self._tallies = {rule: _Tally() for rule in triggers.rules}
        self._line_second = 0
        self._lines = 0
        self.redeliveries = Redeliveries()
        self._steps: deque[tuple[int, int]] = deque(maxlen=100)
        """Steps forward of the clock: the newest message then, and how far it was set."""

    def take_rules(self, triggers: Triggers) -> None:
        """Let other rules count for the messages that are read from now on.

        What was asked for goes on as it was asked for; a rule that stays keeps its numbers.
        """
        with self._state.lock:
            before = {rule.identity: tally for rule, tally in self._tallies.items()}
            self._tallies = {rule: before.pop(rule.identity, _Tally()) for rule in triggers.rules}
            self._triggers = triggers
            self._rules_ns = self._state.clock_ns()
            self._state.planner.book.freshness.take_limits(triggers.fresh_within(), self._rules_ns)

    def longest_expiry_s(self) -> float:
        """How long any rule wants what it asks for, in seconds."""
        return max((rule.options.expire_s for rule in self._triggers.rules), default=0.0)

    def concern(self, topic: str) -> bool:
        """Whether any rule listens on a topic."""
        return self._triggers.concern(topic)

    def follow_step(self, step_ns: int, last_seq: int) -> None:
        """The clock was set by this when ``last_seq`` was the newest message. Within a change."""
        self.redeliveries.shift(step_ns)
        self._state.planner.book.changes.sightings_shift_ns += step_ns
        if step_ns > 0:
            self._steps.append((last_seq, step_ns))

    def _received_ns(self, message: Message, now: int) -> int:
        """When a message came, by the clock as it is set now."""
        moved = sum(step for last_seq, step in self._steps if message.seq <= last_seq)
        return min(now, message.received_ns + moved)

    def read(self, source: Follower, stopped: threading.Event) -> None:
        """Read the journal until the stop, and then what is left in it.

        So the next start finds noted what was asked for, and need not look at the server for it.
        """
        while True:
            is_last = stopped.is_set()
            if self._state.trouble:
                # What can't be written is not read: the journal keeps it for us.
                if stopped.wait(WAIT_S):
                    return
                continue
            if not self._untaken and source.position >= self._state.planner.dispatcher.earlier_seq:
                self._state.has_read_earlier = True
            if not self._untaken and source.wait(0.0 if is_last else WAIT_S):
                self._untaken = source.next(BATCH)
            if self._untaken:
                # Kept until they are dealt with: if this thread fails, its next run goes on with
                # those that it had not taken.
                self._untaken = [one for one in self._untaken if one.seq > self._cursors.taken]
                self.take(self._untaken)
                self._untaken = ()
            elif is_last:
                return
            source.advance(self._cursors.durable)
            assert self._cursors.are_in_order(), self._cursors

    def take(self, messages: Sequence[Message]) -> None:
        """Deal with messages: their requests and the position in the journal, in one change."""
        if not messages:
            return
        # Asked for each topic, not for each message: most batches concern no rule.
        latest = {one.topic: one for one in messages}
        self._let_hear(list(latest.values()))
        topics = {topic for topic in latest if self._triggers.concern(topic)}
        concerned = [one for one in messages if one.topic in topics] if topics else []
        if not concerned:
            self._cursors.taken = messages[-1].seq
            if time.monotonic() - self._saved_at > SAVE_POSITION_EVERY_S:
                self.save_position()
            return
        self._state.follow_clock()
        with self._state.change() as planner:
            for message in concerned:
                self._take_or_set_aside(planner, message)
            self._cursors.taken = messages[-1].seq
            self._note_position()
        if self._unmet:
            self._state.views.note_unmet(self._unmet)
            self._unmet = []

    def _let_hear(self, messages: Sequence[Message]) -> None:
        try:
            self._hear(messages)
        except ClosedError:
            raise
        except Exception:  # noqa: BLE001 - the silence watches' defect is not the triggers'
            _log.exception("An error in the appliance, please report it: silence watches are deaf")
            self._state.planner.count(Counter.INTERNAL_ERRORS)
            self._state.internal_errors.set_aside("a silence watch")

    def _take_or_set_aside(self, planner: Planner, message: Message) -> None:
        effects = _Effects()
        for attempt in range(1, MAX_TRIES + 1):
            try:
                self._take_one(planner, message, effects)
            except Exception as error:  # noqa: BLE001 - a defect; see the top of the module
                if attempt < MAX_TRIES:
                    continue
                _log.exception(
                    "Message %d on %s is set aside: an error in the appliance (%s), please report "
                    "it. Once that is fixed, the message can be repeated from the terminal",
                    message.seq,
                    message.topic,
                    type(error).__name__,
                )
                self._set_aside(planner, message)
            else:
                return

    def _set_aside(self, planner: Planner, message: Message) -> None:
        cause = Cause("message", message.seq, message.topic, message.client_id)
        planner.reject(cause, INTERNAL_ERROR, self._now())
        planner.count(Counter.INTERNAL_ERRORS)
        planner.count(Counter.MESSAGES_REJECTED)
        self._state.internal_errors.set_aside(f"message {message.seq}")
        # Either of these may be the very thing that fails.
        with contextlib.suppress(Exception):
            self._note_sighting(planner, message)
        with contextlib.suppress(Exception):
            if (reply := self._outcomes.reply_to(message)) is not None:
                self._state.publish_once(self._outcomes.of_rejection(reply, cause, INTERNAL_ERROR))

    def save_position(self) -> None:
        """Write how far the journal was read."""
        if self._cursors.taken > self._cursors.durable:
            with self._state.change():
                self._note_position()

    def _note_position(self) -> None:
        self._saved_at = time.monotonic()
        self._state.note_taken()

    def _take_one(self, planner: Planner, message: Message, effects: _Effects) -> None:
        decisions = self._triggers.decide(message)
        if not decisions:
            if not is_own(message.client_id):
                self._unmet.append(message.seq)
            return
        if self.redeliveries.is_redelivery(message):
            planner.count(Counter.REDELIVERIES)
            planner.reject(self._cause(message, decisions[0].trigger), REDELIVERY, self._now())
            return
        if is_replayed(message):
            planner.count(Counter.REPLAYED_MESSAGES)
            planner.reject(self._cause(message, decisions[0].trigger), REPLAY, self._now())
            return
        # Rules that start something first: their outcomes are the sender's answer.
        for decision in sorted(decisions, key=lambda one: one.rejection is not None):
            self._act(planner, message, decision, effects)
        self._note_sighting(planner, message)

    def _note_sighting(self, planner: Planner, message: Message) -> None:
        if sighting := self.redeliveries.note(message):
            planner.book.changes.sightings.append(sighting)

    def _act(
        self,
        planner: Planner,
        message: Message,
        decision: Verdict,
        effects: _Effects,
    ) -> None:
        now = self._now()
        tally = self._tallies[decision.trigger]
        tally.matched += 1
        tally.last_ns = message.received_ns
        cause = self._cause(message, decision.trigger)
        reply = self._outcomes.reply_to(message)
        rejection = decision.rejection
        if rejection is None and self._own_time_ns is None:
            rejection = NO_SERVER
        received = self._received_ns(message, now)
        happened = self._happened_ns(message, received)
        if rejection is None:
            for number, start in enumerate(decision.starts):
                if (decision.trigger, number) in effects.asked:
                    continue
                if known := self._answer_of_before(planner, message, decision.trigger, start):
                    planner.answer(message.seq, known, now)
                    before = self._state.views.execution(known)
                    if before is None or before.state is not ExecutionState.SUCCEEDED:
                        options = decision.trigger.options_of(start)
                        planner.dispatcher.note_asked(start.selector, options, cause, happened, now)
                    effects.asked.add((decision.trigger, number))
                    continue
                answer = planner.ask(
                    start.selector,
                    decision.trigger.options_of(start),
                    cause,
                    now,
                    reply=reply,
                    asked_ns=received,
                    happened_ns=happened,
                )
                if isinstance(answer, Rejection):
                    rejection = answer
                    break
                effects.asked.add((decision.trigger, number))
        if rejection is None:
            return
        planner.reject(cause, rejection, now)
        if rejection.harmless:
            if rejection.is_answered:
                self._tell_sender(cause, reply, rejection, effects)
            return
        tally.rejected += 1
        planner.count(Counter.MESSAGES_REJECTED)
        if rejection is INTERNAL_ERROR:
            planner.count(Counter.INTERNAL_ERRORS)
            self._state.internal_errors.set_aside(f"message {message.seq}")
        # Beside a start, a rule that understood nothing is no news for the sender; a start that
        # was wished for and not taken is.
        is_news = not effects.asked or decision.rejection is None
        if is_news:
            self._tell_sender(cause, reply, rejection, effects)
        self._log_rejection(message, decision.trigger, rejection)

    def _tell_sender(
        self,
        cause: Cause,
        reply: Reply | None,
        rejection: Rejection,
        effects: _Effects,
    ) -> None:
        """Answer a message that started nothing, once, if its sender wants an answer."""
        if reply is not None and not effects.is_answered:
            effects.is_answered = True
            self._state.publish_once(self._outcomes.of_rejection(reply, cause, rejection))

    def _happened_ns(self, message: Message, received: int) -> int:
        """When what a message tells of happened, as far as it says so.

        Several appliances see the end of a run at different times, and each of them continues a
        chain: what the first one starts answers the others.
        """
        ended = self._outcomes.ended_ns(message)
        if ended is None or self._own_time_ns is None:
            return received
        happened = self._own_time_ns(ended)
        # One that is further away is no time of the server, or is seen after a stop.
        return happened if 0 <= received - happened < SEEN_WITHIN_NS else received

    def _answer_of_before(
        self, planner: Planner, message: Message, trigger: Trigger, start: WantedStart
    ) -> int:
        """The execution that answered this request before the present process, 0 if none did."""
        told = self._state.told
        if told is None:
            return 0
        if message.seq > planner.dispatcher.earlier_seq:
            told.forget()
            self._state.told = None
            return 0
        return told.answer_to(message, start.selector, trigger.options_of(start), trigger.name)

    def _log_rejection(self, message: Message, trigger: Trigger, rejection: Rejection) -> None:
        second = int(time.monotonic())
        if second != self._line_second:
            self._line_second, self._lines = second, 0
        self._lines += 1
        if self._lines > MAX_LINES_A_SECOND:
            self._state.planner.count(Counter.LOG_LINES_LEFT_OUT)
            return
        _log.warning(
            "Message %d on %s from %s started nothing (trigger %s): %s",
            message.seq,
            message.topic,
            sender(message.client_id) or "an unknown client",
            trigger.name,
            rejection.reason,
        )

    def hearing(self, message: Message) -> Hearing:
        """What is known of a message before the rules have a say, for an explanation.

        A message without a number is one that might come.
        """
        triggers = self._triggers
        verdicts = triggers.verdicts(message)
        said = triggers.sentences(message, verdicts)
        with self._state.lock:
            if message.seq:
                checks, reasons = self._heard_of_past(message, said)
            else:
                checks, reasons = self._checks(message, ""), said
                holds = self._state.planner.dispatcher.holds
                if (hold := holds.of_client(message.client_id, self._now())) is not None:
                    reason = f"Client {message.client_id} can't connect. {hold.sentence}"
                    checks.append(Check("client", False, "", "held", reason))
                stops = next((one.reason for one in checks if not one.ok), "")
                if stops and any(one.is_concerned for one in verdicts):
                    reasons = [stops]
            return Hearing(triggers, verdicts, checks, reasons)

    def _heard_of_past(
        self, message: Message, said: Sequence[str]
    ) -> tuple[list[Check], list[str]]:
        """What was looked at before the rules, and why it started something or nothing in short."""
        if message.seq > self._cursors.taken and self._triggers.concern(message.topic):
            waits = (
                self._state.trouble
                and f": the task database can't be written ({self._state.trouble})"
            )
            reason = f"The triggers have not looked at it yet{waits}."
            return [Check("read", False, "", "not yet", reason)], [reason]
        found = list(said)
        mark = self._state.views.marks([message.seq]).get(message.seq)
        label = mark.label if mark is not None and not mark.execution else ""
        checks = self._checks(message, label)
        if label in _BEFORE_RULES:
            found = [_BEFORE_RULES[label]]
            if label == REDELIVERY.label and (bridge := bridge_of(message.client_id)):
                number = seq_of(message.packet_id)
                original = f" as message {number}" if number else ""
                found = [f"It came before{original}: the broker of bridge {bridge} sent it again."]
        if message.received_ns < self._rules_ns:
            found.append("The rules were changed since it came: this is what they say now.")
        return checks, found

    def _checks(self, message: Message, label: str) -> list[Check]:
        """What is looked at before the rules; ``label`` is the mark of a message that came."""
        checks = []
        if label == INTERNAL_ERROR.label:
            reason = INTERNAL_ERROR.reason
            checks.append(Check("internal error", False, "", "one", reason))
        if self._state.trouble:
            reason = f"The task database can't be written ({self._state.trouble})."
            checks.append(Check("task database", False, "", "not written", reason))
        again = REDELIVERY.reason if label == REDELIVERY.label else ""
        checks.append(
            Check("redelivery", not again, "", "it came before" if again else "new", again)
        )
        replay = REPLAY.reason if label == REPLAY.label or is_replayed(message) else ""
        checks.append(Check("replay", not replay, "", "replayed" if replay else "none", replay))
        lacks = NO_SERVER.reason if self._own_time_ns is None else ""
        checks.append(Check("Qlik server", not lacks, "", "none" if lacks else "configured", lacks))
        return checks

    def repeat(self, message: Message, by: str) -> int:
        """Ask again for what a message asked for, whether or not it was a redelivery."""
        asked = 0
        triggers = self._triggers
        problem = " ".join(triggers.sentences(message, triggers.verdicts(message)))
        with self._state.noted("The repetition") as planner:
            for decision in self._triggers.decide(message):
                if decision.rejection is not None:
                    problem = decision.rejection.reason
                cause = Cause("operator", message.seq, message.topic, message.client_id, rule=by)
                for start in decision.starts:
                    options = decision.trigger.options_of(start)
                    answer = planner.ask(start.selector, options, cause, self._now())
                    if isinstance(answer, Rejection):
                        raise UnavailableError(answer.reason)
                    asked += 1
        if not asked:
            raise UsageError(f"Message {message.seq} can't be repeated: {problem}")
        return asked

    def prune(self, keep_s: float, keep_count: int) -> None:
        """Remove old history. A failure is left to the next time."""
        clock = self._state.clock_ns
        now = clock.settled_ns() if isinstance(clock, Clock) else clock()
        try:
            removed = self._state.store.prune(
                now - int(keep_s * SECOND_NS),
                keep_count,
                now - int(WINDOW_S * SECOND_NS),
                now - int(KEPT_S * SECOND_NS),
            )
        except sqlite3.Error as error:
            _log.warning("Old executions could not be removed from the task database: %s", error)
            return
        with self._state.lock:
            self._state.planner.book.freshness.prune(now)
        if removed:
            _log.info("Removed %d old executions from the history", removed)

    @property
    def triggers(self) -> Sequence[Trigger]:
        """The rules that count now."""
        return self._triggers.rules

    def rules(self) -> tuple[RuleState, ...]:
        """Every trigger and how it fared since the start."""
        started = self._state.planner.started_by
        return tuple(
            RuleState(
                name=rule.name,
                topic=rule.topic,
                target=rule.target,
                matched=tally.matched,
                started=started.get(rule.name, 0),
                rejected=tally.rejected,
                last_ns=tally.last_ns,
            )
            for rule, tally in self._tallies.items()
        )

    def _cause(self, message: Message, trigger: Trigger) -> Cause:
        return Cause(
            "message",
            message.seq,
            message.topic,
            message.client_id,
            trigger.name,
            outcome_of(message),
        )

    def _now(self) -> int:
        return self._state.clock_ns()
