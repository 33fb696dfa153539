"""The client for data files against the simulated tenant, over real HTTP."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.reading import loads
from appliance.config.tables import QlikConfig
from appliance.errors import ConfigError
from appliance.qlik import bodies, temporary_contents
from appliance.qlik.bodies import FileChangedError
from appliance.qlik.connect import connect, data_files
from appliance.qlik.data_files import DataFile, DataFiles, Place
from appliance.qlik.data_files_trial import try_uploads
from appliance.qlik.failures import StatusError
from appliance.qlik.server import QlikError, RetryPolicy
from appliance.qlik.sessions import Sessions
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.qlik.simulated import data_files as simulated
from appliance.secret import Secret


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as server:
        yield server


@pytest.fixture(params=["api key", "oauth"])
def files(request: pytest.FixtureRequest, qlik: SimulatedQlik) -> Iterator[DataFiles]:
    signed_in = (
        {"api_key": Secret("simulated-api-key")}
        if request.param == "api key"
        else {"client_id": "simulated-client", "client_secret": Secret("simulated-secret")}
    )
    made = data_files(QlikConfig(edition="cloud", url=qlik.url, **signed_in))
    yield made
    made.close()


def put(files: DataFiles, place: Place, name: str, content: bytes) -> DataFile:
    known = files.find(place, name)
    return files.put(place, name, io.BytesIO(content), len(content), known=known)


def test_a_file_is_added_and_replaced_in_its_folder(qlik: SimulatedQlik, files: DataFiles) -> None:
    """A space by its name; the folder is made; a second PUT changes the content, not the place."""
    space = qlik.cloud.data_files.add_space("Production data")
    qlik.cloud.data_files.add_space("Production data 2")
    place = files.place("production DATA")
    assert (place.space_id, place.name) == (space.id, "Production data")
    assert files.place(space.id) == place
    assert files.find(place, "plant/line 7/a.csv") is None
    first = put(files, place, "plant/line 7/a.csv", b"x\r\n1\r\n")
    again = put(files, place, "plant/line 7/a.csv", b"x\r\n1\r\n2\r\n")
    assert (first.id, again.size) == (again.id, 9)
    assert again.name == "plant/line 7/a.csv"
    assert qlik.cloud.data_files.contents(space) == {"plant/line 7/a.csv": b"x\r\n1\r\n2\r\n"}
    assert [one.name for one in files.files(place, "plant/line 7")] == ["plant/line 7/a.csv"]
    assert list(files.files(place)) == []


def test_without_a_space_files_go_to_the_personal_one(
    qlik: SimulatedQlik, files: DataFiles
) -> None:
    """A long file goes out in pieces, its bytes unchanged."""
    content = bytes(range(256)) * 4096 + b"\r\n--boundary\r\n\r\n"
    put(files, files.place(""), "a.qvd", content)
    assert qlik.cloud.data_files.contents() == {"a.qvd": content}


@pytest.mark.parametrize("takes_pieces", [True, False])
def test_a_file_above_the_limit_goes_by_the_temporary_contents(
    qlik: SimulatedQlik, files: DataFiles, monkeypatch: pytest.MonkeyPatch, takes_pieces: bool
) -> None:
    """Limits are read from the tenant; above the second one nothing is sent."""
    monkeypatch.setattr(temporary_contents, "PIECE", 600)
    tenant = qlik.cloud.data_files
    tenant.max_file, tenant.max_large_file = 1000, 2000
    tenant.takes_pieces = takes_pieces
    put(files, Place(), "a.parquet", b"a" * 1001)
    put(files, Place(), "a.parquet", b"b" * 1500)
    assert tenant.contents() == {"a.parquet": b"b" * 1500}
    assert tenant.temporary == {}
    assert sum(one.method == "PATCH" for one in qlik.requests) == (5 if takes_pieces else 0)
    sent = len(qlik.requests)
    with pytest.raises(QlikError, match="2001 bytes; the tenant takes at most 2000"):
        files.put(Place(), "b.parquet", io.BytesIO(b"c" * 2001), 2001, known=None)
    assert len(qlik.requests) == sent


@pytest.mark.parametrize(
    "kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER, FaultKind.STATUS, FaultKind.GARBAGE]
)
def test_a_piece_that_got_lost_is_continued_where_the_tenant_says(
    qlik: SimulatedQlik, files: DataFiles, monkeypatch: pytest.MonkeyPatch, kind: FaultKind
) -> None:
    """What has arrived is not sent again, and what has not is."""
    monkeypatch.setattr(temporary_contents, "PIECE", 400)
    monkeypatch.setattr(temporary_contents, "_PAUSE_S", 0.0)
    qlik.cloud.data_files.max_file = 1000
    content = bytes(number % 251 for number in range(1800))
    qlik.fail(kind, method="PATCH", times=2)
    put(files, Place(), "a.parquet", content)
    assert qlik.cloud.data_files.contents() == {"a.parquet": content}


def test_pieces_that_never_arrive_are_given_up(
    qlik: SimulatedQlik, files: DataFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller tries again from the beginning, later."""
    monkeypatch.setattr(temporary_contents, "_PAUSE_S", 0.0)
    qlik.cloud.data_files.max_file = 1000
    qlik.fail(FaultKind.DROP_BEFORE, method="PATCH")
    with pytest.raises(QlikError):
        put(files, Place(), "a.parquet", b"a" * 1800)
    assert sum(one.method == "PATCH" for one in qlik.requests) == 4


def test_files_are_found_over_all_pages(qlik: SimulatedQlik, files: DataFiles) -> None:
    """With any page size."""
    qlik.cloud.data_files.page_size = 3
    for number in range(10):
        put(files, Place(), f"f/{number}.csv", b"1")
    assert [one.name for one in files.files(Place(), "f")] == [f"f/{n}.csv" for n in range(10)]


@pytest.mark.parametrize(
    ("prepare", "name", "said"),
    [
        (lambda q: None, "a.json.gz", "no .gz files"),
        (lambda q: q.cloud.data_files.endings.clear(), "a.csv", "DF-010"),
        (lambda q: q.cloud.data_files.locked.add("a.csv"), "a.csv", "423"),
        (lambda q: setattr(q.cloud.data_files, "max_all", 1), "a.csv", "DF-016"),
        (lambda q: None, "../a.csv", "DF-015"),
        (lambda q: q.fail(FaultKind.STATUS, method="POST", status=413, text="x"), "a.csv", "413"),
        (
            lambda q: q.fail(
                FaultKind.STATUS, method="POST", status=429, text="slow", retry_after_s=7
            ),
            "a.csv",
            "request limit",
        ),
    ],
)
def test_refusals_say_what_to_do(
    qlik: SimulatedQlik, files: DataFiles, prepare, name: str, said: str
) -> None:
    """No refusal stores anything, and the wait that the tenant asks for is known."""
    files.place("")
    prepare(qlik)
    with pytest.raises(QlikError, match=said) as caught:
        files.put(Place(), name, io.BytesIO(b"12"), 2, known=None)
    assert "app:reload" not in str(caught.value)
    if said == "request limit":
        assert caught.value.retry_after_s == 7
        assert caught.value.retry is RetryPolicy.SAFE
    assert qlik.cloud.data_files.contents() == {}


def test_no_space_and_no_right_are_told(qlik: SimulatedQlik, files: DataFiles) -> None:
    """Both are for a person to change; the role is named."""
    with pytest.raises(QlikError, match='no space "Sales"') as missing:
        files.place("Sales")
    assert missing.value.retry is RetryPolicy.NEVER
    qlik.cloud.data_files.add_space("Plant", may_write=False, roles=("consumer",))
    place = files.place("Plant")
    assert place.is_read_only
    with pytest.raises(StatusError, match="role in the space"):
        files.put(place, "a.csv", io.BytesIO(b"1"), 1, known=None)


def test_a_name_that_is_taken_is_a_conflict(qlik: SimulatedQlik, files: DataFiles) -> None:
    """The caller looks again. A name in other letters may be somebody else's: it stays."""
    put(files, Place(), "a.csv", b"1")
    assert files.find(Place(), "A.csv") is None
    with pytest.raises(StatusError) as caught:
        files.put(Place(), "a.csv", io.BytesIO(b"2"), 1, known=None)
    assert caught.value.status == 409


def test_folders_are_made_and_deleted_with_what_is_in_them(
    qlik: SimulatedQlik, files: DataFiles
) -> None:
    """Made twice, deleted twice: no error."""
    files.make_folder(Place(), "a/b")
    files.make_folder(Place(), "a/b")
    made = put(files, Place(), "a/b/c.csv", b"1")
    folder = next(one for one in qlik.cloud.data_files.files.values() if one.path == "a")
    files.delete(folder.id)
    files.delete(made.id)
    assert qlik.cloud.data_files.files == {}


def test_a_lost_answer_leaves_a_file_that_is_found(qlik: SimulatedQlik, files: DataFiles) -> None:
    """The call may be looked after: the file is there with its size."""
    qlik.fail(FaultKind.DROP_AFTER, method="POST", path="/data-files$", times=1)
    with pytest.raises(QlikError) as caught:
        files.put(Place(), "a.csv", io.BytesIO(b"123"), 3, known=None)
    assert caught.value.retry is RetryPolicy.LOOK_FIRST
    found = files.find(Place(), "a.csv")
    assert found is not None
    assert found.size == 3


def test_a_file_that_became_shorter_is_an_error_and_nothing_is_stored(
    qlik: SimulatedQlik, files: DataFiles
) -> None:
    """Half a form is never taken for a whole file."""
    with pytest.raises((QlikError, FileChangedError)):
        files.put(Place(), "a.csv", io.BytesIO(b"12"), 100, known=None)
    assert qlik.cloud.data_files.contents() == {}


def test_an_ended_token_is_replaced(qlik: SimulatedQlik) -> None:
    """OAuth: the next call signs in again."""
    config = QlikConfig(
        edition="cloud",
        url=qlik.url,
        client_id="simulated-client",
        client_secret=Secret("simulated-secret"),
    )
    made = data_files(config)
    made.limits()
    qlik.cloud.forget_tokens()
    with pytest.raises(QlikError, match="signs in again"):
        made.put(Place(), "a.csv", io.BytesIO(b"1"), 1, known=None)
    put(made, Place(), "a.csv", b"1")
    made.close()
    assert qlik.cloud.data_files.contents() == {"a.csv": b"1"}


def test_secrets_that_a_refusal_repeats_are_masked(qlik: SimulatedQlik) -> None:
    """The text of an answer may repeat the key."""
    config = QlikConfig(edition="cloud", url=qlik.url, api_key=Secret("simulated-api-key"))
    made = data_files(config)
    text = '{"errors": [{"code": "DF-013", "title": "no", "detail": "simulated-api-key"}]}'
    qlik.fail(FaultKind.STATUS, path="/data-files", status=403, text=text)
    with pytest.raises(QlikError) as caught:
        made.limits()
    made.close()
    assert "simulated-api-key" not in str(caught.value)


def test_the_simulated_server_within_the_appliance_has_data_files() -> None:
    """For a try without a tenant; client-managed has none."""
    config = QlikConfig(edition="simulated")
    server = connect(config)
    try:
        made = data_files(config, server.server if hasattr(server, "server") else server)
        assert put(made, Place(), "a.csv", b"1").size == 1
        made.close()
    finally:
        server.close()
    with pytest.raises(ConfigError, match="Qlik Cloud"):
        data_files(QlikConfig(edition="client-managed", url="https://x:4242"))


def test_check_finds_what_would_keep_uploads_from_going(qlik: SimulatedQlik) -> None:
    """Space, role, ending, size: each is told with what to do, and nothing is sent."""
    qlik.cloud.data_files.add_space("Plant")
    qlik.cloud.data_files.add_space("Closed", roles=("consumer",))
    qlik.cloud.data_files.max_file = qlik.cloud.data_files.max_large_file = 10_000_000
    tables = [
        ("csv", "", 'space = "Plant", folder = "a/b"'),
        ("csv", "", 'space = "Nowhere"'),
        ("csv", "", 'space = "Closed"'),
        ("csv", 'compression = "gzip"\n', ""),
        ("csv", 'rotate.size = "20MB"\n', ""),
    ]
    text = f"""
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "cloud"
url = "{qlik.url}"
api_key = "simulated-api-key"
"""
    for number, (form, more, upload) in enumerate(tables):
        text += (
            f'[[recorder]]\ntopic = "line/#"\npath = "r/{number}.{form}"\nformat = "{form}"\n'
            f'rotate.every = "1m"\n{more}upload = {{{upload}}}\n'
        )
    found = try_uploads(loads(text))
    assert [one.level for one in found] == ["ok", "bad", "bad", "bad", "bad"]
    for said, one in zip(
        ["folder a/b, which has 0 files", "no space", "only consumer", "no .gz", "20000000"],
        found,
        strict=True,
    ):
        assert said in one.text
    assert not qlik.posts
    qlik.refuse()
    assert [one.level for one in try_uploads(loads(text))] == ["bad"]


def test_a_server_that_refuses_before_it_has_read_the_file(
    qlik: SimulatedQlik, files: DataFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is read if it comes through; else the call failed, and is safe to look after."""
    monkeypatch.setattr(simulated, "BODY_LIMIT", 1000)
    with pytest.raises(QlikError) as caught:
        files.put(Place(), "a.csv", io.BytesIO(b"1" * 5_000_000), 5_000_000, known=None)
    assert isinstance(caught.value, StatusError) or caught.value.retry is RetryPolicy.LOOK_FIRST
    if isinstance(caught.value, StatusError):
        assert caught.value.status == 413
    put(files, Place(), "a.csv", b"12")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "links", "next", "href", "id", "name", "type", "meta", "roles"]
            )
            | st.sampled_from(
                ["size", "maxFileSize", "allowedExtensions", "modifiedDate", "errors"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=JSON, status=st.sampled_from([200, 201, 400, 403, 500]))
def test_whatever_a_server_answers_is_an_answer_or_an_error_in_words(
    qlik: SimulatedQlik, answer: object, status: int
) -> None:
    """No other exception, and no loop over pages without end."""
    config = QlikConfig(edition="cloud", url=qlik.url, api_key=Secret("simulated-api-key"))
    made = data_files(config)
    qlik.fail(FaultKind.STATUS, status=status, text=json.dumps(answer))
    calls: list[Callable[[], object]] = [
        made.limits,
        lambda: made.place("Plant"),
        lambda: made.find(Place(), "a/b.csv"),
        lambda: made.put(Place(), "a.csv", io.BytesIO(b"1"), 1, known=None),
        lambda: made.delete("x"),
    ]
    try:
        for call in calls:
            with contextlib.suppress(QlikError):
                call()
    finally:
        made.close()
        qlik.heal()


def test_a_proxy_gets_the_length_of_a_file_in_front(qlik: SimulatedQlik) -> None:
    """What goes through `requests` is sent in pieces as well, and not in chunks."""
    exchange = Sessions(qlik.url, tls=None, timeout_s=5, proxy="", auth=None)
    content = b"12" * 100_000
    body = bodies.form({"name": "a.csv"}, io.BytesIO(content), len(content))
    headers = {
        "Authorization": "Bearer simulated-api-key",
        "Content-Type": body.kind,
        "Content-Length": str(len(body)),
    }
    with exchange.answer("POST", "/api/v1/data-files", headers, body) as response:
        assert response.status == 201
    exchange.close()
    assert qlik.cloud.data_files.contents() == {"a.csv": content}
    assert "transfer-encoding" not in qlik.posts[-1].headers
