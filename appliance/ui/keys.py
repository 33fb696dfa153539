"""The one table of keys: bindings, footer, help, command palette and configuration come from it.

Not for: doing an action; that is a method ``action_<name>`` of the page, the list or the app.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from textual.binding import Binding, BindingType

# The scopes, by their titles in the help.
EVERYWHERE = "Everywhere"
MOVE = "Moving"
LISTS = "Lists"
FOLLOW = "Live and log"
OWN = "Own messages"
ACTING = "Acting"
REPEAT = "Repeating"
SORTED = "Sorting"
CONFIGURED = "As configuration"
WHY = "Why"
EXPLANATION = "Explanation"
RUNS = "Runs"
LIVE = "Live"
DETAIL = "Message"
TOPICS = "Topics"
TASKS = "Tasks"
TIMERS = "Timers and waits"
PROBLEMS = "What is wrong"
EXECUTION = "Execution"
CLIENTS = "Clients"
BRIDGES = "Bridges"
BRIDGE = "Bridge"
LOG = "Log"
SERVER_TASKS = "Tasks of the server"
FRESHNESS = "Freshness"

SERVER_TASK = "Task of the server"
SEARCH = "Search"
VALUES = "Values"


_MAX_SAID = 5


class Key(NamedTuple):
    """An action, its keys, and the scope in which they work."""

    name: str
    """The name in ``[ui.keys]``."""
    action: str
    keys: str
    """Textual's key names, separated by commas; the first is the one that is shown."""
    label: str
    """A word or two for the footer."""
    help: str
    """For the help; neighbours in the table with the same text share a row there."""
    scope: str
    """Where the key works; a page names its scopes."""
    footer: bool = False


TABLE = (
    Key("live", "show('live')", "1", "live", "the screens", EVERYWHERE),
    Key("topics", "show('topics')", "2", "topics", "the screens", EVERYWHERE),
    Key("tasks", "show('tasks')", "3", "tasks", "the screens", EVERYWHERE),
    Key("clients", "show('clients')", "4", "clients", "the screens", EVERYWHERE),
    Key("log", "show('log')", "5", "log", "the screens", EVERYWHERE),
    Key(
        "server_tasks",
        "show('server_tasks')",
        "6",
        "tasks of the server",
        "the screens",
        EVERYWHERE,
    ),
    Key("freshness", "show('freshness')", "7", "freshness", "the screens", EVERYWHERE),
    Key("values", "show('values')", "8", "values", "the screens", EVERYWHERE),
    Key(
        "help",
        "help",
        "question_mark,f1",
        "help",
        "this help",
        EVERYWHERE,
        footer=True,
    ),
    Key(
        "problems",
        "problems",
        "exclamation_mark",
        "what is wrong",
        "all that is wrong",
        EVERYWHERE,
    ),
    Key("hold", "hold", "H", "hold", "hold starts, release", EVERYWHERE),
    Key("back", "back", "escape", "back", "back; clears a filter", EVERYWHERE),
    Key("commands", "command_palette", "ctrl+p", "commands", "every command", EVERYWHERE),
    Key("zoom", "zoom", "z", "zoom", "only the focused pane", EVERYWHERE),
    Key("zone", "toggle_zone", "U", "UTC/local", "UTC or local time", EVERYWHERE),
    Key("quit", "ask_quit", "q,ctrl+c", "quit", "stop it all (asks)", EVERYWHERE, footer=True),
    Key("up", "up", "up,k", "up", "row up, down", MOVE),
    Key("down", "down", "down,j", "down", "row up, down", MOVE),
    Key("page_up", "page_up", "pageup", "page up", "page up, down", MOVE),
    Key("page_down", "page_down", "pagedown", "page down", "page up, down", MOVE),
    Key("first", "first", "home,g", "first", "first row", MOVE),
    Key("last", "last", "end,G", "last", "last row, and follow", MOVE),
    Key("open", "open", "enter", "detail", "detail of the row", LISTS, footer=True),
    Key("filter", "filter", "slash", "filter", "filter the rows", LISTS, footer=True),
    Key("copy", "copy", "c", "copy", "copy payload, text or id", LISTS, footer=True),
    Key("copy_topic", "copy_topic", "C", "copy topic", "copy topic or address", LISTS),
    Key("export", "export", "e", "export", "export the rows", LISTS),
    Key("pause", "pause", "space,p", "pause", "freeze the view, go on", FOLLOW, footer=True),
    Key("age", "toggle_age", "T", "clock/age", "clock or age", LIVE),
    Key("search", "search", "b", "journal", "search the journal", LIVE, footer=True),
    Key("jump", "jump", "J", "jump to a time", "the journal at a time", LIVE),
    Key("own", "toggle_own", "o", "own", "what the appliance says", OWN),
    Key("run_task", "run_task", "t", "run task", "start a task", ACTING, footer=True),
    Key("publish", "publish", "n", "new message", "publish a message", ACTING),
    Key("repeat", "repeat", "r", "repeat", "do it again; its client", REPEAT),
    Key(
        "copy_block",
        "copy_block",
        "y",
        "copy config",
        "copy as configuration",
        CONFIGURED,
    ),
    Key("explain", "explain", "E", "explain", "why it starts, or not", WHY),
    Key("copy_explanation", "copy", "c", "copy", "copy all of it", EXPLANATION, footer=True),
    Key("its_client", "client", "i", "its client", "do it again; its client", REPEAT),
    Key("its_execution", "execution", "enter", "execution", "what it started", DETAIL, footer=True),
    Key("pretty", "pretty", "p", "pretty/raw", "pretty or raw", DETAIL, footer=True),
    Key("hex", "hex", "x", "hex", "bytes in hex", DETAIL, footer=True),
    Key("difference", "difference", "d", "diff", "against the one before", DETAIL, footer=True),
    Key("wrap", "wrap", "w", "wrap", "wrap or cut long lines", DETAIL),
    Key("end_wait", "fire_timer", "f", "do it now", "end the wait: do it now", DETAIL),
    Key("previous", "previous", "left,h", "previous", "message before, after", DETAIL),
    Key("next", "next", "right,l", "next", "message before, after", DETAIL),
    Key("copy_payload", "copy", "c", "copy", "copy the payload", DETAIL, footer=True),
    Key("copy_its_topic", "copy_topic", "C", "copy topic", "copy the topic", DETAIL),
    Key("topic_values", "values", "v", "values", "plot its numbers", TOPICS, footer=True),
    Key("row_values", "values", "v", "values", "plot its topic's numbers", LIVE),
    Key("its_values", "values", "v", "values", "plot its topic's numbers", DETAIL),
    Key("fold", "fold", "left,h", "fold", "fold, unfold", TOPICS),
    Key("unfold", "unfold", "right,l", "unfold", "fold, unfold", TOPICS, footer=True),
    Key("open_all", "open_all", "o", "open all", "open, close all", TOPICS),
    Key("close_all", "close_all", "O", "close all", "open, close all", TOPICS),
    Key("sort", "sort", "s", "sort", "sort by another column", SORTED, footer=True),
    Key("clear_retained", "clear_retained", "delete", "clear", "clear retained", TOPICS),
    Key("stop_run", "stop_run", "x", "stop run", "stop the run (asks)", RUNS, footer=True),
    Key("older", "older", "b", "older", "older executions", TASKS),
    Key("explain_task", "explain", "E", "why", "what starts it, why not", SERVER_TASKS),
    Key("its_runs", "open", "enter", "executions", "its executions", SERVER_TASK, footer=True),
    Key("copy_its_id", "copy", "c", "copy", "copy its id", SERVER_TASK, footer=True),
    Key("tree", "tree", "T", "tree", "chains as a tree, or a list", SERVER_TASKS, footer=True),
    Key("oldest", "message", "m", "message", "the message that waits", FRESHNESS, footer=True),
    Key("every", "every", "v", "schedule", "against a schedule", FRESHNESS, footer=True),
    Key("pause_timer", "pause_timer", "space,p", "pause", "pause, go on", TIMERS),
    Key("fire_timer", "fire_timer", "f", "do it now", "end the wait: do it now", TIMERS),
    Key("message", "message", "m", "message", "its message", RUNS, footer=True),
    Key("copy_run", "copy", "c", "copy", "copy reason and log", EXECUTION, footer=True),
    Key(
        "disconnect", "disconnect", "x", "disconnect", "disconnect it (asks)", CLIENTS, footer=True
    ),
    Key(
        "end_session",
        "end_session",
        "X",
        "end session",
        "end its session (asks)",
        CLIENTS,
        footer=True,
    ),
    Key(
        "connect_bridge",
        "connect_bridge",
        "f",
        "connect now",
        "connect now, do not wait",
        BRIDGES,
        footer=True,
    ),
    Key("its_messages", "open", "enter", "messages", "what it brought in", BRIDGE, footer=True),
    Key("copy_error", "copy", "c", "copy", "copy its last error", BRIDGE, footer=True),
    Key("further", "further", "b", "further back", "search further back", SEARCH, footer=True),
    Key(
        "acknowledge_problem",
        "acknowledge_problem",
        "a",
        "acknowledge",
        "it is known; take that back",
        PROBLEMS,
        footer=True,
    ),
    Key("plotted", "open", "enter,space", "plot", "plot it, or no longer", VALUES, footer=True),
    Key("shorter", "shorter", "left,h", "shorter", "a shorter, longer time", VALUES, footer=True),
    Key("longer", "longer", "right,l", "longer", "a shorter, longer time", VALUES, footer=True),
    Key("scales", "scales", "s", "scale", "one scale, or each its own", VALUES, footer=True),
    Key("values_messages", "messages", "m", "messages", "its messages", VALUES, footer=True),
    Key("copy_value", "copy", "c", "copy", "copy the last value", VALUES),
    Key("copy_values_topic", "copy_topic", "C", "copy topic", "copy the topic", VALUES),
    Key("export_values", "export", "e", "export", "export the rows", VALUES),
    Key("level", "level", "l", "level", "debug, info, warning, error", LOG, footer=True),
)


def of(*scopes: str) -> list[Key]:
    """The keys of some scopes, scope after scope, each in the order of the table."""
    return [key for scope in dict.fromkeys(scopes) for key in TABLE if key.scope == scope]


def bindings(*scopes: str, without: str = "") -> list[BindingType]:
    """Textual's bindings of some scopes; the id is the name in ``[ui.keys]``."""
    return [
        Binding(key.keys, key.action, key.help, show=False, id=key.name)
        for key in of(*scopes)
        if key.scope != without
    ]


_SHOWN = {
    "question_mark": "?",
    "exclamation_mark": "!",
    "slash": "/",
    "escape": "Esc",
    "enter": "⏎",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "space": "space",
    "delete": "del",
}


def shown(key: str) -> str:
    """The key as it is shown: ``?``, ``^p``, ``F1``."""
    if key.startswith("ctrl+"):
        return "^" + key.removeprefix("ctrl+")
    if len(key) > 1 and key[0] == "f" and key[1:].isdigit():
        return key.upper()
    return _SHOWN.get(key, key)


def keys_of(key: Key, chosen: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The keys of the action: from the configuration, else from the table."""
    return chosen.get(key.name) or tuple(key.keys.split(","))


def shown_for(name: str, chosen: Mapping[str, tuple[str, ...]]) -> str:
    """The first key of an action, as it is shown; ``name`` is the one in ``[ui.keys]``."""
    key = next(key for key in TABLE if key.name == name)
    return shown(keys_of(key, chosen)[0])


def unknown(chosen: Iterable[str]) -> list[str]:
    """Names that the table does not have."""
    known = {key.name for key in TABLE}
    return [name for name in chosen if name not in known]


def advice(wrong: Sequence[str]) -> str:
    """The unknown names, each with the one that may be meant, for a note on the screen."""
    known = [key.name for key in TABLE]
    said = []
    for name in wrong[:_MAX_SAID]:
        near = get_close_matches(name, known, n=1)
        said.append(f"{name} (did you mean {near[0]}?)" if near else name)
    more = f" and {len(wrong) - _MAX_SAID} more" if len(wrong) > _MAX_SAID else ""
    return f"{', '.join(said)}{more}; docs/operating.md lists the names."
