"""The settings of the terminal UI from ``[ui]``, checked against its actions, keys and themes.

It is not in the UI, because the UI does not know the configuration. Imports Textual, so it
is imported only where there is a terminal, or something to check. Not for: anything remembered.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from textual.keys import KEY_NAME_REPLACEMENTS, Keys, key_to_character
from textual.theme import BUILTIN_THEMES

from appliance.config.tables import Config
from appliance.errors import ConfigError
from appliance.ui.keys import TABLE
from appliance.ui.settings import UiSettings
from appliance.ui.themes import HIDDEN, THEMES

_REMEMBERED = "ui.json"

_MODIFIERS = frozenset({"alt", "ctrl", "hyper", "meta", "shift", "super"})
_NAMED = {each.value.rpartition("+")[2] for each in Keys if each.value[0].isalpha()} | set(
    KEY_NAME_REPLACEMENTS.values()
)
"""Keys with a name of Textual's, without modifiers."""


def ui_settings(config: Config) -> UiSettings:
    """The UI's settings. Raises ``ConfigError`` for an unknown action, key or theme."""
    ui = config.ui
    where = f"{config.file or 'configuration'}: [ui]"
    themes = {theme.name for theme in THEMES} | (set(BUILTIN_THEMES) - HIDDEN)
    if ui.theme and ui.theme not in themes:
        raise ConfigError(f'{where} `theme`: value "{ui.theme}": {_mend(ui.theme, themes)}')
    actions = {key.name for key in TABLE}
    chosen = {}
    for name, keys in (ui.keys or {}).items():
        if name not in actions:
            raise ConfigError(f"{where} `keys.{name}`: there is no such action; "
                              f"{_mend(name, actions)}")  # fmt: skip
        given = [key.strip() for key in keys.split(",") if key.strip()]
        if not given:
            raise ConfigError(
                f'{where} `keys.{name}`: no key is named; write for example {name} = "f5"'
            )
        for key in given:
            if problem := _key_problem(key):
                raise ConfigError(f'{where} `keys.{name}`: value "{key}": {problem}')
        chosen[name] = tuple(map(_as_pressed, given))
    remembered = Path(config.service.data_dir) / _REMEMBERED
    return UiSettings(keys=chosen, theme=ui.theme, remember=remembered)


def _key_problem(key: str) -> str | None:
    """Why ``key`` is no key, and what to write; ``None`` if it is one.

    Textual names a key by its character, by that character's Unicode name or by a name of its
    own (``textual.keys``), with modifiers before it.
    """
    *modifiers, name = _parts(key)
    example = 'write for example "f5", "ctrl+r" or "question_mark"'
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            return f'there is no modifier "{modifier}"; {example}'
    if (len(name) == 1 and name.isprintable()) or name in _NAMED or _is_character(name):
        return None
    near = difflib.get_close_matches(name.lower(), sorted(_NAMED), 1)
    if near:
        return f'no key has this name; did you mean "{"+".join([*modifiers, near[0]])}"?'
    return f"no key has this name; {example}"


def _as_pressed(key: str) -> str:
    """``key`` with its modifiers in the order in which Textual reports them."""
    *modifiers, name = _parts(key)
    return "+".join([*sorted(modifiers), name])


def _parts(key: str) -> list[str]:
    return [key] if len(key) == 1 else key.split("+")  # + may be the key itself


def _is_character(name: str) -> bool:
    character = key_to_character(name)
    is_other = name in KEY_NAME_REPLACEMENTS  # Textual has another name for it
    return character is not None and character.isprintable() and name.islower() and not is_other


def _mend(given: str, known: set[str]) -> str:
    near = difflib.get_close_matches(given, sorted(known), 1)
    return f'did you mean "{near[0]}"?' if near else f"known are: {', '.join(sorted(known))}"
