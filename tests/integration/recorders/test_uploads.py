"""Uploads into the simulated tenant: over real HTTP, with a real ``recorders.db``."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from appliance.config.tables import QlikConfig, RecorderConfig, TopicFilter, UploadConfig, WritePath
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.model import Message
from appliance.qlik.connect import data_files
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.recorders import uploads as uploads_module
from appliance.recorders.part_store import Part, PartStore
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.target import key_of
from appliance.recorders.uploads import Uploads
from appliance.secret import Secret
from appliance_process import until

TOPIC = "plant/recorders/msg/uploaded"


class Journal:
    """Keeps what is published; a call may fail before or after that."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fails: list[str] = []

    @property
    def last_seq(self) -> int:
        return len(self.messages)

    def read(self, after_seq: int, limit: int) -> list[Message]:
        return self.messages[after_seq : after_seq + limit]

    def publish(self, topic: str, payload: bytes) -> int:
        fault = self.fails.pop(0) if self.fails else ""
        if fault == "before":
            raise UnavailableError("the engine is stopping")
        self.messages.append(Message(self.last_seq + 1, 0, topic, payload))
        if fault == "after":
            raise UnavailableError("the engine is stopping")
        return self.last_seq

    def told(self) -> list[dict[str, object]]:
        assert {one.topic for one in self.messages} <= {TOPIC, "other"}
        return [msgspec.json.decode(one.payload) for one in self.messages if one.topic == TOPIC]


class Site:
    """A data directory with a recorder, and the tenant of its uploads."""

    def __init__(self, folder: Path, qlik: SimulatedQlik, **settings: object) -> None:
        self.folder = folder
        self.qlik = qlik
        known = [one for one in qlik.cloud.data_files.spaces.values()]
        self.space = known[0] if known else qlik.cloud.data_files.add_space("Production data")
        path = folder / "recordings" / "msg.csv"
        path.parent.mkdir(exist_ok=True)
        upload = settings.pop("upload", UploadConfig(space="Production data", folder="plant/7"))
        settings = {"path": WritePath(path), "format": "csv", **settings}
        settings.setdefault("topic", TopicFilter("plant/#"))
        self.config = RecorderConfig(upload=upload, **settings)
        self.key = key_of(Path(self.config.path), folder)
        self.journal = Journal()
        self.running: Uploads | None = None
        self.store: ProgressStore | None = None

    def open(self) -> ProgressStore:
        if self.store is None:
            self.store = ProgressStore(self.folder / "recorders.db")
            self.store.open(0)
        return self.store

    def start(self) -> Uploads:
        config = QlikConfig(
            edition="cloud", url=self.qlik.url, api_key=Secret("simulated-api-key"), timeout=0.5
        )
        self.running = Uploads(
            [self.config],
            service_name="plant",
            data_dir=self.folder,
            store=self.open(),
            connect=lambda: data_files(config),
            publish=self.journal.publish,
            journal=self.journal,
        )
        self.running.start()
        return self.running

    def stop(self) -> None:
        if self.running is not None:
            assert self.running.stop(30)
            self.running = None
        if self.store is not None:
            self.store.close()
            self.store = None

    def add_part(self, first: int, last: int, content: bytes) -> Part:
        """Close a part as a recorder does."""
        path = Path(self.config.path)
        path = path.with_name(f"{path.stem}-{first:012}-{last:012}{path.suffix}")
        path.write_bytes(content)
        key = key_of(path, self.folder)
        part = Part(key, self.key, self.key, first, last, 3, len(content), 1, 2, time.time_ns())
        store = PartStore(self.open())
        if self.running is not None:
            store.on_closed = self.running.wake
        store.close(part, [(self.key, Progress("csv", last))])
        return part

    def names(self) -> dict[str, bytes]:
        return self.qlik.cloud.data_files.contents(self.space)

    def posts(self) -> int:
        return sum(one.path.startswith("/api/v1/data-files") for one in self.qlik.posts)

    def states(self) -> list[str]:
        found = PartStore(self.open()).of_recorder(self.key)
        return [one.state for one in found]


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as server:
        yield server


@pytest.fixture
def make_site(tmp_path: Path, qlik: SimulatedQlik) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**settings: object) -> Site:
        made.append(Site(tmp_path, qlik, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(uploads_module, "LOCKED_PAUSE_S", 0.02)
    monkeypatch.setattr(uploads_module, "LONGEST_PAUSE_S", 0.1)


FIRST = "plant/7/msg-000000000001-000000000003.csv"
SECOND = "plant/7/msg-000000000004-000000000006.csv"


def test_closed_files_are_added_in_order_and_told(make_site: Callable[..., Site]) -> None:
    """Each under its own name, with one message each that names file, space and messages."""
    site = make_site()
    site.add_part(1, 3, b"one")
    running = site.start()
    until(lambda: len(site.journal.told()) == 1, "the first file is told")
    site.add_part(4, 6, b"two")
    until(lambda: site.states() == ["uploaded", "uploaded"], "both parts are uploaded")
    assert site.names() == {FIRST: b"one", SECOND: b"two"}
    assert [one["file"] for one in site.journal.told()] == [FIRST, SECOND]
    told = site.journal.told()[1]
    assert told.pop("time")
    assert told == {
        "recorder": "msg",
        "file": SECOND,
        "space": "Production data",
        "spaceId": site.space.id,
        "tenant": "127.0.0.1",
        "bytes": 3,
        "messages": 3,
        "firstSequence": 4,
        "lastSequence": 6,
        "firstTime": "1970-01-01T00:00:00.000000Z",
        "lastTime": "1970-01-01T00:00:00.000000Z",
    }
    state = until(
        lambda: (found := running.states()[site.config.path]).uploaded == 2 and found, "shown"
    )
    assert (state.waiting, state.last_file, state.health.level) == (0, SECOND, "ok")


def test_with_replace_each_file_takes_the_place_of_the_one_before(
    make_site: Callable[..., Site],
) -> None:
    """One file under the name of `path`; the tenant keeps its id, so apps keep their links."""
    site = make_site(upload=UploadConfig(replace=True))
    site.add_part(1, 3, b"one")
    site.add_part(4, 6, b"two")
    site.start()
    until(lambda: site.states() == ["uploaded", "uploaded"], "both parts are uploaded")
    files = site.qlik.cloud.data_files
    assert files.contents() == {"msg.csv": b"two"}
    assert [one.puts for one in files.files.values()] == [2]


@pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, FaultKind.HANG_AFTER, FaultKind.GARBAGE])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_lost_answer_is_looked_for_before_the_file_is_sent_again(
    make_site: Callable[..., Site], kind: FaultKind, is_restarted: bool
) -> None:
    """The file arrived: it is found by name, size and time, and told once."""
    site = make_site()
    site.add_part(1, 3, b"one")
    site.qlik.fail(kind, method="POST", path="/data-files$", times=1)
    site.start()
    until(lambda: site.posts() == 1 and site.names(), "the file has arrived")
    if is_restarted:
        site.stop()
        site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
    assert site.posts() == 1
    assert [one.puts for one in site.qlik.cloud.data_files.files.values() if not one.is_folder] == [
        1
    ]
    assert len(site.journal.told()) == 1


def test_without_its_database_nothing_is_sent_or_told_again(
    make_site: Callable[..., Site],
) -> None:
    """A part that is found again by its name is in the tenant since after it was closed."""
    site = make_site()
    part = site.add_part(1, 3, b"one")
    site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
    site.stop()
    (site.folder / "recorders.db").unlink()
    PartStore(site.open()).close(part, [(site.key, Progress("csv", 3))])
    site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
    assert site.posts() == 1
    assert len(site.journal.told()) == 1


def test_a_file_of_the_same_name_from_elsewhere_is_replaced(
    make_site: Callable[..., Site],
) -> None:
    """Only a file that came since the attempt began is taken for ours, whatever its size is."""
    site = make_site()
    site.add_part(1, 3, b"one")
    client = data_files(
        QlikConfig(edition="cloud", url=site.qlik.url, api_key=Secret("simulated-api-key"))
    )
    source = site.folder / "old"
    source.write_bytes(b"old")
    with source.open("rb") as file:
        client.put(client.place("Production data"), FIRST, file, 3, known=None)
    client.close()
    next(
        one for one in site.qlik.cloud.data_files.files.values() if not one.is_folder
    ).modified_ns -= 60_000_000_000
    site.qlik.fail(FaultKind.DROP_BEFORE, method="PUT", times=1)
    site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
    assert site.names() == {FIRST: b"one"}


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_message_is_in_the_journal_once(
    make_site: Callable[..., Site], fault: str, is_restarted: bool
) -> None:
    """A kill before or after the message entered the journal: neither two nor none."""
    site = make_site()
    site.journal.messages.append(Message(1, 0, "other", b"{}"))
    site.add_part(1, 3, b"one")
    site.journal.fails = [fault]
    if is_restarted:
        stopped = threading.Event()
        publish = site.journal.publish

        def once(topic: str, payload: bytes) -> int:
            if stopped.is_set():
                return publish(topic, payload)
            try:
                return publish(topic, payload)
            finally:
                stopped.set()
                site.running._stopping.set()

        site.journal.publish = once  # type: ignore[method-assign]
    site.start()
    if is_restarted:
        assert stopped.wait(30)
        site.stop()
        site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
    assert len(site.journal.told()) == 1
    assert site.posts() == 1


@pytest.mark.parametrize(
    ("prepare", "repair", "said"),
    [
        (
            lambda q: q.cloud.data_files.locked.add(FIRST),
            lambda q: q.cloud.data_files.locked.clear(),
            "423",
        ),
        (
            lambda q: q.fail(
                FaultKind.STATUS, method="POST", status=429, text="slow", retry_after_s=1
            ),
            lambda q: q.heal(),
            "request limit",
        ),
        (
            lambda q: q.cloud.data_files.endings.remove("csv"),
            lambda q: q.cloud.data_files.endings.append("csv"),
            "no .csv files",
        ),
        (lambda q: q.refuse(), lambda q: q.heal(), "refused"),
        (lambda q: q.fail(FaultKind.LOGIN_PAGE), lambda q: q.heal(), "login"),
        (lambda q: q.fail(FaultKind.GARBAGE, method="GET"), lambda q: q.heal(), "not the JSON"),
        (
            lambda q: setattr(q.cloud.data_files, "max_all", 0),
            lambda q: setattr(q.cloud.data_files, "max_all", 1000),
            "DF-016",
        ),
    ],
)
def test_what_a_person_or_time_repairs_is_tried_again(
    make_site: Callable[..., Site], prepare, repair, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says why, files wait in order, and go on by themselves."""
    monkeypatch.setattr("appliance.qlik.data_files._LIMITS_KEPT_S", 0.0)
    site = make_site()
    prepare(site.qlik)
    site.add_part(1, 3, b"one")
    site.add_part(4, 6, b"two")
    running = site.start()

    def state():
        return running.states()[site.config.path]

    until(lambda: state().health.level != "ok" and said in state().health.text, said)
    assert site.names() == {}
    repair(site.qlik)
    until(lambda: site.states() == ["uploaded", "uploaded"], "both parts are uploaded")
    until(lambda: state().health.level == "ok", "well again")
    assert [one["file"] for one in site.journal.told()] == [FIRST, SECOND]
    assert running.counters()[Counter.UPLOAD_RETRIES] > 0


def test_a_locked_file_is_a_warning_until_it_stays_locked(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    """A reload may read it; a lock that stays is bad."""
    site = make_site()
    site.qlik.cloud.data_files.locked.add(FIRST)
    site.add_part(1, 3, b"one")
    running = site.start()
    until(lambda: running.states()[site.config.path].health.level == "bad", "bad")
    said = [one.levelname for one in caplog.records if "can't go on" in one.getMessage()]
    assert said == ["WARNING", "ERROR"]


def test_a_file_that_is_too_large_does_not_hold_up_the_next_one(
    make_site: Callable[..., Site],
) -> None:
    """It is refused for good, counted and shown; the next one goes."""
    site = make_site()
    site.qlik.cloud.data_files.max_file = site.qlik.cloud.data_files.max_large_file = 5
    site.add_part(1, 3, b"much too large")
    site.add_part(4, 6, b"two")
    running = site.start()
    until(lambda: site.states() == ["refused", "uploaded"], "the second part is uploaded")
    assert site.names() == {SECOND: b"two"}
    assert running.counters()[Counter.UPLOADS_REFUSED] == 1
    shown = running.states()[site.config.path].health
    assert (shown.level, "at most 5" in shown.text) == ("warn", True)


def test_a_file_that_somebody_removed_does_not_hold_up_the_next_one(
    make_site: Callable[..., Site],
) -> None:
    """It can't be had again, so it is counted and said."""
    site = make_site()
    part = site.add_part(1, 3, b"one")
    (site.folder / part.path).unlink()
    site.add_part(4, 6, b"two")
    running = site.start()
    until(lambda: site.states() == ["refused", "uploaded"], "the second part is uploaded")
    assert running.counters()[Counter.UPLOADS_MISSING] == 1


def test_last_values_are_replaced_when_they_changed(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most once in a while, and not again after a restart without a change."""
    monkeypatch.setattr(uploads_module, "STATE_EVERY_S", 0.2)
    monkeypatch.setattr(uploads_module, "LOOK_EVERY_S", 0.02)
    site = make_site(mode="latest")
    path = Path(site.config.path)
    path.write_bytes(b"first")
    site.open().save([(site.key, Progress("latest", 7, count=1))], durable=True)
    site.start()
    until(lambda: len(site.journal.told()) == 1, "the first state")
    path.write_bytes(b"second one")
    until(lambda: len(site.journal.told()) == 2, "the second state")
    assert site.names() == {"plant/7/msg.csv": b"second one"}
    assert site.journal.told()[1]["lastSequence"] == 7
    site.stop()
    site.start()
    threading.Event().wait(0.5)  # nothing is expected
    assert len(site.journal.told()) == 2


def test_each_file_of_last_values_goes_where_the_path_has_placeholders(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file a line: a change of one of them sends that one, in its folder."""
    monkeypatch.setattr(uploads_module, "STATE_EVERY_S", 0.05)
    monkeypatch.setattr(uploads_module, "LOOK_EVERY_S", 0.02)
    path = WritePath(make_site().folder / "recordings" / "{line}" / "now.csv")
    site = make_site(mode="latest", path=path, topic=TopicFilter("plant/{line}"), name="msg")
    site.open().save([(site.key, Progress("latest", 9, count=2))], durable=True)
    for line in "78":
        file = site.folder / "recordings" / line / "now.csv"
        file.parent.mkdir()
        file.write_text(line)
        row = f"{site.key}\x1f0\x1f{key_of(file, site.folder)}"
        site.open().save([(row, Progress("latest", int(line), count=1))], durable=True)
    site.start()
    until(lambda: len(site.journal.told()) == 2, "both files")
    file.write_text("changed")
    until(lambda: len(site.journal.told()) == 3, "the changed file")
    told = {(one["file"], one["lastSequence"]) for one in site.journal.told()}
    assert told == {("plant/7/7/now.csv", 7), ("plant/7/8/now.csv", 8)}
    assert site.names() == {"plant/7/7/now.csv": b"7", "plant/7/8/now.csv": b"changed"}


def test_a_recorder_is_added_and_removed_while_the_appliance_runs(
    make_site: Callable[..., Site],
) -> None:
    """A changed configuration counts at once; what is left out waits."""
    site = make_site()
    running = site.start()
    running.take([])
    assert running.states() == {}
    site.add_part(1, 3, b"one")
    running.take([site.config])
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")


def test_a_call_under_way_does_not_delay_the_stop(make_site: Callable[..., Site]) -> None:
    """The connection is closed; the next start goes on."""
    site = make_site()
    site.add_part(1, 3, b"one")
    site.qlik.fail(FaultKind.HANG, method="POST", path="/data-files$")
    site.start()
    until(lambda: site.posts() == 1, "the call is under way")
    site.stop()
    assert site.states() == ["closed"]
    site.qlik.heal()
    site.start()
    until(lambda: site.states() == ["uploaded"], "the part is uploaded")
