"""The terminal server: attached terminals, when each gets a frame, what each may do.

A terminal confirms each frame, and at most two frames are unconfirmed: a terminal on a slow line
gets fewer frames with more changes, a stalled one gets none, and neither costs more than two
frames. An action is checked against the user's role at that moment, journaled under the user's
name, carried out, logged and answered. Reading leaves no trace.
Not for: roles and topics (broker/access.py), what is in a frame (frames.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from appliance.counters import Count, Counter
from appliance.engine_api import NOBODY, Engine
from appliance.errors import ApplianceError, NoPermissionError, UsageError
from appliance.model import Message
from appliance.remote import protocol
from appliance.remote.dispatch import carry_out
from appliance.remote.frames import Cursor, Frames
from appliance.remote.topics import reply_topic, state_topic

logger = logging.getLogger(__name__)

MAX_TERMINALS = 32
"""Terminals that may be attached at a time."""
MAX_COMMANDS = 256
"""Commands, which get no frames, that may be attached at a time."""
_WORKERS = 4
_SEARCHES = 2
"""Searches that are carried out at a time; further steps wait for their turn."""
_AFTER_FAILURE_S = 1.0
_OPERATOR = "operator"


class _Terminal:
    """One attached terminal."""

    __slots__ = ("client_id", "confirmed", "cursor", "open_requests", "username")

    def __init__(self, client_id: str, username: str | None, cursor: Cursor) -> None:
        self.client_id = client_id
        self.username = username
        self.cursor = cursor
        self.confirmed = 0
        self.open_requests = 0

    @property
    def is_ready(self) -> bool:
        """Whether another frame may be sent to it."""
        return self.cursor.number - self.confirmed < protocol.WINDOW


class TerminalServer:
    """Serves attached terminals. Engine's loop only.

    Args of the constructor:
        hand: sends a payload to the subscribers of a topic, without the journal.
        is_listening: whether a client is connected and has subscribed to a topic.
        record: journals an action under the user's name; returns when it is on the disk.
        role_of: the role of a user at an address: ``"operator"``, ``"viewer"`` or ``None``.
        count: counts an event.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        hand: Callable[[str, bytes], int],
        is_listening: Callable[[str, str], bool],
        record: Callable[[Message, bytes], Awaitable[None]],
        role_of: Callable[[str | None, str], str | None],
        count: Count,
    ) -> None:
        self._engine = engine
        self._hand = hand
        self._is_listening = is_listening
        self._record = record
        self._role_of = role_of
        self._count = count
        self._frames = Frames(engine, time.monotonic)
        self._terminals: dict[str, _Terminal] = {}
        self._commands: dict[str, _Terminal] = {}
        self._has_terminals = asyncio.Event()
        self._requests: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="terminals")
        # A search takes a part of a second a step; frames and actions do not wait for it.
        self._searches = ThreadPoolExecutor(_SEARCHES, thread_name_prefix="terminal searches")
        self._decoder = msgspec.json.Decoder(protocol.Request)
        self._sender: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def attached(self) -> int:
        """How many terminals are attached."""
        return len(self._terminals)

    def start(self) -> None:
        """Begin to serve."""
        self._sender = asyncio.get_running_loop().create_task(self._send_frames(), name="terminals")

    async def stop(self) -> None:
        """Stop serving. Operations that run already end without an answer."""
        if self._sender is not None:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
        for task in self._requests:
            task.cancel()
        for pool in (self._pool, self._searches):
            pool.shutdown(wait=False, cancel_futures=True)

    # --- frames -------------------------------------------------------------------------------

    async def _send_frames(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_terminals.wait()
            self._let_go()
            ready = [one for one in self._terminals.values() if one.is_ready]
            if ready:
                try:
                    cursors = [one.cursor for one in self._terminals.values()]
                    frames = await loop.run_in_executor(self._pool, self._make, ready, cursors)
                except Exception as error:  # noqa: BLE001 - no error here may end the engine
                    self._failed(error)
                    frames = []
                    await asyncio.sleep(_AFTER_FAILURE_S)
                for terminal, frame in frames:
                    # A terminal that attached again meanwhile expects frame 1, not this one.
                    if self._terminals.get(terminal.client_id) is terminal:
                        self._hand(state_topic(terminal.client_id), frame)
            await asyncio.sleep(1 / protocol.FRAMES_A_SECOND)

    def _failed(self, error: Exception) -> None:
        """Log why terminals get no frames, once for each reason."""
        if repr(error) != self._failure:
            self._failure = repr(error)
            logger.error("no frame could be made for attached terminals", exc_info=error)

    def _make(self, ready: list[_Terminal], cursors: list[Cursor]) -> list[tuple[_Terminal, bytes]]:
        self._frames.refresh(cursors)
        return [(terminal, self._frames.frame(terminal.cursor)) for terminal in ready]

    def _let_go(self) -> None:
        """Forget terminals that have disconnected, and the tables with the last of them."""
        for client_id in list(self._terminals):
            if not self._is_listening(client_id, state_topic(client_id)):
                self._forget(client_id)

    def _forget(self, client_id: str) -> None:
        del self._terminals[client_id]
        logger.info("terminal %s has detached", client_id)
        if not self._terminals:
            self._has_terminals.clear()
            self._frames = Frames(self._engine, time.monotonic)

    # --- requests -----------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Take a message on a request topic. The broker has checked the client's right to it."""
        try:
            request = self._decoder.decode(message.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._count(Counter.TERMINAL_REQUESTS_REFUSED_NOT_UNDERSTOOD)
            return
        try:
            self._take(message, request)
        except Exception:
            # The broker calls this while it reads a client's bytes; no error may reach it.
            logger.exception("a request of an attached terminal failed")

    def _take(self, message: Message, request: protocol.Request) -> None:
        role = self._role_of(message.username, message.address)
        if role is None:
            self._count(Counter.TERMINAL_REQUESTS_REFUSED_NOT_ALLOWED)
            return
        if isinstance(request.operation, protocol.Attach):
            self._attach(message, request.number, request.operation, role)
            return
        client_id = message.client_id
        terminal = self._terminals.get(client_id) or self._commands.get(client_id)
        if terminal is None:
            return
        if isinstance(request.operation, protocol.Seen):
            confirmed = min(request.operation.frame, terminal.cursor.number)
            terminal.confirmed = max(terminal.confirmed, confirmed)
            return
        if terminal.open_requests >= protocol.MAX_OPEN_REQUESTS:
            self._count(Counter.TERMINAL_REQUESTS_REFUSED_TOO_MANY)
            self._answer_error(
                message.client_id,
                request.number,
                ApplianceError("Too much was asked for at a time; try again."),
            )
            return
        terminal.open_requests += 1
        task = asyncio.get_running_loop().create_task(
            self._serve(terminal, message, request, role), name=f"terminal {message.client_id}"
        )
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _attach(self, message: Message, number: int, operation: protocol.Attach, role: str) -> None:
        client_id = message.client_id
        is_full = self._is_full(operation, client_id)
        topic = state_topic(client_id) if operation.frames else reply_topic(client_id)
        problem = ""
        if operation.protocol != protocol.PROTOCOL:
            problem = (
                f"This terminal speaks version {operation.protocol} of the terminal protocol, the "
                f"appliance version {protocol.PROTOCOL}: install the same version of the program "
                "on both."
            )
        elif is_full:
            self._count(Counter.TERMINALS_REFUSED)
            problem = is_full
        elif not self._is_listening(client_id, topic):
            problem = f"Subscribe to {topic} first."
        if problem:
            self._answer_error(client_id, number, UsageError(problem))
            return
        answer = protocol.Answer(number, msgspec.Raw(protocol.encode(role)))
        if not operation.frames:
            if client_id in self._terminals:
                self._forget(client_id)
            self._commands[client_id] = _Terminal(client_id, message.username, Cursor(0, 0))
            self._answer(client_id, answer)
            return
        self._commands.pop(client_id, None)
        snapshot = self._engine.snapshot()
        same_run = operation.engine_started_ns == snapshot.started_ns
        cursor = Cursor(
            # A new journal may have lower numbers than the terminal has seen.
            max(0, min(operation.after_seq, snapshot.journal.last_seq)),
            max(0, operation.after_log) if same_run else 0,
        )
        self._terminals[client_id] = _Terminal(client_id, message.username, cursor)
        self._has_terminals.set()
        logger.info("%s has attached as %s", _who(message), role)
        self._answer(client_id, answer)

    def _is_full(self, operation: protocol.Attach, client_id: str) -> str:
        """Why another terminal or command can't be attached; empty if it can."""
        if operation.frames:
            if client_id in self._terminals or len(self._terminals) < MAX_TERMINALS:
                return ""
            return f"{MAX_TERMINALS} terminals are attached already; close one of them."
        if client_id in self._commands or len(self._commands) < MAX_COMMANDS:
            return ""
        # A command does not say when it ends.
        for gone in [each for each in self._commands if not self._is_there(each)]:
            del self._commands[gone]
        if len(self._commands) < MAX_COMMANDS:
            return ""
        return f"{MAX_COMMANDS} commands wait already; try again later."

    def _is_there(self, client_id: str) -> bool:
        return self._is_listening(client_id, reply_topic(client_id))

    async def _serve(
        self, terminal: _Terminal, message: Message, request: protocol.Request, role: str
    ) -> None:
        operation = request.operation
        loop = asyncio.get_running_loop()
        try:
            if operation.is_action:
                await self._permit(message, operation, role)
            if isinstance(operation, protocol.StopAppliance):
                # Afterwards the connection may be closed already.
                self._answer(message.client_id, protocol.Answer(request.number))
            is_search = isinstance(operation, protocol.Search | protocol.GetValues)
            pool = self._searches if is_search else self._pool
            found = await loop.run_in_executor(
                pool, _encoded, self._engine, operation, _who(message)
            )
            self._answer(message.client_id, protocol.Answer(request.number, found))
        except ApplianceError as error:
            self._answer_error(message.client_id, request.number, error)
        except Exception as error:
            logger.exception("a request of an attached terminal failed")
            self._answer_error(
                message.client_id,
                request.number,
                ApplianceError(f"That failed: {type(error).__name__}; the log says more."),
            )
        finally:
            terminal.open_requests -= 1

    async def _permit(self, message: Message, operation: protocol.AnyOperation, role: str) -> None:
        """Journal and log an action, or refuse it.

        Raises:
            NoPermissionError: the user is no operator.
        """
        what = protocol.audit(operation)
        if role != _OPERATOR:
            self._count(Counter.ACTS_REFUSED)
            logger.warning("refused %s to %s: a viewer", what.decode(), _who(message))
            raise NoPermissionError(
                f"{message.username or 'You'} may look and not act here. Whoever may act is listed "
                "in the appliance's configuration: [access] operators."
            )
        await self._record(message, what)
        logger.info("%s asks: %s", _who(message), what.decode())

    def _answer_error(self, client_id: str, number: int, error: ApplianceError) -> None:
        self._answer(
            client_id, protocol.Answer(number, error=str(error), kind=protocol.kind_of(error))
        )

    def _answer(self, client_id: str, answer: protocol.Answer) -> None:
        if answer.number:
            self._hand(reply_topic(client_id), protocol.encode(answer))


def _encoded(engine: Engine, operation: protocol.AnyOperation, by: str) -> msgspec.Raw:
    found = protocol.encode(carry_out(engine, operation, by))
    if len(found) > protocol.LARGEST_ANSWER:
        raise ApplianceError("The answer is too large for an attached terminal.")
    return msgspec.Raw(found)


def _who(message: Message) -> str:
    """The user and terminal, as the log and the engine name them."""
    name = message.username or NOBODY
    return f"{name} (terminal {message.client_id} at {message.address})"
