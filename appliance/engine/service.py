"""The appliance: what it is made of, in which order it starts and stops.

``Appliance.start`` opens everything and returns once the listeners accept connections;
``Appliance.stop`` takes it down in order: no new connections, what was accepted is journaled and
recorded, tasks in flight are noted. The engine's loop runs in a thread of its own, so that no
terminal can stall it. Not for: what the parts do, signals and terminals (process/run.py).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from appliance import tuning
from appliance.bridge import answers
from appliance.bridge.bridges import Bridges
from appliance.bridge.context import BridgeContext
from appliance.bridge.installation import installation_id
from appliance.broker.access import Access, Terms
from appliance.broker.amqtt_host import AmqttHost
from appliance.broker.door import Door
from appliance.broker.reauthorize import Enforced
from appliance.broker.server import MqttBroker
from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.users import Users
from appliance.clock import STEP_NS, Clock
from appliance.config.tables import Config
from appliance.config.upload_topics import upload_advice
from appliance.counters import Counter
from appliance.engine import databases, kept_clock, schedules
from appliance.engine.attention import Attention
from appliance.engine.bites import Bites
from appliance.engine.disk_floor import DiskFloor
from appliance.engine.live import KEPT_BYTES, LiveView
from appliance.engine.loop_lag import LoopLag
from appliance.engine.losses import Losses
from appliance.engine.memory_ceiling import MemoryCeiling
from appliance.engine.own_messages import OwnMessages
from appliance.engine.resident_memory import resident_bytes, return_free_memory
from appliance.engine.run_limit import RunLimit
from appliance.engine.schedules import Schedules
from appliance.engine.status_topic import StatusTopic
from appliance.engine.view import View
from appliance.engine_api import ListenerState
from appliance.errors import ApplianceError, ConfigError, UnavailableError
from appliance.journal import FILE_NAME
from appliance.journal.index import FILE_NAME as INDEX
from appliance.journal.indexer import Indexer
from appliance.journal.journal import Journal
from appliance.journal.search import History
from appliance.key_values import KeyValues
from appliance.log import event_log
from appliance.log.logs import Log
from appliance.model import Message, bridge_of, is_own
from appliance.qlik.server import QlikServer
from appliance.recorders.free_space import Floors, FreeSpace
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders
from appliance.recorders.uploads import Uploads
from appliance.remote.server import TerminalServer
from appliance.storage import files, rights
from appliance.storage.files import DirectoryLock
from appliance.storage.sqlite import disk_fault
from appliance.tasks.engine import TaskEngine
from appliance.tasks.jobs import Limits
from appliance.tasks.loops import find_loops
from appliance.tasks.state_store import ClosedError

if TYPE_CHECKING:
    from appliance.broker.plugins import Plugins
    from appliance.qlik.data_files import DataFiles

logger = logging.getLogger(__name__)

_STEP_S = 0.5
_STOP_S = 10.0
_REFUSED_STOP_S = 1.0
_TICK_S = 1.0
_KEEP_CLOCK_S = 60
"""Seconds between two writes of what a step between two runs is told by."""
_FORGET_EVERY_S = 10
_UNUSED_MESSAGES = 1000
"""A journal with more messages has been in use."""
_ENFORCE_S = 5.0
"""How long a reload waits until changed rules count for all sessions."""


class Part(Protocol):
    """Something above the engine that starts and stops with it. On the engine's loop."""

    async def start(self) -> None:
        """Raises ``ApplianceError`` if the appliance can't be started with it."""

    async def stop(self) -> None: ...

    def state(self) -> ListenerState:
        """The port that it serves. From any thread."""


class Appliance:
    """Everything, composed. Safe to use from any thread once started.

    ``server`` replaces the Qlik server that the configuration names (the demo brings its own).
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Log | None = None,
        server: QlikServer | None = None,
        run_for_s: float | None = None,
        task_limits: Limits | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        free_bytes: Callable[[Path], int] = files.free_bytes,
    ) -> None:
        self.config = config
        self._task_limits = task_limits
        self.log = log
        self._keeps_clock = clock_ns is time.time_ns  # another one is not the machine's
        kept_ns = kept_clock.read(Path(config.service.data_dir)) if self._keeps_clock else None
        self.clock = Clock(clock_ns, ahead_ns=kept_ns)
        self.clock_ns: Callable[[], int] = self.clock
        self.task_clock = Clock(clock_ns, ahead_ns=kept_ns)
        """The tasks follow a step of the clock in a change of their own, so they have their own."""
        self.started_ns = self.clock_ns()
        run_for_s = config.service.run_for if run_for_s is None else run_for_s
        self.run_limit = None if run_for_s is None else RunLimit(run_for_s, self.clock_ns)
        self.counters: collections.Counter[Counter] = collections.Counter()
        self._disk_refuses = False
        self.outcome_messages = OwnMessages(lambda: self.door, self._wait_for)
        self.live = LiveView(time.monotonic)
        self.loop_lag = LoopLag()
        self.bites = Bites()
        self.memory = MemoryCeiling(
            lambda: int(self.config.limits.max_memory),
            resident_bytes,
            steps=(
                (
                    Counter.MEMORY_LIVE_VIEW_SHED,
                    "the live view is emptied",
                    lambda: self.live.shed(0),
                ),
                (Counter.MEMORY_CACHES_SHED, "caches are emptied", self._shed_caches),
            ),
            hold=self._hold_publishers,
            back_to_normal=lambda: self.live.shed(KEPT_BYTES),
            count=self.count,
        )
        self.data_dir = Path(config.service.data_dir)
        self.key_values = KeyValues(
            self.data_dir / databases.KEY_VALUES,
            max_keys=lambda: self.config.http.max_keys,
            clock=Clock(clock_ns, ahead_ns=kept_ns),
            sync=config.journal.sync == "always",
        )
        self.schedules = Schedules(
            self.data_dir / schedules.FILE_NAME, lambda: self.tasks, lambda: self.config.timer
        )
        self._free_bytes = free_bytes
        self._floors = Floors(lambda: self.config.limits.min_free_disk)
        self.disk = DiskFloor(
            lambda: self._floors.of(self.data_dir),
            self._measure_disk,
            is_overfull=lambda: self.journal.is_overfull,
            are_recorders_paused=lambda: self.recorders.are_paused,
            hold=self._hold_for_disk,
            keep_unread=self._keep_unread,
            count=self.count,
        )
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self.server = server
        self._users: Users | None = None
        self.was_unused = False
        """Whether the journal had no message of a client when this process began."""
        self._lock = DirectoryLock(self.data_dir)
        self._ready = threading.Event()
        self._when_ready: list[Callable[[], None]] = []
        self._parts: list[Part] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        # Made in start order by _serve:
        self.plugins: Plugins | None = None
        self.access: Access
        self.journal: Journal
        self.index: Indexer
        self.history: History
        self.losses: Losses
        self.recorders: Recorders
        self.uploads: Uploads
        self.tasks: TaskEngine
        self.attention: Attention
        self.door: Door
        self.broker: MqttBroker
        self.terminals: TerminalServer
        self.retained: Retained
        self.status: StatusTopic
        self.bridges: Bridges

    # --- life ---------------------------------------------------------------------------------

    def put_modes_right(self, config: Config) -> None:
        """Take from other users of the machine what ``umask`` forbids, and say so."""
        umask = config.service.umask
        recordings = [Path(each.path) for each in config.recorder if each.path]
        changed = rights.apply(int(umask, 8), self.data_dir, recordings)
        if changed:
            logger.warning(
                "%d files and folders (recordings, those in %s) could be read or written by other"
                ' users of this machine; they can not any more (umask "%s" in [service])',
                changed,
                self.data_dir,
                umask,
            )

    def start(self) -> None:
        """Start; returns when the listeners accept connections.

        Raises:
            ApplianceError: something that is needed can't be had; nothing is left running.
        """
        self._lock.acquire()
        self.put_modes_right(self.config)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        # Without a limit: a large journal that has to be recovered may take its time. The thread
        # sets the event however it ends. In steps, so that signals get through on Windows.
        while not self._ready.wait(_STEP_S):
            pass
        if self.failure is not None:
            self._done.wait(_STOP_S)
            raise self.failure

    def when_ready(self, call: Callable[[], None]) -> None:
        """Have something called once the listeners accept connections. Before ``start``."""
        self._when_ready.append(call)

    def attach(self, part: Part) -> None:
        """Have a part started with the listeners, and stopped before them. Before ``start``."""
        self._parts.append(part)

    def port_states(self) -> tuple[ListenerState, ...]:
        """The ports of the parts that were attached."""
        return tuple(part.state() for part in self._parts)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The engine's loop; ``None`` before the start."""
        return self._loop

    def stop(self) -> None:
        """Begin the ordered stop; ``wait`` says when it is over. May be called repeatedly."""
        self.stopping.set()
        loop, asked = self._loop, self._stop_asked
        if loop is not None and asked is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(asked.set)

    def check_directory(self) -> None:
        """Begin the ordered stop if the data directory was deleted or replaced.

        Then another appliance could start with it, and what is acknowledged goes to files that
        have no name any more. For a worker thread: it asks the disk.
        """
        if self.failure is None and self._lock.is_replaced:
            self.failure = UnavailableError(
                f"The data directory {self.data_dir} was deleted or replaced while the appliance"
                " ran. It stops, so that no message goes to files without a name. Stop the"
                " appliance before you move or restore a data directory."
            )
            logger.critical("%s", self.failure)
            self.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the appliance has stopped; returns whether it has."""
        return self._done.wait(timeout_s)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.failure = self._in_words(error)
            if self._ready.is_set() and not isinstance(error, ApplianceError):
                logger.critical("the engine has failed", exc_info=error)
        finally:
            self.stopping.set()
            self._lock.release()
            self._ready.set()
            self._done.set()

    def _in_words(self, error: BaseException) -> BaseException:
        """A disk that fails at any moment of the start is no defect of the appliance."""
        reason = disk_fault(error)
        if reason is None:
            return error
        return UnavailableError(
            f"The data directory {self.data_dir} can't be used: {reason}. See to the disk, and"
            " start again."
        )

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = asyncio.Event()
        executor = ThreadPoolExecutor(4, thread_name_prefix="worker")
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
            databases.upgrade(self.data_dir, self.clock_ns())
            self._define_journal()
            await self._serve(stack, executor)
            self._follow_clock()  # it may have been set since the last run
            await self._keep_clock()
            ticker = self._loop.create_task(self._tick(), name="tick")
            watch = self._loop.create_task(self.loop_lag.watch(), name="loop lag")
            memory = self._loop.create_task(self.memory.watch(return_free_memory), name="memory")
            disk = self._loop.create_task(self.disk.watch(), name="disk")
            self._ready.set()
            self._announce()
            for call in self._when_ready:
                call()
            tuning.end_start()
            await self._until_stopped()
            self.stopping.set()
            logger.info("stopping: no new connections, finishing what was accepted")
            ticker.cancel()
            watch.cancel()
            memory.cancel()
            disk.cancel()
            self.status.publish("offline")
        logger.info(
            "stopped: %d messages were accepted in this run, the journal ends with number %d",
            self.door.messages_in,
            self.journal.last_seq,
            extra=event_log.STOP,
        )

    def _define_journal(self) -> None:
        settings = self.config.journal
        self.journal = Journal(
            self.data_dir / FILE_NAME,
            sync=settings.sync,
            keep_s=settings.keep,
            max_bytes=settings.max_size,
            clock_ns=self.clock_ns,
            age_clock_ns=self.clock.settled_ns,
        )
        self.journal.keeps_unread = True  # until the disk was looked at
        for tables in databases.JOURNAL_TABLES:
            self.journal.define(tables)

    async def _serve(self, stack: contextlib.AsyncExitStack, executor: ThreadPoolExecutor) -> None:
        config = self.config
        loop = asyncio.get_running_loop()
        subscriptions = Subscriptions()
        self.retained = Retained(config.limits.max_retained, int(config.limits.max_retained_size))
        self.recorders = Recorders(
            config.recorder,
            self.data_dir / databases.RECORDERS,
            clock_ns=self.clock_ns,
            age_clock_ns=self.clock.settled_ns,
            installation=lambda: installation_id(self.data_dir),
            space=FreeSpace(self._floors.of, self._free_bytes),
        )
        terms = self.terms_of(config)
        self.plugins = await self._make_plugins(stack)
        self._users = terms.users
        self.access = Access(
            terms,
            reserved=config.service.name,
            executor=executor,
            clock=time.monotonic,
            count=self.count,
            plugins=self.plugins,
        )
        await self._make_tasks(stack)
        self.losses = Losses(self.data_dir)
        for text in self.schedules.losses:
            self.losses.note(text)
        self.attention = Attention(
            self.tasks.acknowledgements,
            View(self).snapshot,
            losses=self.losses,
            failing=self.tasks.failing_executions,
        )
        tasks_cursor = self.tasks.open()

        def settle(messages: Sequence[Message], entries: Sequence[Any]) -> None:
            self.door.committed(messages, entries)

        # A journal that came from a backup must not number messages below what its followers
        # have seen: they would take them for old ones.
        try:
            self.journal.start(
                settle,
                on_refused=self._refused,
                on_loss=self.losses.note,
                minimum_seq=max(tasks_cursor, highest_cursor(self.data_dir / databases.RECORDERS)),
            )
        except BaseException:
            self.tasks.stop(_STOP_S / 2)
            raise
        stack.push_async_callback(asyncio.to_thread, self._close_journal)
        self.index = Indexer(self.journal, self.data_dir / INDEX)
        self.history = History(self.journal.reading, self.index.reader, self.index.doubt)
        self.index.start()
        stack.push_async_callback(asyncio.to_thread, self._stop_index)
        set_back_ns = self._doubt_clock()
        self.was_unused = self._is_unused()
        self.door = Door(
            self.journal,
            subscriptions=subscriptions,
            retained=self.retained,
            loop=loop,
            clock_ns=self.clock_ns,
            max_pending=config.limits.max_pending,
            own_client_id=f"${config.service.name}",
            observe=self._observer(),
            count=self.count,
        )
        self.door.fanned_out_seq = self.journal.last_seq
        if set_back_ns:
            self.door.follow_step(set_back_ns)
        self.door.load_retained()
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.journal.follower)
        stack.push_async_callback(asyncio.to_thread, self._stop_recorders)
        if self.tasks.is_new:
            first = await asyncio.to_thread(self.journal.seq_at, self.tasks.first_wanted_ns())
            tasks_cursor = self.tasks.rebuild(first - 1, self.journal.last_seq)
        for text in (*self.tasks.losses, *self.recorders.losses):
            self.losses.note(text)
        self.tasks.start(self.journal.follower("tasks", tasks_cursor, interest=self.tasks.concern))
        # Before the recorders and the journal: what it publishes at the end is kept as well.
        stack.push_async_callback(asyncio.to_thread, self._stop_tasks)
        self.uploads = self._make_uploads()
        self.recorders.parts.on_closed = self.uploads.wake
        self.uploads.start()
        stack.push_async_callback(asyncio.to_thread, self.uploads.stop, _STOP_S / 2)
        self.broker = MqttBroker(
            listeners=config.listener,
            limits=config.limits,
            access=self.access,
            subscriptions=subscriptions,
            retained=self.retained,
            door=self.door,
            host=AmqttHost(),
            records=self.journal,
            executor=executor,
            counters=self.counters,
            clock_ns=self.clock_ns,
            plugins=self.plugins,
            will_grace_s=config.service.will_grace,
            age_clock_ns=self.clock.settled_ns,
        )
        self.bridges = Bridges(self._bridge_context(executor), self.data_dir)
        await self.bridges.hold()
        self.broker.is_looping = self.bridges.is_looping
        self.broker.held_client = self.tasks.holding.held_client
        self.terminals = self._terminal_server()
        self.broker.on_terminal_request = self.terminals.take
        await self.broker.start()
        if not config.listener:
            logger.info("no listeners, as the configuration says: no client can connect")
        stack.push_async_callback(self.broker.stop)
        self.terminals.start()
        stack.push_async_callback(self.terminals.stop)
        self.status = StatusTopic(
            View(self).snapshot,
            lambda: self.journal.stats().health,
            self.bridges.connected,
            self.door,
            self.retained,
            holds=lambda: self.tasks.holding.holds().holds,
        )
        self.status.publish("online")
        if config.http.bind is not None and config.http.butler:
            await asyncio.to_thread(self.key_values.open)
            stack.push_async_callback(asyncio.to_thread, self.key_values.close)
            for text in self.key_values.losses:
                self.losses.note(text)
        for part in self._parts:
            await part.start()
            stack.push_async_callback(part.stop)
        # First of all: what other brokers still deliver is not taken any more.
        stack.push_async_callback(self.bridges.stop)
        await self.bridges.start(config.bridge)

    def _make_uploads(self) -> Uploads:
        def connect() -> DataFiles:
            # The HTTP client, as in ``_make_tasks``.
            from appliance.qlik.connect import data_files  # noqa: PLC0415

            if self.config.qlik is None:
                raise ConfigError('`upload` needs a [qlik] table with edition = "cloud"')
            return data_files(self.config.qlik, self.server, clock=self.task_clock)

        return Uploads(
            self.config.recorder,
            service_name=self.config.service.name,
            data_dir=self.data_dir,
            store=self.recorders.store,
            connect=connect,
            publish=OwnMessages(lambda: self.door, self._wait_for).publish_one,
            journal=self.journal,
            clock_ns=self.clock_ns,
        )

    def _bridge_context(self, executor: ThreadPoolExecutor) -> BridgeContext:
        return BridgeContext(
            loop=asyncio.get_running_loop(),
            door=self.door,
            journal=self.journal,
            turns=self.broker.turns,
            limits=lambda: self.config.limits,
            executor=executor,
            service_name=self.config.service.name,
            clock_ns=self.clock_ns,
            count=self.count,
        )

    def _refused(self, _token: object, error: Exception) -> None:
        """The journal can't store an entry although the disk works: a defect, so it is counted.

        Nothing is acknowledged for it. No client's input is known that causes it.
        """
        self.count(Counter.JOURNAL_ENTRIES_REFUSED)
        logger.error("an entry was left out of the journal: %s", error)

    def _stop_tasks(self) -> None:
        """What was accepted is committed first, so that what it asks for is noted."""
        self._flush_journal()
        self.tasks.stop(_STOP_S / 2)

    def _stop_recorders(self) -> None:
        """What was accepted, and what the tasks still said, is recorded too."""
        self._flush_journal()
        self.recorders.stop(_STOP_S)

    def _stop_index(self) -> None:
        self.index.stop(_STOP_S)

    def _close_journal(self) -> None:
        self.journal.close(_REFUSED_STOP_S if self._disk_refuses else _STOP_S)

    def _flush_journal(self) -> None:
        """A disk that refuses is waited for once, not at every step of the stop."""
        if not self._disk_refuses and not self.journal.lost_threads():
            self._disk_refuses = not self.journal.flush(_STOP_S)

    def _terminal_server(self) -> TerminalServer:
        door = self.door

        async def record(asked: Message, what: bytes) -> None:
            await door.publish_settled(asked.topic, what, asked)

        return TerminalServer(
            View(self),
            hand=door.hand,
            is_listening=self.broker.is_listening,
            record=record,
            role_of=self.access.role,
            count=self.count,
        )

    def terms_of(self, config: Config) -> Terms:
        """What a configuration says about access. Reads the users file if it is another one.

        Raises:
            ApplianceError: that can't be read.
        """
        access, users = config.access, None
        if access.users_file is not None:
            users = self._users
            if users is None or users.path != Path(access.users_file):
                users = Users(access.users_file)
        return Terms(
            access,
            users,
            anonymous=access.anonymous is True,
            open_without_users=(
                config.is_loopback_only if access.anonymous is None else access.anonymous
            ),
        )

    async def _make_plugins(self, stack: contextlib.AsyncExitStack) -> Plugins | None:
        """Load the plugins that the configuration names; they are stopped after the broker.

        Raises:
            ConfigError: one of them can't be loaded.
        """
        config = self.config
        if not config.access.plugins:
            return None
        from appliance.broker.plugin_classes import plugin_classes, sign_in_problem  # noqa: PLC0415
        from appliance.broker.plugins import Plugins  # noqa: PLC0415

        classes = await asyncio.to_thread(plugin_classes, config.access)
        problem = sign_in_problem(config.access, classes, is_loopback_only=config.is_loopback_only)
        if problem is not None:
            raise ConfigError(problem)
        plugins = Plugins(
            classes,
            timeout_s=config.access.plugin_timeout,
            cache_s=config.access.plugin_cache,
            count=self.count,
        )
        await plugins.start()
        stack.push_async_callback(plugins.stop)
        return plugins

    def _observer(self) -> Callable[[Sequence[Message]], None]:
        """What hears of committed messages at once: the live view, and plugins that want to."""
        plugins, live = self.plugins, self.live
        if plugins is None or not plugins.hear_messages:
            return live.add
        hear = plugins.received

        def observe(messages: Sequence[Message]) -> None:
            live.add(messages)
            hear(messages)

        return observe

    async def take(self, config: Config, terms: Terms) -> Enforced | None:
        """Let another configuration count for the broker. On the engine's loop.

        Returns what came of it for clients; ``None``: with many sessions that takes longer.
        """
        if self.plugins is not None:
            self.plugins.bound(config.access.plugin_timeout, config.access.plugin_cache)
        self.config = config
        self._users = terms.users
        self.access.take(terms)
        self.broker.take_limits(config.limits, config.listener)
        self.bridges.take(config.bridge)
        enforcement = self.broker.enforce_access_in_slices()
        await asyncio.wait({enforcement}, timeout=_ENFORCE_S)
        return enforcement.result() if enforcement.done() else None

    async def _make_tasks(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        if self.server is None and config.qlik is not None:
            # The HTTP client is six megabytes that an appliance without Qlik need not have.
            from appliance.qlik.connect import connect  # noqa: PLC0415

            self.server = await asyncio.to_thread(connect, config.qlik, clock=self.task_clock)
        if self.server is not None:
            stack.callback(self.server.close)
        await asyncio.to_thread(self.schedules.open, self.clock_ns())
        self.tasks = TaskEngine(
            service_name=config.service.name,
            triggers=config.trigger,
            allow=config.allow,
            server=self.server,
            edition="" if config.qlik is None else config.qlik.edition,
            database=self.data_dir / databases.TASKS,
            publish=self.outcome_messages.publish,
            timers=self.schedules.timers(config.timer),
            stopped_timers=self.schedules.stopped(),
            notify=config.notify,
            outcomes=config.outcome,
            keep_script_logs_s=None if config.qlik is None else config.qlik.keep_script_logs,
            has_room=self._has_room_for_logs,
            answer_topic=self._answer_topic,
            max_running=None if config.qlik is None else config.qlik.max_running,
            max_concurrent=4 if config.qlik is None else config.qlik.max_concurrent,
            other_appliances=config.has_other_appliances,
            health_check_s=30.0 if config.qlik is None else config.qlik.health_check,
            sync=config.journal.sync,
            limits=self._task_limits,
            clock_ns=self.task_clock,
        )
        for loop in await asyncio.to_thread(find_loops, config):
            logger.warning("%s", loop.text)
        for text in upload_advice(config):
            logger.warning("%s", text)

    def _has_room_for_logs(self) -> bool:
        """Whether the disk has so much free that script logs may be kept. May wait for it."""
        return self._free_bytes(self.data_dir) >= self._floors.of(self.data_dir)

    def _answer_topic(self, message: Message, topic: str) -> str | None:
        """Where an answer goes so that its asker gets it, if the asker may listen there.

        A response topic must not lend anybody the appliance's right to publish.
        """
        if len(topic.encode()) > self.config.limits.max_topic_length:
            return None
        if name := bridge_of(message.client_id):
            bridges = (one for one in self.config.bridge if one.name == name)
            return next((answers.local_topic(one.publish, topic) for one in bridges), None)
        is_allowed = self.access.may_subscribe(message.username, message.client_id, topic)
        return topic if is_allowed else None

    async def _until_stopped(self) -> None:
        if self._stop_asked is None:
            raise RuntimeError("the engine is not running")
        if self.stopping.is_set():
            return
        asked = asyncio.create_task(self._stop_asked.wait())
        if self.run_limit is None:
            await asked
            return
        over = asyncio.create_task(self.run_limit.wait())
        try:
            await asyncio.wait((asked, over), return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                logger.info("the run limit is reached")
        finally:
            asked.cancel()
            over.cancel()

    # --- what happens by itself ---------------------------------------------------------------

    async def _tick(self) -> None:
        seconds, view = 0, View(self)
        while True:
            await asyncio.sleep(_TICK_S)
            if self._follow_clock() or seconds % _KEEP_CLOCK_S == 0:
                await asyncio.to_thread(self._follow_clock_on_disk)
                await self._keep_clock()
            self.live.tick(self.door.messages_out)
            self.bites.look(view.counters(), self.clock_ns())
            seconds += 1
            self.status.tick(seconds)
            if seconds % _FORGET_EVERY_S == 0:
                await asyncio.to_thread(self._forget_acknowledged)

    def _forget_acknowledged(self) -> None:
        try:
            self.attention.forget_gone()
        except ClosedError:
            pass
        except Exception:
            logger.exception("acknowledgements could not be looked through")

    def _hold_publishers(self, is_held: bool) -> None:
        self.door.hold(is_held)

    def _measure_disk(self) -> int:
        self._floors.of(self.data_dir)  # looked up here, so that the loop finds it in memory
        return self._free_bytes(self.data_dir)

    def _hold_for_disk(self, level: Literal[0, 1, 2]) -> None:
        self.door.hold_for_disk(level)

    def _keep_unread(self, keeps: bool) -> None:
        self.journal.keeps_unread = keeps

    def _shed_caches(self) -> None:
        self.live.forget_topics()
        self.broker.shed_caches()

    async def _keep_clock(self) -> None:
        if self._keeps_clock:
            await asyncio.to_thread(kept_clock.write, self.data_dir, self.clock.ahead_ns)

    def _follow_clock_on_disk(self) -> None:
        with contextlib.suppress(UnavailableError):  # its own calls say so
            self.key_values.follow_clock()

    def _follow_clock(self) -> bool:
        """If the clock was set, move what waits in the broker with it, and say so."""
        if not (step_ns := self.clock.step_ns()):
            return False
        self.clock.adopt(step_ns)
        self.broker.follow_step(step_ns)
        self.bridges.follow_step(step_ns)
        self.bites.follow_step(step_ns)
        self.started_ns += step_ns
        logger.warning(
            "The system's clock was set %s by %s: what waits goes on waiting for as long as before",
            "forward" if step_ns > 0 else "back",
            timedelta(seconds=round(abs(step_ns) / 1e9)),
        )
        return True

    def _doubt_clock(self) -> int:
        """A clock far ahead of the newest message may be wrong: nothing is deleted for its age yet.

        After a long time without messages that is so too, and then it costs a day. Returns by how
        many ns, as a negative number, the clock is behind the newest message: it was set back.
        """
        newest = self.journal.get(self.journal.last_seq)
        ahead_ns = 0 if newest is None else self.clock_ns() - newest.received_ns
        if ahead_ns >= STEP_NS:
            self.clock.doubt(ahead_ns)
            self.task_clock.doubt(ahead_ns)
        return min(0, ahead_ns)

    def _announce(self) -> None:
        for listener in self.broker.listener_states():
            logger.info(
                "listening on %s (%s%s)",
                listener.bind,
                listener.transport,
                ", TLS" if listener.tls else "",
                extra=event_log.START,
            )

    def count(self, counter: Counter) -> None:
        """Count one event. On the engine's loop."""
        self.counters[counter] += 1

    @property
    def is_first_run(self) -> bool:
        """Whether no client ever published."""
        return self.was_unused and not self.live.heard_a_client

    def _is_unused(self) -> bool:
        """Whether the journal has nothing but what the appliance itself published, and little."""
        if self.journal.last_seq > _UNUSED_MESSAGES:
            return False
        chunks = self.journal.back_from(self.journal.last_seq + 1)
        return all(is_own(one.client_id) for chunk in chunks for one in chunk)

    @property
    def users_known(self) -> int:
        """How many users the users file has."""
        return 0 if self._users is None else len(self._users.names())

    def lost_threads(self) -> tuple[str, ...]:
        """Threads that are gone and that only a restart brings back; nothing works without them.

        Not the recorders': what they would write is in the journal, and messages are accepted.
        """
        return (*self.journal.lost_threads(), *self.tasks.lost_threads())

    # --- for other threads --------------------------------------------------------------------

    def call(self, function: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Run a function on the engine's loop and return its result. Not from that loop.

        Raises:
            UnavailableError: the engine has stopped, or does not answer.
        """

        async def run() -> Any:
            return function()

        return self._wait_for(run(), timeout_s)

    def wait_for(
        self, work: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float = 10.0
    ) -> Any:
        """``call`` for work that takes several steps of the loop.

        Raises:
            UnavailableError: the engine has stopped, or the work takes too long.
        """
        return self._wait_for(work(), timeout_s)

    def wait_settled(self, timeout_s: float) -> None:
        """Wait until everything that has entered so far is on disk. Not on the engine's loop.

        Raises:
            UnavailableError: the engine has stopped, or that takes too long.
        """
        self._wait_for(self.door.settled(), timeout_s)

    def _wait_for(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        loop = self._loop
        if loop is None or loop.is_closed():
            coroutine.close()
            raise UnavailableError("The appliance is stopping.")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise UnavailableError("The engine does not answer.") from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loops of the appliance; ``None``: asyncio's own."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop  # noqa: PLC0415 - optional, and slow to import where it is not wanted
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
