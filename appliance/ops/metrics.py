"""The appliance's numbers in Prometheus' text form, made of one snapshot.

Names follow Prometheus' rules (https://prometheus.io/docs/practices/naming/): base units, totals.
No label has a value that a client chooses: topics and client ids would grow without bound. Of task
names, which the Qlik server has, at most ten are labels.
Every ``Counter`` is a metric of its own, 0 from the start, so that the first event is an increase.
docs/metrics.md lists all of them (scripts/document-metrics).
Not for: serving it (http_api/monitoring.py), deciding what is healthy (ops/health.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from appliance.counters import Counter, published_label_of
from appliance.engine_api import HOLD_KINDS, Snapshot
from appliance.ops.health import report
from appliance.problems import acknowledged

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL_CHARACTERS = 100
_STALE_NAMED = 10
_LEVELS = {"ok": 0, "off": 0, "warn": 1, "bad": 2}


class _SnapshotCollector:
    """A collector over one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        found = self._snapshot
        info = GaugeMetricFamily(
            "appliance_info",
            "Name and version of the appliance; the value is always 1",
            labels=("name", "version"),
        )
        info.add_metric((found.name, found.version), 1)
        yield info
        yield _gauge(
            "start_time_seconds",
            "When the appliance was started, Unix time",
            found.started_ns / 1e9,
        )
        yield _counter("messages_received", "Messages accepted since the start", found.messages_in)
        yield _counter("messages_sent", "Messages delivered to subscribers", found.messages_out)
        yield _counter("received_bytes", "Payload bytes accepted", found.bytes_in)
        yield _gauge("clients", "Clients that are connected", found.clients_connected)
        connections = GaugeMetricFamily(
            "appliance_listener_connections",
            "Connections of a listener or HTTP port",
            labels=("listener",),
        )
        for listener in (*found.listeners, *found.http):
            connections.add_metric((listener.name,), listener.connections)
        yield connections
        yield _gauge(
            "loop_lag_seconds",
            "How late the engine's loop is: 99th percentile of the last minute",
            found.loop_lag_ms / 1000,
        )
        yield _gauge(
            "memory_bytes", "Memory of the process, 0 if it is not known", found.memory_bytes
        )
        journal = found.journal
        yield _gauge(
            "journal_last_sequence", "Sequence number of the newest message", journal.last_seq
        )
        yield _gauge(
            "journal_pending_messages", "Messages accepted and not yet committed", journal.pending
        )
        yield _counter("journal_commits", "Group commits of the journal", journal.commits)
        yield _gauge(
            "journal_commit_seconds",
            "Median time of the recent group commits",
            journal.commit_ms / 1000,
        )
        yield _gauge("journal_size_bytes", "Size of the journal on disk", journal.size_bytes)
        yield _gauge(
            "disk_free_bytes", "Free space of the journal's file system", journal.disk_free_bytes
        )
        qlik = found.qlik
        yield _gauge("executions_running", "Runs of Qlik tasks under way", qlik.running)
        yield _gauge("executions_waiting", "Requests that wait for their start", qlik.waiting)
        yield _gauge(
            "executions_failed_24h", "Runs that failed in the last 24 hours", qlik.failed_24h
        )
        yield _gauge(
            "executions_succeeded_24h",
            "Runs that succeeded in the last 24 hours",
            qlik.succeeded_24h,
        )
        yield from self._attention()
        yield from self._recorders()
        yield from self._bridges()
        yield from self._rules()
        levels = GaugeMetricFamily(
            "appliance_health",
            "Health of a part and of all: 0 is well or off, 1 a warning, 2 bad",
            labels=("part",),
        )
        judged = report(found)
        levels.add_metric(("all",), _LEVELS.get(judged.status, 2))
        for part in judged.parts:
            levels.add_metric((part.name,), _LEVELS.get(part.level, 2))
        yield levels
        yield from self._counters()

    def _attention(self) -> Iterable[Metric]:
        found = self._snapshot
        yield _gauge("tasks_failing", "Tasks whose last request ended badly", found.failing_count)
        failing = GaugeMetricFamily(
            "appliance_task_failing",
            "1 for each task whose last request ended badly; at most ten, the newest",
            labels=("task",),
        )
        for name in dict.fromkeys(one.name[:_LABEL_CHARACTERS] for one in found.failing):
            failing.add_metric((name,), 1)
        yield failing
        yield from self._freshness()
        yield _gauge(
            "problems_acknowledged",
            "Problems that operators know: they count as well in appliance_health until they happen"
            " again",
            len(acknowledged(found)),
        )
        yield _gauge(
            "starts_waiting_long",
            "Starts that wait longer than they should: the server is away, or all workers are busy",
            found.waiting_long_count,
        )
        yield _gauge(
            "timers_paused",
            "Timers and waits that an operator paused",
            sum(timer.paused for timer in found.timers),
        )
        held = GaugeMetricFamily(
            "appliance_holds",
            "What operators hold: everything, tasks, triggers, timers, clients",
            labels=("kind",),
        )
        kinds = [hold.kind for hold in found.holds]
        for kind in HOLD_KINDS:
            held.add_metric((kind,), kinds.count(kind))
        yield held
        yield _gauge(
            "held_requests",
            "Requests that wait for the end of a hold",
            sum(hold.waiting for hold in found.holds),
        )

    def _freshness(self) -> Iterable[Metric]:
        found = self._snapshot
        yield _gauge(
            "tasks_stale",
            "Tasks that a message asked for and that no successful run began for since",
            found.stale_count,
        )
        yield _gauge(
            "tasks_late", "Stale tasks whose fresh_within is over for a message", found.late_count
        )
        stale = GaugeMetricFamily(
            "appliance_task_stale_seconds",
            "For how long the data of a task is stale; at most ten tasks, late ones first, then the"
            " longest stale; none for a task that is fresh",
            labels=("task",),
        )
        longest: dict[str, float] = {}
        for one in found.stale[:_STALE_NAMED]:
            if one.stale_since_ns is not None:
                name = one.name[:_LABEL_CHARACTERS]
                seconds = max(0.0, (found.taken_ns - one.stale_since_ns) / 1e9)
                longest[name] = max(seconds, longest.get(name, 0.0))
        for name, seconds in longest.items():
            stale.add_metric((name,), seconds)
        yield stale
        yield HistogramMetricFamily(
            "appliance_message_to_fresh_seconds",
            "From a message to the end of the run that covers it",
            buckets=[
                ("+Inf" if math.isinf(bound) else f"{bound:.1f}", count)
                for bound, count in found.latency_buckets or ((math.inf, 0),)
            ],
            sum_value=found.latency_sum_s,
        )

    def _counters(self) -> Iterable[Metric]:
        found = self._snapshot
        counts = {**dict(found.activity), **dict(found.counters)}
        for counter in Counter:
            yield _counter(counter.metric, counter.text, counts.get(counter.metric, 0))
        # For dashboards that were made when this was the only family.
        events = CounterMetricFamily(
            "appliance_events",
            "Deprecated: bounds reached and refusals by their label; use the metric of each",
            labels=("event",),
        )
        for name, count in found.counters:
            events.add_metric((published_label_of(name),), count)
        yield events

    def _recorders(self) -> Iterable[Metric]:
        recorded = CounterMetricFamily(
            "appliance_recorded_messages",
            "Messages in a recording, over restarts",
            labels=("path",),
        )
        lag = GaugeMetricFamily(
            "appliance_recorder_lag_messages",
            "Messages in the journal that a recorder has not looked at",
            labels=("path",),
        )
        recorders = self._snapshot.recorders
        for recorder in recorders:
            recorded.add_metric((recorder.shown,), recorder.recorded)
            lag.add_metric((recorder.shown,), recorder.lag)
        yield recorded
        yield lag
        for name, text, values in (
            (
                "recorder_bytes",
                "Size of a recorder's files, closed and open",
                [(one.name, one.size_bytes) for one in recorders if one.files],
            ),
            (
                "recorder_files",
                "Files of a recorder, closed and open",
                [(one.name, one.files) for one in recorders if one.files],
            ),
            (
                "recorder_uploads_waiting",
                "Closed files of a recorder that are not uploaded yet",
                [(one.name, one.upload.waiting) for one in recorders if one.upload is not None],
            ),
            (
                "recorder_last_upload_seconds",
                "When a recorder's last upload ended, in seconds since 1970",
                [
                    (one.name, one.upload.last_ns / 1e9)
                    for one in recorders
                    if one.upload is not None and one.upload.last_ns is not None
                ],
            ),
        ):
            gauge = GaugeMetricFamily(f"appliance_{name}", text, labels=("name",))
            for label, value in values:
                gauge.add_metric((label,), value)
            yield gauge

    def _bridges(self) -> Iterable[Metric]:
        bridges = self._snapshot.bridges
        gauges = (
            ("connected", "connected", "1 while a bridge is connected to its broker, else 0"),
            (
                "unacknowledged",
                "unacknowledged",
                "Messages that a bridge received and the journal does not have yet",
            ),
            ("lag", "lag", "Numbers of the journal that the way out of a bridge is behind"),
            (
                "failed_attempts",
                "attempts",
                "Attempts of a bridge to connect that failed since it was connected",
            ),
        )
        counters = (
            ("messages_in", "messages_in", "Messages that came in by a bridge"),
            ("messages_out", "messages_out", "Messages that went out by a bridge"),
            ("repeats", "repeats", "Messages that came in by a bridge again and started nothing"),
            ("parked", "parked", "Messages that a bridge left out because its broker refused them"),
            (
                "sessions_lost",
                "gaps",
                "How often a bridge's broker had lost the session: messages may be missing",
            ),
        )
        for name, field, text in gauges:
            gauge = GaugeMetricFamily(f"appliance_bridge_{name}", text, labels=("name",))
            for one in bridges:
                gauge.add_metric((one.name,), getattr(one, field))
            yield gauge
        for name, field, text in counters:
            counter = CounterMetricFamily(f"appliance_bridge_{name}", text, labels=("name",))
            for one in bridges:
                counter.add_metric((one.name,), getattr(one, field))
            yield counter

    def _rules(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "appliance_trigger_messages",
            "A trigger's messages: matched, and of these started or rejected",
            labels=("trigger", "result"),
        )
        for rule in self._snapshot.rules:
            for result in ("matched", "started", "rejected"):
                family.add_metric((rule.name, result), getattr(rule, result))
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"appliance_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"appliance_{name}", text, value=value)


def exposition(snapshot: Snapshot) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    return generate_latest(registry)
