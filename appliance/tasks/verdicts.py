"""What the rules say of a message: one verdict a rule, with each thing that it looked at.

The consumer acts on a verdict, and people read the same verdict as the reason: a rule decides once.

Not for: what a rule means (triggers.py), or what becomes of the starts that it asks for
(explanation.py foretells it, planner.py does it).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from appliance.config.tables import TriggerConfig
from appliance.model import Message, is_own, outcome_of
from appliance.mqtt.topics import Matcher
from appliance.tasks.conditions import Comparison
from appliance.tasks.payloads import Rejection, WantedStart
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import INTERNAL_ERROR, OWN_OUTCOME, Trigger, is_told_again

_log = logging.getLogger(__name__)

_NAMED = 5
"""Tasks that a sentence names."""
_CLEARED = Rejection("cleared", "An empty retained message only clears the topic.", harmless=True)


class Check(msgspec.Struct, frozen=True):
    """One thing that a rule looks at in a message."""

    field: str
    """``"topic"``, ``"own message"``, ``"retained"``, ``"when"``, ``"asks for"``."""
    ok: bool
    wanted: str
    found: str
    reason: str = ""
    """Why it stands in the way, for people; empty if it does not."""


class Verdict(msgspec.Struct, frozen=True):
    """What one rule, whose filter matches, says of one message.

    ``starts`` is what it asks for, and ``rejection`` why it understands nothing. With neither, the
    message does not concern the rule. The texts are made when they are asked for.
    """

    trigger: Trigger
    message: Message
    starts: tuple[WantedStart, ...] = ()
    rejection: Rejection | None = None
    comparisons: tuple[Comparison, ...] = ()
    """Those of ``when``; of a verdict that is only to be acted on, up to the first that fails."""
    bars_own: str = ""
    """Why the rule takes no such message of the appliance itself."""

    @property
    def is_concerned(self) -> bool:
        """Whether the message leads to anything by this rule, be it a rejection."""
        return bool(self.starts) or self.rejection is not None

    @property
    def sentence(self) -> str:
        """What the rule says, without its name."""
        if self.bars_own:
            return self.bars_own
        if self.rejection is not None:
            return self.rejection.reason
        if not self.starts:
            unmet = next((one.problem for one in self.comparisons if not one.ok), "")
            return f"{unmet}." if unmet else "it is not concerned."
        return f"it asks for {self._named_starts()}."

    @property
    def checks(self) -> tuple[Check, ...]:
        """Each thing that the rule looked at, in order; the last one may stand in the way."""
        return tuple(self._checks())

    def _checks(self) -> Iterator[Check]:
        message, rejection = self.message, self.rejection
        yield Check("topic", ok=True, wanted=self.trigger.topic, found=message.topic)
        if self.bars_own:
            yield Check("own message", False, "", "the appliance's own", self.bars_own)
            return
        if rejection is _CLEARED:
            yield Check("retained", False, "", "an empty retained message", rejection.reason)
            return
        for one in self.comparisons:
            reason = "" if one.ok else f"{one.problem}."
            yield Check("when", one.ok, one.wanted, one.found, reason)
        if rejection is not None:
            yield Check("asks for", False, self.trigger.target, rejection.label, rejection.reason)
        elif self.starts:
            yield Check("asks for", True, self.trigger.target, self._named_starts())

    def _named_starts(self) -> str:
        return ", ".join(one.selector.text for one in self.starts[:_NAMED])


class Triggers:
    """All rules together. Not thread-safe; used by the thread that reads the journal."""

    def __init__(self, configs: Iterable[TriggerConfig], *, service_name: str) -> None:
        """Compile all rules; raises ``ConfigError`` for the first that can't be."""
        self.rules: Sequence[Trigger] = tuple(
            Trigger(config, number) for number, config in enumerate(configs, 1)
        )
        self._own_prefix = f"{service_name}/"
        self._matcher: Matcher[Trigger] = Matcher()
        for rule in self.rules:
            self._matcher.add(rule.topic, rule)

    def fresh_within(self) -> dict[str, float]:
        """The ``fresh_within`` of each rule that has one, in seconds, by its name."""
        limits: dict[str, float] = {}
        for rule in self.rules:
            if (limit_s := rule.fresh_within_s) is not None:
                limits[rule.name] = min(limit_s, limits.get(rule.name, limit_s))
        return limits

    def concern(self, topic: str) -> bool:
        """Whether any rule's filter matches (the cheap question, asked for every message)."""
        return bool(self._matcher.match(topic))

    def listening(self, topic: str) -> tuple[Trigger, ...]:
        """The rules whose filter matches a topic."""
        return tuple(dict.fromkeys(self._matcher.match(topic)))

    def decide(self, message: Message) -> tuple[Verdict, ...]:
        """The verdicts that lead to something; a message that no rule concerns gives nothing."""
        if not (matched := self._matcher.match(message.topic)):
            return ()
        judged = self._judge(matched, message, is_whole=False)
        return tuple(one for one in judged if one.is_concerned)

    def verdicts(self, message: Message) -> tuple[Verdict, ...]:
        """What each rule says whose filter matches, with every comparison of its ``when``."""
        matched = self._matcher.match(message.topic)
        return tuple(self._judge(matched, message, is_whole=True))

    def sentences(self, message: Message, verdicts: Sequence[Verdict]) -> list[str]:
        """What each rule says in its verdict on a message, a sentence each; or why none does."""
        if not verdicts:
            if not self.rules:
                return ["The configuration has no trigger, so no message starts a task."]
            return ["No trigger listens on its topic."]
        if _only_clears(message):
            return [_CLEARED.reason]
        return [f"Trigger {one.trigger.name}: {one.sentence}" for one in verdicts]

    def _judge(
        self, matched: Iterable[Trigger], message: Message, *, is_whole: bool
    ) -> Iterator[Verdict]:
        is_of_us, is_clearing = self._is_own(message), _only_clears(message)
        for trigger in dict.fromkeys(matched):
            if is_of_us and (bar := self._bar_to_own(trigger, message)):
                yield Verdict(trigger, message, bars_own=bar)
            elif is_clearing:
                yield Verdict(trigger, message, rejection=_CLEARED)
            else:
                yield self._ask(trigger, message, is_of_us=is_of_us, is_whole=is_whole)

    def _ask(
        self, trigger: Trigger, message: Message, *, is_of_us: bool, is_whole: bool
    ) -> Verdict:
        """What one rule says; an error in the appliance costs the message this rule and no other.

        ``is_whole``: the comparisons go on behind the first that fails.
        """
        comparisons: list[Comparison] = []
        is_met = True
        try:
            for one in trigger.compare(message.payload):
                comparisons.append(one)
                is_met = is_met and one.ok
                if not (is_met or is_whole):
                    break
            answer = trigger.asks_for(message) if is_met else ()
        except Exception:  # noqa: BLE001 - one rule's defect is not the others'
            _log.exception(
                "Trigger %s can't read message %d on %s: an error in the appliance, please "
                "report it",
                trigger.name,
                message.seq,
                message.topic,
            )
            answer = INTERNAL_ERROR
        if is_of_us and not isinstance(answer, Rejection):
            answer = OWN_OUTCOME if _any_about(message, answer) else answer
        if isinstance(answer, Rejection):
            return Verdict(trigger, message, (), answer, tuple(comparisons))
        return Verdict(trigger, message, answer, None, tuple(comparisons))

    def _is_own(self, message: Message) -> bool:
        is_on_own_topic = message.topic.startswith(self._own_prefix)
        return (is_own(message.client_id) and is_on_own_topic) or bool(outcome_of(message))

    def _bar_to_own(self, trigger: Trigger, message: Message) -> str:
        """Why a rule takes no such message of the appliance itself; empty if it does.

        A rule sees what the appliance says of itself only if it names the topic and the task.
        Otherwise a rule for ``#`` would read the task id out of the outcome of the run that it
        started, and start it again, for ever.
        """
        first = _first_level(message.topic)
        if trigger.fixed is None or _first_level(trigger.topic) != first:
            return (
                "it takes no message of the appliance itself, because its filter does not "
                f"begin with {first}/ or it names no task."
            )
        if not trigger.asks_for_log and is_told_again(message):
            return "it acts on an outcome once, and this tells the outcome again with its log."
        return ""


def _first_level(topic: str) -> str:
    return topic.partition("/")[0]


def _any_about(message: Message, starts: Iterable[WantedStart]) -> bool:
    return any(_about(message, one.selector) for one in starts)


def _about(message: Message, selector: TaskSelector) -> bool:
    about = (*message.topic.split("/"), outcome_of(message))
    return selector.kind in ("id", "app") and selector.value in about


def _only_clears(message: Message) -> bool:
    """Whether it is an empty retained message, which deletes the retained message of its topic.

    A publisher's own PUBLISH with the retain flag is an event like any other: the journal holds
    only what publishers sent, never what our broker replays to its subscribers. A bridge is a
    subscriber of another broker: what is replayed to it comes in where the configuration wants
    that, and one that came before is a repeat (dedup.py).
    """
    return message.retain and not message.payload
