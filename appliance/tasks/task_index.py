"""The tasks of a list that a selector means, found without going through the whole list.

Upper and lower case differ. What matches exactly goes before what matches but for blanks around it.

Not for: where the list comes from, or whether a task may be started (catalog.py).
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from appliance.model import ReloadOptions, Task, TaskKind
from appliance.tasks.invisible import bare
from appliance.tasks.payloads import Rejection
from appliance.tasks.selector import Kind, TaskSelector

PLAIN = ReloadOptions()
Text = str | tuple[str, str]


class TaskIndex:
    """A list of tasks, each id once, that finds as ``find`` does in time that no length bounds.

    Thread-safe: what a kind of selector needs is made when one is looked for, and made twice it is
    the same.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.by_id: Mapping[str, Task] = {task.id: task for task in tasks}
        self.tasks: Sequence[Task] = tuple(self.by_id.values())
        self._texts: dict[tuple[Kind, bool], Mapping[Text, Sequence[Task]]] = {}
        """By the kind, and whether blanks around the texts are left out."""

    def find(self, selector: TaskSelector, reload: ReloadOptions = PLAIN) -> list[Task]:
        """The tasks that a selector means, in the list's order."""
        kind, wanted = selector.kind, wanted_text(selector)
        some = self._by_text(kind).get(wanted)
        if not some:
            some = self._by_text(kind, is_folded=True).get(folded(wanted), ())
        return find(selector, some, reload)

    def _by_text(self, kind: Kind, *, is_folded: bool = False) -> Mapping[Text, Sequence[Task]]:
        known = self._texts.get((kind, is_folded))
        if known is None:
            made: dict[Text, list[Task]] = defaultdict(list)
            for task in self.tasks:
                texts = texts_of(kind, task)
                for text in dict.fromkeys(map(folded, texts) if is_folded else texts):
                    made[text].append(task)
            known = self._texts[kind, is_folded] = dict(made)
        return known


def close_name(text: str, names: Iterable[str]) -> str:
    """The name that is closest to a text, an empty string if none is close."""
    close = difflib.get_close_matches(text, names, n=1)
    return close[0] if close else ""


def texts_of(kind: Kind, task: Task) -> tuple[Text, ...]:
    """What a selector of this kind is compared with."""
    match kind:
        case "id":
            return (task.id,)
        case "name":
            return (task.name,)
        case "tag":
            return task.tags
        case "property":
            return task.properties
        case _:
            # Tasks of other kinds have an app too, but do not reload it.
            is_reload = task.kind is TaskKind.RELOAD
            texts = (task.app_id.lower(), task.app_name) if is_reload else ()
            return tuple(filter(None, texts))


def wanted_text(selector: TaskSelector) -> Text:
    """What a selector compares the texts of tasks with."""
    return (selector.key, selector.value) if selector.kind == "property" else selector.value


def folded(text: Text) -> Text:
    """Without what stands around it and is not seen: blanks, and characters without width."""
    return bare(text) if isinstance(text, str) else (bare(text[0]), bare(text[1]))


def find(
    selector: TaskSelector, tasks: Sequence[Task], reload: ReloadOptions = PLAIN
) -> list[Task]:
    """Tasks that a selector means, in the list's order. Upper and lower case differ.

    What matches exactly goes before what matches but for blanks around it. Of several tasks of one
    app, those come first that make such a reload, and then those that the server did not make by
    itself for a reload by hand.
    """
    wanted = wanted_text(selector)
    found = [task for task in tasks if wanted in texts_of(selector.kind, task)]
    if not found:
        wanted = folded(wanted)
        found = [task for task in tasks if wanted in map(folded, texts_of(selector.kind, task))]
    if selector.kind in ("name", "app"):
        # In Qlik Cloud, an app goes before the tasks that reload it and share its name.
        apps = [task for task in found if task.app_id and task.app_id.lower() == task.id]
        found = apps if len(apps) == 1 else found
    if selector.kind == "app":
        found = [one for one in found if one.partial == reload.partial] or found
        found = [one for one in found if not one.manual] or found
    return found


def ambiguity(selector: TaskSelector, tasks: Sequence[Task]) -> Rejection | None:
    """A name or app means one task; a tag or property, of which there may be many, one text."""
    if len(tasks) < 2:
        return None
    ids = ", ".join(task.id for task in tasks[:5])
    if selector.kind not in ("tag", "property"):
        return Rejection(
            "ambiguous",
            f"{len(tasks)} tasks answer to {selector.text} ({ids}). Nothing was started: "
            "use the task id.",
        )
    wanted = wanted_text(selector)
    texts = {one for task in tasks for one in texts_of(selector.kind, task)}
    if wanted in texts or len([one for one in texts if folded(one) == folded(wanted)]) < 2:
        return None
    return Rejection(
        "ambiguous",
        f"The server has more than one that is {selector.text} but for the blanks around it "
        f"(tasks {ids}). Nothing was started: write it with its blanks.",
    )
