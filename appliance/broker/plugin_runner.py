"""One amqtt plugin in a thread and an event loop of its own.

A plugin is foreign code: it may block its thread, hang or raise. Here that costs its own thread
alone. Questions have a time limit that holds on the engine's loop also when the plugin hangs, and
what waits for a plugin is bounded. amqtt's own ``PluginManager`` makes the plugin, asks it and
hands it events. Not for: what the answers of several plugins mean together (plugins.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from amqtt.contexts import Action, BaseContext
from amqtt.events import BrokerEvents
from amqtt.plugins.manager import PluginManager
from amqtt.session import IncomingApplicationMessage, Session

from appliance.broker.plugin_classes import PluginClass
from appliance.counters import Count, Counter
from appliance.model import Message

logger = logging.getLogger(__name__)

_MOST_QUESTIONS = 256
"""Questions that one plugin has not answered yet; beyond it, the answer is no. Connections that
are not yet authenticated are bounded by 100 (``limits.max_unauthenticated``)."""
_MOST_EVENTS = 10_000
_MOST_EVENT_BYTES = 16 * 1024 * 1024
"""What waits for a plugin that hears events more slowly than they come."""
_MADE_AGAIN_S = 5.0
"""Between two attempts to make a plugin: a server that is down is not asked all the time."""
_COMPLAINT_S = 60.0
"""Between two log lines about one plugin."""
_STOP_S = 2.0
_LATE = "gave no answer in time; who asks is refused"


class PluginFailedError(Exception):
    """A plugin did not answer: it raised, took too long or could not be made."""


class _Question(NamedTuple):
    """What a plugin is asked. ``topic`` is ``None``: whether the client may come in."""

    session: Session
    topic: str | None
    action: Action | None
    until: float
    """The end of the time limit on the clock of ``time.monotonic``."""
    future: asyncio.Future[tuple[bool | None, str]]
    """The answer, and what went wrong if there is none."""


class _Event(NamedTuple):
    name: BrokerEvents
    details: Mapping[str, Any]
    size: int


class PluginRunner:
    """Runs one plugin. Engine's loop only; methods that say so belong to the plugin's thread."""

    def __init__(self, kind: PluginClass, number: int, count: Count) -> None:
        self.kind = kind
        self._label = f"plugin {number} ({kind.name})"
        self._namespace = f"appliance.plugin.{number}"
        self._count = count
        self._engine = asyncio.get_running_loop()
        self._questions = 0
        """Asked and not yet answered by the plugin's thread, also those that ran out of time."""
        self._events: deque[_Event] = deque()
        self._event_bytes_in = 0
        self._event_bytes_out = 0
        self._is_woken = False
        self._failures = 0
        self._complained = 0.0
        self._has_ended = asyncio.Event()
        self._is_up = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"plugin {number}", daemon=True)
        # The plugin's thread makes and uses these:
        self._loop: asyncio.AbstractEventLoop
        self._stop_asked: asyncio.Event
        self._wake: asyncio.Event
        self._making: asyncio.Lock
        self._manager: PluginManager[BaseContext] | None = None
        self._next_making = 0.0

    # --- the engine's side ----------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread; the plugin itself is made there, however long it takes."""
        self._thread.start()
        await self._is_up.wait()

    async def stop(self) -> None:
        """End the plugin in order; one that hangs is left to the end of the process."""
        self._hand(self._stop_asked.set)
        try:
            await asyncio.wait_for(self._has_ended.wait(), _STOP_S)
        except TimeoutError:
            logger.warning("%s does not stop; it is left behind", self._label)

    async def ask(
        self, session: Session, topic: str | None, action: Action | None, timeout_s: float
    ) -> bool | None:
        """Ask the plugin; ``None``: it has no opinion.

        Raises:
            PluginFailedError: there is no answer in time.
        """
        if self.kind.refuses(session):
            return False
        if self._questions >= _MOST_QUESTIONS:
            self._count(Counter.PLUGIN_QUESTIONS_REFUSED)
            raise PluginFailedError(self._label)
        self._questions += 1
        future: asyncio.Future[tuple[bool | None, str]] = self._engine.create_future()
        question = _Question(session, topic, action, time.monotonic() + timeout_s, future)
        self._hand(lambda: self._begin(question))
        try:
            answer, error = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            answer, error = None, _LATE
        if error:
            self._complain(Counter.PLUGIN_QUESTIONS_FAILED, error)
            raise PluginFailedError(self._label)
        return answer

    def hears(self, event: str) -> bool:
        """Whether the plugin has a method for this event."""
        return event in self.kind.events

    def tell(self, event: BrokerEvents, details: Mapping[str, Any], size: int = 0) -> None:
        """Hand an event to the plugin soon; dropped if it hears too slowly."""
        waiting = self._event_bytes_in - self._event_bytes_out
        if len(self._events) >= _MOST_EVENTS or waiting + size > _MOST_EVENT_BYTES:
            self._count(Counter.PLUGIN_EVENTS_DROPPED)
            return
        self._event_bytes_in += size
        self._events.append(_Event(event, details, size))
        if not self._is_woken:
            self._is_woken = True
            self._hand(self._wake.set)

    def _hand(self, call: Callable[[], None]) -> None:
        """Have the plugin's thread call something. Nothing happens once that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _answered(self, question: _Question, answer: bool | None, error: str) -> None:
        self._questions -= 1
        if not question.future.done():
            question.future.set_result((answer, error))

    def _complain(self, counter: Counter, what: str) -> None:
        """Count a failure, and log it once in a while.

        Only the kind of an error is told: its text may hold what a client sent as its password.
        """
        self._count(counter)
        self._failures += 1
        now = time.monotonic()
        if self._complained and now - self._complained < _COMPLAINT_S:
            return
        self._complained = now
        before = f" ({self._failures} failures since the last line)" if self._failures > 1 else ""
        self._failures = 0
        logger.error("%s %s%s", self._label, what, before)

    # --- the plugin's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            logger.exception("%s: its thread has ended", self._label)
        finally:
            self._post(self._has_ended.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._unhandled)
        self._stop_asked, self._wake, self._making = (
            asyncio.Event(),
            asyncio.Event(),
            asyncio.Lock(),
        )
        self._post(self._is_up.set)
        with contextlib.suppress(PluginFailedError):
            await self._make(None)
        hearing = self._loop.create_task(self._hear())
        await self._stop_asked.wait()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hearing, _STOP_S / 2)
        if self._manager is not None:
            await _close(self._manager)

    async def _make(self, failed: PluginManager[BaseContext] | None) -> PluginManager[BaseContext]:
        """The plugin, made anew if there is none or it is the one that has failed.

        Raises ``PluginFailedError``: it can't be made, or was tried a moment ago.
        """
        async with self._making:
            if self._manager is not None and self._manager is not failed:
                return self._manager
            now = time.monotonic()
            if now < self._next_making:
                raise PluginFailedError(self._label)
            if failed is not None:
                self._next_making = now + _MADE_AGAIN_S
            old, self._manager = self._manager, None
            if old is not None:
                await _close(old)
            context = BaseContext()
            context.config = {"plugins": {self.kind.path: dict(self.kind.settings)}}
            foreign = logging.getLogger(self._namespace)
            # In debug, amqtt's manager prints to the terminal, which belongs to the UI.
            foreign.setLevel(logging.WARNING)
            level = max(logging.INFO, logging.getLogger().getEffectiveLevel())
            foreign.getChild(self.kind.name).setLevel(level)
            try:
                manager = PluginManager(self._namespace, context, self._loop)
            except Exception as error:  # noqa: BLE001 - foreign code
                self._next_making = now + _MADE_AGAIN_S
                cause = error.__cause__ or error
                logger.error(  # noqa: TRY400 - foreign tracebacks tell a user nothing
                    "%s could not be made, and is tried again when it is needed: %s: %s",
                    self._label,
                    type(cause).__name__,
                    str(cause)[:300],
                )
                raise PluginFailedError(self._label) from None
            await manager.fire_event(BrokerEvents.PRE_START, wait=True)
            await manager.fire_event(BrokerEvents.POST_START, wait=True)
            self._manager = manager
            logger.info("%s is ready", self._label)
            return manager

    def _begin(self, question: _Question) -> None:
        task = self._loop.create_task(self._answer(question))
        # A task that is cancelled before its first step never enters its body.
        task.add_done_callback(lambda done: self._finish(question, done))

    def _finish(self, question: _Question, done: asyncio.Task[bool | None]) -> None:
        answer, error = None, ""
        if done.cancelled():
            error = "was stopped"
        elif (failed := done.exception()) is None:
            answer = done.result()
        elif isinstance(failed, TimeoutError):
            error = _LATE
        elif isinstance(failed, PluginFailedError):
            error = "could not be made; who asks is refused"
        else:
            error = f"failed with {type(failed).__name__}; who asks is refused"
        self._post(lambda: self._answered(question, answer, error))

    async def _answer(self, question: _Question) -> bool | None:
        left = question.until - time.monotonic()
        if left <= 0:
            return None  # its time ran out while the thread was blocked; nothing waits for it
        async with asyncio.timeout(left):
            manager = await self._make(None)
            try:
                return await _put(manager, question)
            except Exception:
                # It may hold a connection that has ended since. If it can be made anew now, the
                # client need not notice.
                try:
                    again = await self._make(manager)
                except PluginFailedError:
                    again = None
                if again is None:
                    raise
                return await _put(again, question)

    async def _hear(self) -> None:
        """Hand on events in their order; at the end, what was told before is heard."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._is_woken = False
            while self._events:
                event = self._events.popleft()
                try:
                    manager = await self._make(None)
                    await manager.fire_event(event.name, wait=True, **_as_amqtt_has_it(event))
                except PluginFailedError:
                    pass
                except Exception as error:  # noqa: BLE001 - one event must not end the others
                    self._not_heard(type(error).__name__)
                self._event_bytes_out += event.size
            if self._stop_asked.is_set():
                return

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The plugin failed to handle an event; nothing waited for it."""
        error = context.get("exception")
        self._not_heard(type(error).__name__ if error is not None else str(context.get("message")))

    def _not_heard(self, what: str) -> None:
        self._post(
            lambda: self._complain(Counter.PLUGIN_EVENTS_FAILED, f"failed to hear an event: {what}")
        )

    def _post(self, call: Callable[[], None]) -> None:
        """Have the engine's loop call something. Nothing happens once that has ended."""
        with contextlib.suppress(RuntimeError):
            self._engine.call_soon_threadsafe(call)


async def _put(manager: PluginManager[BaseContext], question: _Question) -> bool | None:
    answers = (
        await manager.map_plugin_auth(session=question.session)
        if question.topic is None or question.action is None
        else await manager.map_plugin_topic(
            session=question.session, topic=question.topic, action=question.action
        )
    )
    for answer in answers.values():
        # Only True is a yes: amqtt takes anything that is not empty for one, also "false".
        return None if answer is None else answer is True
    return None


def _as_amqtt_has_it(event: _Event) -> dict[str, Any]:
    """The keywords of an event's method; a message becomes one of amqtt's, which takes time."""
    details = dict(event.details)
    message = details.get("message")
    if isinstance(message, Message):
        found = IncomingApplicationMessage(
            message.packet_id or None, message.topic, message.qos, message.payload, message.retain
        )
        found.publish_packet = found.build_publish_packet(message.dup)
        details["message"] = found
    return details


async def _close(manager: PluginManager[BaseContext]) -> None:
    with contextlib.suppress(Exception):
        await manager.fire_event(BrokerEvents.PRE_SHUTDOWN, wait=True)
        await manager.fire_event(BrokerEvents.POST_SHUTDOWN, wait=True)
        await manager.close()
