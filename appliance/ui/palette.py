"""What the command palette finds beside commands: tasks, timers, topics, clients, sessions.

The lists are taken once, when the palette opens, in a worker; a search looks for the typed words in
any order. Choosing a find goes to it. Not for: commands (``ApplianceApp.get_system_commands``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import nsmallest
from typing import NamedTuple, cast

from textual.command import Hit, Hits, Provider
from textual.content import Content

from appliance.errors import ApplianceError
from appliance.model import Task
from appliance.problems import Place
from appliance.ui.screens.page_host import PageHost
from appliance.ui.text import cut, printable

_TOPICS = 20_000
_CLIENTS = 20_000
PER_KIND = 8
"""Finds of one kind that are shown; another letter narrows them."""

_NAME_CELLS = 80
_SLICE = 2000
"""Entries that are looked at before other events get their turn."""


class Thing(NamedTuple):
    """Something that the palette can go to."""

    kind: str
    name: str
    """Foreign text, as it is."""
    more: str
    """What else it is found by, and what stands below the name."""
    folded: str
    """What is searched, in lower case."""
    go: Callable[[], None]


class Things(Provider):
    """Finds things by any of their words."""

    @property
    def _host(self) -> PageHost:
        return cast("PageHost", self.app)

    def _to(self, kind: str, name: str) -> Callable[[], None]:
        return partial(self._host.navigation.go_to, Place(kind, name))

    async def startup(self) -> None:
        """Take the lists: what may wait, in a thread."""
        self._things: list[Thing] = [*self._at_once(), *self._tasks(())]
        self._things += await asyncio.to_thread(lambda: list(self._topics()))
        # The server may be slow or away; what else is there can be found meanwhile.
        self._asking = asyncio.create_task(self._ask_for_tasks())

    async def shutdown(self) -> None:
        """The palette has left."""
        self._asking.cancel()

    async def _ask_for_tasks(self) -> None:
        with contextlib.suppress(ApplianceError):  # then those that ran are found
            tasks = await asyncio.to_thread(self._host.engine.tasks)
            others = [one for one in self._things if one.kind != "task"]
            self._things = [*others, *self._tasks(tasks)]

    def _at_once(self) -> Iterator[Thing]:
        host = self._host
        for timer in host.snapshot.timers:
            yield _thing(
                "timer",
                timer.name,
                timer.detail,
                self._to("timer", timer.name),
            )
        for bridge in host.snapshot.bridges:
            yield _thing(
                "bridge",
                bridge.name,
                bridge.address,
                self._to("bridge", bridge.name),
            )
        for client in host.engine.clients()[:_CLIENTS]:
            kind = "client" if client.connected else "session"
            user = f"user {client.username}" if client.username else ""
            yield _thing(
                kind,
                client.client_id,
                " ".join(part for part in (client.address, user) if part),
                self._to("client", client.client_id),
            )

    def _topics(self) -> Iterator[Thing]:
        host = self._host
        with contextlib.suppress(ApplianceError):  # an engine that does not count them
            for one in host.engine.topics(_TOPICS):
                yield _thing(
                    "topic",
                    one.topic,
                    "",
                    self._to("topic", one.topic),
                )

    def _tasks(self, tasks: Sequence[Task]) -> Iterator[Thing]:
        host = self._host
        known = {task.id: task.name for task in tasks}
        for run in host.snapshot.executions:
            if run.task_id:
                known.setdefault(run.task_id, run.task_name)
        often = Counter(known.values())
        for task_id, name in known.items():
            alone = name if often[name] == 1 else ""
            go = partial(host.navigation.show_task, task_id, alone)
            yield _thing("task", name or task_id, task_id, go)

    async def search(self, query: str) -> Hits:
        """The best finds of each kind."""
        words = query.casefold().split()
        if not words:
            return
        found: dict[str, list[tuple[int, int, int, Thing]]] = {}
        for number, thing in enumerate(self._things):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            text = thing.folded
            if all(word in text for word in words):
                at = thing.name.casefold().find(words[0])
                rank = (at if at >= 0 else 1000, len(thing.name), number, thing)
                found.setdefault(thing.kind, []).append(rank)
        for ranked in found.values():
            for place, (*_, thing) in enumerate(nsmallest(PER_KIND, ranked)):
                go = partial(self.app.call_later, thing.go)  # when the palette has left
                yield _hit(thing, words, place, go)


def _thing(kind: str, name: str, more: str, go: Callable[[], None]) -> Thing:
    return Thing(kind, name, more, f"{kind} {name} {more}".casefold(), go)


def _hit(thing: Thing, words: Sequence[str], place: int, go: Callable[[], object]) -> Hit:
    """A find as the palette shows it; foreign text has no markup."""
    name = cut(printable(thing.name), _NAME_CELLS)
    shown = Content(f"{thing.kind} {name}")
    folded = shown.plain.casefold()
    if len(folded) == len(shown.plain):  # some letters become two
        for word in words:
            if (at := folded.find(word)) >= 0:
                shown = shown.stylize("underline", at, at + len(word))
    more = cut(printable(thing.more), _NAME_CELLS).replace("[", r"\[")
    return Hit(0.5 - place / 100, shown, go, text=f"{thing.kind} {name}", help=more or None)
