"""What is counted has one list: complete, documented, and with names that Prometheus accepts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import counters
from appliance.counters import ACTIVITY, Counter, label_of, published_label_of, text_of

ROOT = Path(__file__).parents[2]


def test_every_counter_is_counted_somewhere() -> None:
    used = {
        name
        for path in (ROOT / "appliance").rglob("*.py")
        if path != Path(counters.__file__)
        for name in re.findall(r"\bCounter\.([A-Z0-9_]+)\b", path.read_text(encoding="utf-8"))
    }
    assert {counter.name for counter in Counter} - used == set()


@pytest.mark.parametrize("counter", Counter)
def test_a_counter_says_what_it_is(counter: Counter) -> None:
    """The name is a Prometheus counter's; label and text are there and are one line."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*_total", counter.metric)
    assert counter.label == counter.label.strip()
    assert len(counter.label) <= 60
    assert counter.text.endswith(".")
    assert counter.text.isprintable()


def test_labels_are_unique() -> None:
    """The terminal UI, the status topic and ``appliance_events`` tell counters apart by them."""
    assert len({counter.label for counter in Counter}) == len(Counter)
    assert len({published_label_of(counter.metric) for counter in Counter}) == len(Counter)
    assert ACTIVITY < set(Counter)


def test_a_published_label_stays() -> None:
    """Dashboards and subscribers of the status topic go on with the label they know."""
    name = Counter.TERMINAL_REQUESTS_REFUSED_NOT_READY.metric
    assert published_label_of(name) == "desk requests refused: no desk"
    assert published_label_of(Counter.POLLS_FAILED.metric) == Counter.POLLS_FAILED.label
    assert published_label_of("visits_refused_total") == "visits refused"


def test_a_counter_of_another_version_is_shown_by_its_name() -> None:
    """A terminal that is attached to an engine of another version reads what it does not know."""
    assert label_of("polls_failed_total") == "polls failed"
    assert label_of("visits_refused_total") == "visits refused"
    assert label_of("polls failed") == "polls failed"
    assert text_of("visits_refused_total") == ""


def test_the_page_of_the_metrics_lists_them() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "document-metrics", "--check"], check=True)
