"""The configuration: TOML in, frozen objects out.

An error names the file, the key, the value and the fix. An unknown key is an error with
a suggestion. Defaults are safe. docs/configuration.md lists every key.
Not for: opening files that a key names, except in ``files``, which ``check`` and ``run`` call.
"""
