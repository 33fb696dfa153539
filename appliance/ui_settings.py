"""What ``[ui]`` of the configuration means for the terminal UI, checked against what the UI has.

Beside the UI and not in it, since the UI does not know the configuration. Imports Textual, so it
is imported only where there is a terminal, or something to check. Not for: anything remembered.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from textual.theme import BUILTIN_THEMES

from appliance.config import Config
from appliance.errors import ConfigError
from appliance.ui.keys import TABLE
from appliance.ui.palette import HIDDEN, THEMES
from appliance.ui.settings import UiSettings

_REMEMBERED = "ui.json"


def ui_settings(config: Config) -> UiSettings:
    """The UI's settings. Raises ``ConfigError`` for an action or a theme that it does not have."""
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
        chosen[name] = tuple(key.strip() for key in keys.split(",") if key.strip())
        if not chosen[name]:
            raise ConfigError(
                f'{where} `keys.{name}`: no key is named; write for example {name} = "f5"'
            )
    remembered = Path(config.service.data_dir) / _REMEMBERED
    return UiSettings(keys=chosen, theme=ui.theme, remember=remembered)


def _mend(given: str, known: set[str]) -> str:
    near = difflib.get_close_matches(given, sorted(known), 1)
    return f'did you mean "{near[0]}"?' if near else f"known are: {', '.join(sorted(known))}"
