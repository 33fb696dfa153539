"""Several starts that are made all or not at all, as one selector.

One request stands for all of them until their tasks are found: so it is noted, repeated and
answered as any other request, and the requests for the tasks are noted in one change.

Not for: finding the tasks (resolution.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.model import ReloadOptions
from appliance.tasks.payloads import WantedStart
from appliance.tasks.selector import TaskSelector

_NAMED = 3
"""Selectors that the text for people names."""


class _Part(msgspec.Struct, frozen=True, array_like=True):
    selector: TaskSelector
    reload: ReloadOptions | None = None
    """``None``: as the request's own."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[_Part, ...]).decode


def together(starts: Sequence[WantedStart], reload: ReloadOptions) -> WantedStart:
    """One start that stands for all of these; ``reload`` is what most of them want."""
    parts = [_Part(one.selector, None if one.reload == reload else one.reload) for one in starts]
    named = [one.selector.text for one in starts[:_NAMED]]
    if len(starts) > _NAMED:
        named.append(f"{len(starts) - _NAMED} more")
    text = f"all of {', '.join(named)}"
    return WantedStart(TaskSelector("together", _encode(parts).decode(), text), reload)


def parts_of(selector: TaskSelector, reload: ReloadOptions) -> tuple[WantedStart, ...]:
    """What one selector stands for: itself, unless it is one of ``together``."""
    if selector.kind != "together":
        return (WantedStart(selector, reload),)
    return tuple(
        WantedStart(one.selector, reload if one.reload is None else one.reload)
        for one in _decode(selector.value)
    )
