"""The terminal UI: the app that polls the engine up to ten times a second and shows the answer.

The app runs in the main thread with its own loop. The engine has threads of its own and never waits
for the app. Not for: the content of a page (views/), the names of keys (keys.py), the way from one
page to another (navigator.py).
"""

from __future__ import annotations

import enum
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace
from rich.style import Style
from textual.app import App, SystemCommand
from textual.await_complete import AwaitComplete
from textual.command import Provider
from textual.events import Event, InputEvent, Key, Resize
from textual.screen import Screen
from textual.worker import WorkerFailed

from appliance.engine_api import Engine, Snapshot
from appliance.model import Message
from appliance.problems import losses_in
from appliance.ui import formats, keys, payload, themes
from appliance.ui.background import Background
from appliance.ui.frame_rate import FRAME_S, FrameRate
from appliance.ui.hold_targets import EVERYTHING
from appliance.ui.live_feed import LiveFeed
from appliance.ui.navigator import Navigator
from appliance.ui.noted import Noted
from appliance.ui.screens.operator_actions import OperatorActions
from appliance.ui.screens.page import Page
from appliance.ui.settings import Remembered, UiSettings, load, save, used
from appliance.ui.terminal_driver import NonBlockingDriver
from appliance.ui.text import for_clipboard, printable, use_console_font
from appliance.ui.type_ahead import TypeAhead
from appliance.ui.views.page_frame import WIDE

_COPY_BYTES = 100_000
"""Terminals drop longer clipboard sequences (OSC 52)."""

_WRITTEN_S = 0.01
"""Within this time the terminal's writer has written a frame, in seconds."""

_PLACES = 8
"""Places in the program on the way to a failure that the log names."""

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


def _things() -> type[Provider]:
    """What the palette finds beside commands; imported when it is first opened."""
    from appliance.ui.palette import Things  # noqa: PLC0415 - the first page comes sooner

    return Things


class ApplianceApp(App[UiEnd]):
    """One operator's view of one engine."""

    CSS_PATH = "appliance.tcss"
    TITLE = "appliance"
    BINDINGS: ClassVar = keys.bindings(keys.EVERYWHERE)
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = App.COMMANDS | {_things}
    ALLOW_SELECT = False
    """No selection of Textual's, which fails on a widget that is being taken away; a terminal
    selects with shift or option held down."""
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(
        self,
        engine: Engine,
        settings: UiSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        *,
        driver_class: Any = None,
        when_painted: Callable[[], object] | None = None,
        greeting: str = "",
    ) -> None:
        """``greeting``: a notice at the start, for example that the UI has failed."""
        self._tones: dict[str, Style] = dict.fromkeys(themes.styles({}, no_color=True), Style())
        # With the terminal's own colours, Textual's NO_COLOR filter takes them all out; with RGB
        # it would leave shades of grey.
        plain = True if "NO_COLOR" in os.environ else None
        super().__init__(driver_class=driver_class, ansi_color=plain)
        self.engine = engine
        self.settings = settings if settings is not None else UiSettings()
        self.clock_ns = clock_ns
        self.remembered: Remembered = load(self.settings.remember)
        self.snapshot: Snapshot = engine.snapshot()
        self.background = Background(self, self.say)
        self.actions = OperatorActions(self)
        self.navigation = Navigator(self, self)
        self.feed = LiveFeed(show_own=self.remembered.show_own)
        self.noted = Noted()
        self._frame_rate = FrameRate()
        self.frames = 0
        """Polls so far."""
        self._when_painted = when_painted
        self._unpainted = ExitStack()
        """Keeps Textual from painting a screen that is still empty."""
        self._greeting = greeting
        self._asked_quit = False
        self._type_ahead = TypeAhead()
        self.trouble = ""
        """Why the last poll failed; empty if it did not."""
        for theme in themes.THEMES:
            self.register_theme(theme)
        use_console_font(on=os.environ.get("TERM") == "linux")
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
            self.theme = themes.NO_COLOR_THEME
            return
        few = self.console.color_system in themes.FEW_COLORS
        # A remembered theme may have been chosen in a terminal of more colours.
        usual = themes.SIXTEEN.name if few else self.remembered.theme
        for name in (self.settings.theme, usual, themes.DEFAULT):
            if name in self.available_themes:
                self.theme = name
                return

    def _theme_changed(self) -> None:
        self._tones = themes.styles(
            self.get_css_variables(), ansi=self.current_theme.ansi, no_color=self.no_color
        )
        for screen in self.screen_stack:
            screen.refresh()

    # --- life ----------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self._theme_changed()
        self.theme_changed_signal.subscribe(self, lambda _theme: self._theme_changed())
        self._unpainted.enter_context(self.batch_update())
        self.navigation.start()
        self.set_timer(FRAME_S, self._beat)
        if self._greeting:
            self.say(self._greeting, bad=True)
        wrong = keys.unknown(self.settings.keys)
        if wrong:
            self.say(f"[ui.keys] has no {keys.advice(wrong)}", bad=True)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent) and not (self.is_running and self.screen_stack):
            return  # the UI is ending: its screens go, keys and clicks still come
        if isinstance(event, Key) and self._type_ahead.was_redirected(event, self.focused):
            return
        await super().on_event(event)

    def _beat(self) -> None:
        self._frame()
        self.feed.frame_s = self._frame_rate.next_s(self.snapshot.rate_in)
        self.set_timer(self.feed.frame_s, self._beat)

    def _frame(self) -> None:
        """Poll the engine once and show the answer; an error of the engine never ends the UI."""
        if not self.is_running:
            return
        self.frames += 1
        self._unpainted.close()
        blind = caught_up = False
        driver = self._driver
        if isinstance(driver, NonBlockingDriver):
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
            self.noted.see(self.snapshot.counters, self.clock_ns())
        except Exception as error:  # noqa: BLE001 - no fault of the engine ends the UI
            self._engine_trouble(error)
            return
        self.trouble = ""
        if self.snapshot.stopping:
            self.exit(UiEnd.QUIT if self._asked_quit else UiEnd.STOPPING)
            return
        if blind:  # the terminal would not get the frame
            return
        self.navigation.fit(self.size)  # a dialog may have lain over the cover as it was to go
        if changed or caught_up:
            self.navigation.feed_changed()
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
                self._unpainted.close()

    def post_display_hook(self) -> None:
        """Call ``when_painted`` a moment after the first paint, since it takes processor time."""
        page = self.page
        if self._when_painted is not None and page is not None and page.has_shown:
            self.set_timer(_WRITTEN_S, self._when_painted)
            self._when_painted = None

    @property
    def page(self) -> Page | None:
        """The uppermost page; dialogs may lie over it."""
        return self.navigation.page

    def on_resize(self, event: Resize) -> None:
        self.navigation.fit(event.size)

    # --- screens -------------------------------------------------------------------------------

    def pop_screen(self) -> AwaitComplete:
        """Take the uppermost screen away, unless it is a tab.

        Textual's own dialogs (the command palette) may ask for it more than once.
        """
        return AwaitComplete() if self.navigation.is_on_tab else super().pop_screen()

    def action_show(self, name: str) -> None:
        """Go to a tab."""
        self.navigation.show(name)

    def action_help(self) -> None:
        """Show every key that works here."""
        from appliance.ui.screens import help_dialog  # noqa: PLC0415 - see show_info
        from appliance.ui.views import key_help  # noqa: PLC0415 - see show_info

        page = self.page
        if page is None:
            return
        wide = self.size.width >= WIDE
        cells = help_dialog.WIDE_CELLS if wide else help_dialog.CELLS
        lines = key_help.lines(page.SCOPES, self.settings.keys, page.FILTER_WORDS, cells)
        if self.engine.is_remote:
            leaving = "Attached: quit leaves the appliance running; a command stops it."
            lines = [[(leaving, "info")], *lines]
        self.push_screen(help_dialog.HelpDialog(lines, self.settings.keys))

    def action_problems(self) -> None:
        """Show what is wrong and what was noted."""
        if isinstance(self.screen, Page):
            self.navigation.show_problems()

    def _hold_everything(self) -> None:
        self.actions.hold((EVERYTHING,), self.snapshot.holds)

    def action_hold(self) -> None:
        """Hold what the row that keys act on is about, or everything; or release it."""
        if isinstance(self.screen, Page):
            targets = (*self.screen.hold_targets(), EVERYTHING)
            self.actions.hold(targets, self.snapshot.holds)

    async def action_back(self) -> None:
        """What Esc does on the present screen; dialogs have their own."""
        if isinstance(self.screen, Page):
            self.screen.go_back()

    def action_command_palette(self) -> None:
        """Open the palette, without the id that Textual gives it.

        A palette that was left a moment ago still has that id, and a second one ends the UI.
        """
        from appliance.ui.screens.palette import Palette  # noqa: PLC0415 - see show_info

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette())

    def action_ask_quit(self) -> None:
        """Ask, then stop the whole appliance; from an attached terminal, leave at once."""
        if self.engine.is_remote:
            self.exit(UiEnd.DETACHED)
            return
        self._ask_stop()

    def _ask_stop(self) -> None:
        from appliance.ui.screens.dialogs import ConfirmDialog  # noqa: PLC0415 - see show_info

        if any(isinstance(screen, ConfirmDialog) for screen in self.screen_stack):
            return
        self.push_screen(
            ConfirmDialog("Stop the appliance? The broker stops too.", "Stop it", "Go on"),
            self._quit,
        )

    def _quit(self, sure: bool | None) -> None:
        if sure:
            self._asked_quit = True
            self.say("Stopping: what was accepted is written first.")
            self.background.run(lambda: self.engine.stop(self.actions.by), group="stop")

    def action_zoom(self) -> None:
        """Give the whole page to the focused pane, or show everything again."""
        if isinstance(self.screen, Page):
            self.screen.zoom()

    def action_toggle_zone(self) -> None:
        """UTC or local time, everywhere."""
        self.remember(utc=not self.remembered.utc)
        self.say("Times are in UTC." if self.remembered.utc else "Times are local.")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The entries of the command palette: every action that has a key here, and the themes."""
        page = self.page
        scopes = (*(page.SCOPES if page is not None else ()), keys.EVERYWHERE)
        for key in keys.of(*scopes):
            if key.scope == keys.MOVE or key.name == "commands":
                continue
            shown = " ".join(keys.shown(one) for one in keys.keys_of(key, self.settings.keys))
            yield SystemCommand(
                f"{key.label[:1].upper()}{key.label[1:]}  [{shown}]".replace("[", r"\["),
                key.help,
                partial(self.call_later, self._run_action_of, key, screen),
            )
        losses = " ".join(losses_in(self.engine.snapshot()))
        if losses:
            yield SystemCommand(
                "Acknowledge losses",
                "what a start or a bridge found lost (asks)",
                partial(self.call_later, self.actions.acknowledge, losses),
            )
        yield SystemCommand(
            "Hold everything",
            "for a maintenance window: no task is started (asks)",
            partial(self.call_later, self._hold_everything),
        )
        if self.engine.is_remote:
            yield SystemCommand(
                "Stop the appliance",
                "the broker too (asks)",
                partial(self.call_later, self._ask_stop),
            )
        if not self.no_color:
            for name in sorted(set(self.available_themes) - themes.HIDDEN):
                yield SystemCommand(f"Theme {name}", "colours", partial(self._set_theme, name))

    def press(self, key: keys.Key) -> None:
        """Do what the key would do: on the widget with the focus, the page or the app."""
        self.call_later(self._run_action_of, key, self.screen)

    async def _run_action_of(self, key: keys.Key, screen: Screen[Any]) -> None:
        """Do what the key would do: on the widget with the focus, the screen or the app."""
        method = "action_" + key.action.partition("(")[0]
        for node in (screen.focused, screen, self):
            if node is not None and hasattr(node, method):
                await self.run_action(key.action, node)
                return

    def _set_theme(self, name: str) -> None:
        self.theme = name
        self.remember(theme=name)

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

    def show_info(self, title: str, text: str) -> None:
        """Show a text over the page until a key is pressed."""
        from appliance.ui.screens.dialogs import InfoDialog, text_lines  # noqa: PLC0415 - imported late: the first page comes sooner

        self.push_screen(InfoDialog(title, text_lines(text)))

    def export(self, what: str, items: Sequence[object]) -> None:
        """Write rows to a file in the data directory."""
        if self.settings.in_browser:
            self.say(
                "A browser gets no files. In a terminal, appliance export writes them.", bad=True
            )
            return
        from appliance.ui import export  # noqa: PLC0415 - see show_info

        folder = self.settings.exports or Path(self.snapshot.data_dir or ".") / "exports"

        def work() -> None:
            path = export.write(self.engine, what, items, folder, self.clock_ns())
            self.background.call(
                self.say, f"{formats.counted(len(items), what.removesuffix('s'))} written to {path}"
            )

        self.background.run(work, group="export")

    def copy(self, text: str, what: str) -> None:
        """Put text on the clipboard of the operator's terminal (OSC 52)."""
        if len(text.encode()) > _COPY_BYTES:
            self.say(f"{what} is too long for a terminal's clipboard; export it with e.", bad=True)
            return
        self.copy_to_clipboard(for_clipboard(text))
        self.say(f"Copied {what}.")

    def copy_payload(self, message: Message) -> None:
        """Copy a payload: text as it is, binary data as hex."""
        text = payload.decode(message.payload, cut=False)
        self.copy(message.payload.hex() if text is None else text, "the payload")

    # --- faults --------------------------------------------------------------------------------

    def _handle_exception(self, error: Exception) -> None:
        """Keep the UI when a worker of Textual's own fails.

        The command palette's worker looks for its list after the palette has left (Textual 8.2).
        The appliance's own workers end nothing either; see background.py.
        """
        if isinstance(error, WorkerFailed):
            _LOG.warning("a worker of the terminal UI failed: %s", error)
        else:
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Log the way to a failure. Textual would print the values of local variables."""
        error = self._exception
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__ if error is not None else None)
        ]
        way = " > ".join(places[-_PLACES:])
        _LOG.error("the terminal UI failed: %s at %s", type(error).__name__, way)
        self._close_messages_no_wait()
