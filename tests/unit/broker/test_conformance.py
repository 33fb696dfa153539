"""The conformance table says what the tests say."""

from __future__ import annotations

import conformance_table


def test_table_is_up_to_date():
    """docs/conformance.md lists every statement that is tested, and nothing that is not."""
    written = conformance_table.TABLE.read_text(encoding="utf-8")
    assert written == conformance_table.table(), "run python tests/conformance_table.py"
