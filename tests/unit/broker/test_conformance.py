"""The conformance table says what the tests say."""

from __future__ import annotations

import conformance_table


def test_table_is_up_to_date():
    """docs/conformance.md lists every statement that is tested, and nothing that is not."""
    written = conformance_table.TABLE.read_text(encoding="utf-8")
    assert written == conformance_table.table(), "run python tests/conformance_table.py"


def test_every_statement_of_the_standards_is_accounted_for():
    """Each numbered statement has a test, or a reason for having none; no number is invented."""
    assert conformance_table.problems() == []
