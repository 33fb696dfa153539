"""The terminal UI: the app that polls the engine up to ten times a second and shows what it got.

It runs in the main thread with its own loop; the engine has its own threads and never waits for
it. Not for: what a screen says (views/), what a key is called (keys.py).
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace
from rich.style import Style
from textual.app import App, SystemCommand
from textual.await_complete import AwaitComplete
from textual.events import Event, InputEvent, Key, Resize
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import WorkerFailed

from appliance.engine_api import Engine, Snapshot
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.ui import filters, keys, palette, payload
from appliance.ui.driver import PatientDriver
from appliance.ui.feed import LiveFeed
from appliance.ui.operator_actions import Acts
from appliance.ui.pace import FRAME_S, Pace
from appliance.ui.screens.live import LiveScreen
from appliance.ui.screens.page import Page
from appliance.ui.settings import Remembered, UiSettings, load, save, used
from appliance.ui.text import printable
from appliance.ui.views.frame import MIN_COLUMNS, MIN_ROWS

_COPY_BYTES = 100_000
"""Terminals drop longer clipboard sequences (OSC 52)."""

_WRITTEN_S = 0.01
"""Within this time the terminal's writer has written a frame, in seconds."""

_MAX_CRASHES = 3
_CRASHES_S = 60.0
"""The UI is given up after ``_MAX_CRASHES`` failures within so many seconds."""

_LOG = logging.getLogger(__name__)


class UiEnd(enum.StrEnum):
    """Why the UI ended."""

    QUIT = "quit"
    """The operator asked for the end of the appliance; ``engine.stop`` was called."""
    STOPPING = "stopping"
    """The engine is stopping by itself."""
    DETACHED = "detached"
    """The operator left; the engine runs elsewhere and was left alone."""
    HANGUP = "hangup"
    """The terminal is gone (a closed SSH session); the engine was left alone."""
    CRASHED = "crashed"
    """The UI failed again and again; the engine was left alone, the reason is in the log."""


class ApplianceApp(App[UiEnd]):
    """One operator's view of one engine."""

    CSS_PATH = "appliance.tcss"
    TITLE = "appliance"
    BINDINGS: ClassVar = keys.bindings(keys.EVERYWHERE)
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(
        self,
        engine: Engine,
        settings: UiSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        *,
        driver_class: Any = None,
        when_painted: Callable[[], object] | None = None,
    ) -> None:
        self._tones: dict[str, Style] = dict.fromkeys(palette.styles({}, ansi=True), Style())
        # With the terminal's own colours, Textual's NO_COLOR filter takes them all out; with RGB
        # it would leave shades of grey.
        plain = True if "NO_COLOR" in os.environ else None
        super().__init__(driver_class=driver_class, ansi_color=plain)
        self.engine = engine
        self.settings = settings if settings is not None else UiSettings()
        self.clock_ns = clock_ns
        self.remembered: Remembered = load(self.settings.remember)
        self.snapshot: Snapshot = engine.snapshot()
        self.acts = Acts(self)
        self.feed = LiveFeed(show_own=self.remembered.show_own)
        self._pace = Pace()
        self.frames = 0
        """Polls so far."""
        self._when_painted = when_painted
        self._curtain = ExitStack()
        """Keeps Textual from painting the screen before there is anything on it."""
        self._asked_quit = False
        self._cover: Screen[None] | None = None
        """What hides everything while the terminal is too small."""
        self._aims: deque[tuple[Key, Widget | None]] = deque(maxlen=128)
        self._pages: dict[str, Page] = {}
        self.trouble = ""
        """Why the engine's state could not be read at the last poll; empty if it could."""
        for theme in palette.THEMES:
            self.register_theme(theme)
        self._choose_theme()  # before the style sheet is read, or it would be read twice
        self.set_keymap({name: ",".join(chosen) for name, chosen in self.settings.keys.items()})

    # --- themes --------------------------------------------------------------------------------

    @property
    def tones(self) -> dict[str, Style]:
        """The style of every tone in the present theme; another object for another theme."""
        return self._tones

    def refresh_css(self, animate: bool = True) -> None:
        """Apply the theme; before there is a screen, its variables are all that it takes."""
        if self.screen_stack:
            super().refresh_css(animate)
        else:  # or the style sheet would be read twice before the first paint
            self.stylesheet.set_variables(self.get_css_variables())

    def _choose_theme(self) -> None:
        if self.no_color:
            self.theme = palette.NO_COLOR_THEME
            return
        for name in (self.settings.theme, self.remembered.theme, palette.DEFAULT):
            if name in self.available_themes:
                self.theme = name
                return

    def _theme_changed(self) -> None:
        ansi = self.current_theme.ansi or self.no_color
        self._tones = palette.styles(self.get_css_variables(), ansi=ansi)
        for screen in self.screen_stack:
            screen.refresh()

    # --- life ----------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self._theme_changed()
        self.theme_changed_signal.subscribe(self, lambda _theme: self._theme_changed())
        self._curtain.enter_context(self.batch_update())
        self.push_screen(self._page("live"))
        self._check_size(self.size)
        self.set_timer(FRAME_S, self._beat)
        wrong = keys.unknown(self.settings.keys)
        if wrong:
            known = ", ".join(key.name for key in keys.TABLE)
            self.say(f"[ui.keys] has no {', '.join(wrong)}; there are: {known}", bad=True)

    async def on_event(self, event: Event) -> None:
        """Bring keys that are typed fast to the line that an earlier one of them opened.

        Textual sends a key to the widget that has the focus when the key arrives. Of ``/hr`` typed
        at once (or pasted), ``h`` and ``r`` are on their way to the list while ``/`` is still
        being worked on; without this they would be taken for commands when they come back.
        """
        if isinstance(event, InputEvent) and not self.screen_stack:
            return  # the UI is ending: its screens have gone, keys and clicks still come
        if isinstance(event, Key):
            if not event.is_forwarded:
                self._aims.append((event, self.focused))
            elif self._passed_on(event):
                return
        await super().on_event(event)

    def _passed_on(self, event: Key) -> bool:
        focused = self.focused
        if not isinstance(focused, Input):
            return False
        aim = next((target for key, target in self._aims if key is event), focused)
        if aim is focused:
            return False
        focused._forward_event(Key(event.key, event.character))  # noqa: SLF001 - what Textual does itself
        return True

    def _beat(self) -> None:
        self._frame()
        self.feed.frame_s = self._pace.next_s(self.snapshot.rate_in)
        self.set_timer(self.feed.frame_s, self._beat)

    def _frame(self) -> None:
        """Poll the engine once and show what it said; never lets an error of it end the UI."""
        if not self.is_running:
            return
        self.frames += 1
        self._curtain.close()
        blind = caught_up = False
        driver = self._driver
        if isinstance(driver, PatientDriver):
            if self.frames % 5 == 0 and driver.hung_up:
                self.exit(UiEnd.HANGUP)
                return
            if driver.stale and driver.has_room:
                driver.stale = False
                caught_up = True
                self.refresh(layout=True)
            blind = driver.stale
        try:
            self.engine = self.engine.running()
            self.snapshot = self.engine.snapshot()
            changed = self.feed.poll(self.engine)
        except Exception as error:  # noqa: BLE001 - whatever the engine does wrong, the UI stays
            self._engine_trouble(error)
            return
        self.trouble = ""
        if self.snapshot.stopping:
            self.exit(UiEnd.QUIT if self._asked_quit else UiEnd.STOPPING)
            return
        if blind:  # nothing that is drawn now would ever be seen
            return
        live = self._pages["live"]
        if (changed or caught_up) and isinstance(live, LiveScreen) and live.is_current:
            live.feed_changed()
        self.show_now()

    def _engine_trouble(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self.trouble:
            self.trouble = text
            _LOG.error("the terminal UI could not read the engine's state: %s", text)
        self.show_now()

    def show_now(self) -> None:
        """Bring the uppermost page up to date."""
        page = self.page
        if page is not None and self.is_running:
            page.tick(self.snapshot, self.clock_ns())
            if page.has_shown:
                self._curtain.close()

    def post_display_hook(self) -> None:
        """Once something was painted: say so, a moment later, since what begins then takes time."""
        page = self.page
        if self._when_painted is not None and page is not None and page.has_shown:
            self.set_timer(_WRITTEN_S, self._when_painted)
            self._when_painted = None

    @property
    def page(self) -> Page | None:
        """The uppermost page; dialogs may lie over it."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Page):
                return screen
        return None

    def on_resize(self, event: Resize) -> None:
        """Watch the size of the terminal."""
        if self._pages:
            self._check_size(event.size)

    def _check_size(self, size: Size) -> None:
        """Cover everything while the terminal is too small, uncover it when it has grown."""
        columns, rows = size
        small = columns < MIN_COLUMNS or rows < MIN_ROWS
        if small and self._cover is None:
            from appliance.ui.screens.dialogs import TooSmall  # noqa: PLC0415 - see _new_page

            self._cover = TooSmall()
            self.push_screen(self._cover)
        elif self._cover is not None and not small and self.screen is self._cover:
            self._cover = None
            self.pop_screen()

    def _page(self, name: str) -> Page:
        """One of the screens, made when it is first asked for and kept."""
        if name not in self._pages:
            self._pages[name] = _new_page(name)
            self.install_screen(self._pages[name], name)
        return self._pages[name]

    # --- screens -------------------------------------------------------------------------------

    def pop_screen(self) -> AwaitComplete:
        """Take the uppermost screen away; one of the five always stays.

        Textual's own dialogs (the command palette) may ask for it more than once.
        """
        top = self.screen
        if isinstance(top, Page) and top.TAB_ROOT:
            return AwaitComplete()
        return super().pop_screen()

    def action_show(self, name: str) -> None:
        """Go to one of the screens, from wherever."""
        if self._cover is not None:
            return
        page = self._page(name)
        while len(self.screen_stack) > 1 and self.screen is not page:
            top = self.screen
            if isinstance(top, Page) and top.TAB_ROOT:
                break
            self.pop_screen()
        if self.screen is not page:
            self.switch_screen(name)

    def action_help(self) -> None:
        """Every key that holds here."""
        from appliance.ui.screens.dialogs import SIGNS, Tell, help_lines  # noqa: PLC0415 - see _new_page

        page = self.page
        places = page.PLACES if page is not None else ()
        lines = help_lines(places, self.settings.keys, min(self.size.width - 4, 116))
        if self.engine.is_remote:
            leaving = "Attached: quit leaves the appliance running; a command stops it."
            lines = [[(leaving, "info")], *lines]
        self.push_screen(Tell("Help", [*lines, *SIGNS]))

    async def action_back(self) -> None:
        """What Esc does on the present screen; dialogs have their own."""
        if isinstance(self.screen, Page):
            self.screen.go_back()

    def action_ask_quit(self) -> None:
        """Ask, then stop the whole appliance; from an attached terminal, leave at once."""
        if self.engine.is_remote:
            self.exit(UiEnd.DETACHED)
            return
        self._ask_stop()

    def _ask_stop(self) -> None:
        from appliance.ui.screens.dialogs import Ask  # noqa: PLC0415 - see _new_page

        if any(isinstance(screen, Ask) for screen in self.screen_stack):
            return
        self.push_screen(
            Ask("Stop the appliance? The broker stops too.", "Stop it", "Go on"), self._quit
        )

    def _quit(self, sure: bool | None) -> None:
        if sure:
            self._asked_quit = True
            self.say("Stopping: what was accepted is written first.")
            self.in_worker(lambda: self.engine.stop(self.acts.by), group="stop")

    def action_zoom(self) -> None:
        """The pane with the keys alone, or everything again."""
        if isinstance(self.screen, Page):
            self.screen.zoom()

    def action_toggle_zone(self) -> None:
        """UTC or local time, everywhere."""
        self.remember(utc=not self.remembered.utc)
        self.say("Times are in UTC." if self.remembered.utc else "Times are local.")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: everything in the table of keys that holds here, and the themes."""
        page = self.page
        places = (*(page.PLACES if page is not None else ()), keys.EVERYWHERE)
        for key in keys.of(*places):
            if key.where == keys.MOVE or key.name == "commands":
                continue
            shown = " ".join(keys.shown(one) for one in keys.keys_of(key, self.settings.keys))
            yield SystemCommand(
                f"{key.label[:1].upper()}{key.label[1:]}  [{shown}]".replace("[", r"\["),
                key.help,
                self._runner(key.action, screen),
            )
        if self.engine.is_remote:
            yield SystemCommand(
                "Stop the appliance",
                "the broker too (asks)",
                lambda: self.call_later(self._ask_stop),
            )
        if not self.no_color:
            for name in sorted(set(self.available_themes) - palette.HIDDEN):
                yield SystemCommand(f"Theme {name}", "colours", self._theme_setter(name))

    def _runner(self, action: str, screen: Screen[Any]) -> Callable[[], Any]:
        async def run_it() -> None:
            focused = screen.focused
            for place in (focused, screen, self):
                name = action.split("(", 1)[0]
                if place is not None and hasattr(place, f"action_{name}"):
                    await self.run_action(action, place)
                    return

        return lambda: self.call_later(run_it)

    def _theme_setter(self, name: str) -> Callable[[], None]:
        def choose() -> None:
            self.theme = name
            self.remember(theme=name)

        return choose

    # --- settings ------------------------------------------------------------------------------

    def remember(self, **changes: Any) -> None:
        """Change remembered settings and write them."""
        self.remembered = replace(self.remembered, **changes)
        save(self.settings.remember, self.remembered)
        self.show_now()

    def remember_filter(self, source: str) -> None:
        """Keep a filter that was confirmed for the next time."""
        self.remember(filters=used(self.remembered.filters, source))

    # --- what screens ask for ------------------------------------------------------------------

    def say(self, text: str, *, bad: bool = False) -> None:
        """A short notice; foreign text in it is made safe."""
        self.notify(
            printable(text), severity="error" if bad else "information", markup=False, timeout=4
        )

    def tell(self, title: str, text: str) -> None:
        """A text over the screen, until a key."""
        from appliance.ui.screens.dialogs import Tell, told  # noqa: PLC0415 - see _new_page

        self.push_screen(Tell(title, told(text)))

    def open_message(self, seq: int, tab: str) -> None:
        """Fetch a message from the journal and show it."""
        if not seq:
            self.say("No message caused this.")
            return

        def work() -> None:
            message = self.engine.message(seq)
            if message is None:
                self.from_worker(self.say, f"The journal has no message {seq} any more.")
            else:
                self.from_worker(self.show_message, message, (), tab)

        self.in_worker(work, group="message")

    def show_message(self, message: Message, others: Sequence[Message], tab: str = "live") -> None:
        """Show the whole of a message; ``others``: what "next" and "previous" lead to."""
        from appliance.ui.screens.message import MessageScreen  # noqa: PLC0415 - see _new_page

        self.push_screen(MessageScreen(message, others, tab))

    def show_live(self, wanted: filters.Filter) -> None:
        """Go to the Live screen with a filter."""
        self.action_show("live")
        self._pages["live"].use_filter(wanted)

    def export(self, what: str, items: Sequence[object]) -> None:
        """Write rows to a file in the data directory."""
        from appliance.ui import export  # noqa: PLC0415 - see _new_page

        folder = self.settings.exports or Path(self.snapshot.data_dir or ".") / "exports"

        def work() -> None:
            path = export.write(self.engine, what, items, folder, self.clock_ns())
            self.from_worker(self.say, f"{len(items)} {what} were written to {path}")

        self.in_worker(work, group="export")

    def copy(self, text: str, what: str) -> None:
        """Put text on the clipboard of the operator's terminal (OSC 52)."""
        if len(text.encode()) > _COPY_BYTES:
            self.say(f"{what} is too long for a terminal's clipboard; export it with e.", bad=True)
            return
        self.copy_to_clipboard(text)
        self.say(f"Copied {what}.")

    def copy_payload(self, message: Message) -> None:
        """Copy a payload: text as it is, binary data as hex."""
        text = payload.decode(message.payload, cut=False)
        self.copy(message.payload.hex() if text is None else text, "the payload")

    def in_worker(self, work: Callable[[], object], *, group: str) -> None:
        """Run what may wait in a thread; an ``ApplianceError`` of it becomes a notice."""

        def guarded() -> None:
            try:
                work()
            except ApplianceError as error:
                self.from_worker(self.say, str(error), bad=True)
            except Exception as error:  # noqa: BLE001 - an engine's fault must not end the UI
                _LOG.error("a request of the terminal UI failed: %r", error)
                self.from_worker(self.say, f"That failed: {error}", bad=True)

        self.run_worker(guarded, group=group, thread=True, exit_on_error=False)

    def from_worker(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call back in the UI's thread.

        Nothing happens after the end of the UI, or if the screen that waited has left since.
        """

        def call() -> object:
            owner = getattr(callback, "__self__", None)
            if isinstance(owner, Widget) and not owner.is_attached:
                return None
            return callback(*args, **kwargs)

        if self.is_running:
            self.call_later(call)

    # --- faults --------------------------------------------------------------------------------

    def _handle_exception(self, error: Exception) -> None:
        """Keep the UI when a worker of Textual's own fails.

        The command palette's worker looks for its list after the palette has left (Textual 8.2).
        The appliance's own workers end nothing either; see ``in_worker``.
        """
        if isinstance(error, WorkerFailed):
            _LOG.warning("a worker of the terminal UI failed: %s", error)
        else:
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Textual would print a traceback with the values of local variables: secrets, payloads."""
        error = self._exception
        place = ""
        trace = error.__traceback__ if error is not None else None
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
        _LOG.error("the terminal UI failed: %s at %s", type(error).__name__, place)
        self._close_messages_no_wait()


def run(
    engine: Engine,
    *,
    settings: UiSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    when_painted: Callable[[], object] | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> UiEnd:
    """Show the UI on this terminal until the operator quits or the engine stops.

    ``when_painted`` is called once the first frame is on its way to the terminal.

    Runs in the main thread. A failure of the UI leaves the engine alone: the UI is started again,
    unless it has failed three times within a minute. ``monotonic_s`` is the clock for that.
    """
    failed_s: deque[float] = deque(maxlen=_MAX_CRASHES)
    while len(failed_s) < _MAX_CRASHES or failed_s[-1] - failed_s[0] > _CRASHES_S:
        app = ApplianceApp(
            engine.running(),
            settings,
            clock_ns,
            driver_class=PatientDriver,
            when_painted=when_painted,
        )
        with _hangup_ends(app):
            end = app.run()
        if end is not None:
            return end
        if engine.snapshot().stopping:
            return UiEnd.STOPPING
        failed_s.append(monotonic_s())
    return UiEnd.CRASHED


def _new_page(name: str) -> Page:
    """A screen by its name; most are imported when first shown, so the first one comes sooner."""
    if name == "topics":
        from appliance.ui.screens.topics import TopicsScreen  # noqa: PLC0415 - see the docstring

        return TopicsScreen()
    if name == "tasks":
        from appliance.ui.screens.tasks import TasksScreen  # noqa: PLC0415 - see the docstring

        return TasksScreen()
    if name == "clients":
        from appliance.ui.screens.clients import ClientsScreen  # noqa: PLC0415 - see the docstring

        return ClientsScreen()
    if name == "log":
        from appliance.ui.screens.log import LogScreen  # noqa: PLC0415 - see the docstring

        return LogScreen()
    return LiveScreen()


@contextmanager
def _hangup_ends(app: ApplianceApp) -> Iterator[None]:
    """SIGHUP ends the UI, not the process; afterwards it is ignored if it came."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def handle(_number: int, _frame: object) -> None:
        nonlocal came
        came = True
        app.call_later(app.exit, UiEnd.HANGUP)

    before = signal.signal(hangup, handle)
    try:
        yield
    finally:
        signal.signal(hangup, signal.SIG_IGN if came else before)


__all__ = ["ApplianceApp", "UiEnd", "UiSettings", "run"]
