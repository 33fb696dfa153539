"""``[[recorder]]``: named levels, names, which keys go together, what two recorders may share."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.checks import advice
from appliance.config.database_url import sqlite_file, without_password
from appliance.config.extras import extra_problems
from appliance.config.files import all_secrets
from appliance.config.named_levels import read_named
from appliance.config.reading import loads
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError


def recorder(text: str) -> RecorderConfig:
    return loads("[[recorder]]\n" + text).recorder[0]


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text if "[[" in text else "[[recorder]]\n" + text)
    return str(caught.value)


def test_a_named_level_is_a_plus_of_the_filter() -> None:
    """The filter is what the broker knows; each name has the number of its level."""
    named = recorder('topic = "plant/{line}/+/{sensor}/#"\npath = "a.json"')
    assert named.topic_filter == "plant/+/+/+/#"
    assert named.levels == (("line", 1), ("sensor", 3))


def test_doubled_braces_are_braces_of_the_topic() -> None:
    """A topic that has braces in it can still be recorded."""
    named = recorder('topic = "plant/{{x}}/a{{b}}c"\npath = "a.json"')
    assert (named.topic_filter, named.levels) == ("plant/{x}/a{b}c", ())


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("plant/{}/a", "the name of a level begins with a letter"),
        ("plant/{9}/a", "the name of a level begins with a letter"),
        ("plant/{a b}/a", "the name of a level begins with a letter"),
        ("plant/x{a}/a", "a whole level"),
        ("plant/{a/b}", "a whole level"),
        ("plant/{a}{b}", "a whole level"),
        ("plant/}a{", "a whole level"),
        ("plant/{a}/{a}", "two levels have the name a"),
        ("plant/{date}", "means something else"),
    ],
)
def test_a_wrong_named_level_is_said_with_the_fix(topic: str, said: str) -> None:
    """No name is guessed, and no brace is taken for a part of a topic by mistake."""
    assert said in problem(f'topic = "{topic}"\npath = "a.json"')


def test_every_recorder_has_a_name_of_its_own() -> None:
    """Names are in topics and metrics; those of files are made different where they are not."""
    config = loads(
        """
        [[recorder]]
        topic = "a"
        path = "one/x.json"
        [[recorder]]
        topic = "b"
        path = "two/x.json"
        [[recorder]]
        topic = "c"
        path = "three/{date}.json"
        [[recorder]]
        topic = "d"
        path = "four/y.json"
        name = "x-2"
        """
    )
    assert [each.name for each in config.recorder] == ["x", "x-3", "three", "x-2"]


PG = 'database = {url = "postgresql+psycopg://me@db/messages"}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('path = "a.json"\n' + PG, "`database`: `path` is set too"),
        ('path = "a.json"\nname = "a/b"', "a name has 1 to 60"),
        ('path = "a.json"\nkey = "id"', '`key`: it belongs to mode "latest" or "update"'),
        ('path = "a.json"\nmode = "latest"\nkey = "a..b"', "`key`: value"),
        ('path = "a.json"\nmode = "latest"\nrotate = {size = "1MB"}', "`rotate`: it is about"),
        ('path = "a.json"\nmode = "update"\nkeep = {files = 3}', "`keep`: it is about"),
        ('path = "a.json"\nmode = "update"\ncompression = "gzip"', "never closed"),
        ('path = "a.json"\nrotate = {}', "`rotate`: it has no bound; write one of `size`"),
        ('path = "a.json"\nformat = "qvd"\nkeep = {}', "`keep`: it has no bound; write one of"),
        ('path = "a.json"\ncompression = "gzip"', "only closed files are compressed"),
        ('path = "a.qvd"\nformat = "qvd"\ncompression = "gzip"', "compact by itself"),
        ('path = "a.json"\nkeep = {files = 3}', "`keep`: it is about closed files"),
        ('path = "a.json"\nrotate = {messages = 9}\nupload = {}', "only Qlik Cloud has data files"),
        ('path = "a/{lien}.json"\ntopic = "a/{line}"', "did you mean {line}?"),
        ('path = "a.json"\nfields = {}', "`fields`: it names no field"),
        ('path = "a.json"\nfields = {a = "b[x]"}', "`fields.a`: value"),
        ('path = "a.json"\nfields = {a = "b", "" = "c"}', "a name is not empty"),
        ('path = "a.csv"\nformat = "csv"\nfields = {payload = "b"}', "the whole payload has"),
        ('path = "a.json"\nmetadata = true\nfields = {seq = "b"}', "`metadata` has this name"),
        ('path = "a.json"\ntopic = "a/{line}"\nfields = {line = "b"}', "the level of `topic` has"),
        ('path = "a.json"\nmetadata = true\ntopic = "a/{seq}"', "a second column seq"),
        ('path = "a.json"\nfields = {t = "b"}\ntime_field = "t"', "`time_field`: value"),
        ('path = "a.json"\ntypes = {a = "numbr"}', 'did you mean "number"?'),
        ('path = "a.json"\ntypes = {a = "float"}', 'write one of "integer"'),
        ('path = "a.json"\nfields = {temp = "b"}\ntypes = {tmp = "text"}', "did you mean temp?"),
        (PG + '\nformat = "csv"', "`format`: it is about files"),
        (PG + '\nrotate = {size = "1MB"}', "`rotate`: it is about files"),
        ('database = {url = "nonsense"}', "not the address of a database"),
        ('database = {url = "sqlite://"}', "lost at each stop"),
        ('database = {url = "sqlite:///journal.db"}', "a database of the appliance"),
        ('database = {url = "sqlite:///r/x.db", password = "a"}', "has no password"),
        ('database = {url = "sqlite://host/x.db"}', "an SQLite file has no host"),
        ('database = {url = "mongodb://host"}', "it names no database"),
        ('database = {url = "postgresql+asyncpg://h/d"}', "asynchronous"),
        ('database = {url = "postgresql://h/d?password=x"}', "behind the ?"),
        ('database = {url = "postgresql://h/d", table = "a;b"}', "a table's name"),
        ('database = {url = "postgresql://a:b@h/d", password = "c"}', "keep one of them"),
        ('database = {url = "x", password = "a", password_file = "b"}', "keep one of the two"),
    ],
)
def test_keys_that_do_not_go_together_are_said(text: str, said: str) -> None:
    """Each answer names the key and what to do."""
    topic = "" if "topic =" in text else 'topic = "a"\n'
    assert said in problem(topic + text)


@pytest.mark.parametrize(
    "text",
    [
        'path = "a.json"\nmode = "latest"',
        'path = "a.csv"\nformat = "csv"\nmode = "update"\nkey = "device.id"',
        'path = "a/{topic}.json"\nmode = "latest"',
        'path = "a/{date}.json"\nmode = "latest"',
        'path = "a/{date}/{hour}.jsonl"\nformat = "jsonl"\ncompression = "gzip"\nkeep = {files = 9}',
        'path = "a.qvd"\nformat = "qvd"\nkeep = {age = "30d"}',
        'path = "a.json"\nfields = {a = "b[0].c"}\ntypes = {a = "time"}\nflatten = true',
        PG + '\nmode = "latest"\nmetadata = true\nfields = {t = "data.t"}',
    ],
)
def test_what_goes_together_is_taken(text: str) -> None:
    """No rule forbids what a recorder can do."""
    assert recorder('topic = "a/#"\n' + text)


def two(one: str, other: str) -> str:
    return f"[[recorder]]\n{one}\n[[recorder]]\n{other}\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('topic = "a"\npath = "x.json"', 'topic = "b"\npath = "x.json"'),
        ('topic = "a"\npath = "r/{topic}.json"', 'topic = "b"\npath = "r/b.json"'),
        ('topic = "a/#"\npath = "r/{topic}.json"', 'topic = "+/b"\npath = "r/{topic}.json"'),
        ('topic = "a/{l}"\npath = "r/{l}.json"', 'topic = "b/{k}"\npath = "r/{k}.json"'),
        ('topic = "a"\nname = "p"\n' + PG, 'topic = "b"\nname = "P"\n' + PG),
        (
            'topic = "a"\ndatabase = {url = "mongodb://h/d", table = "t"}',
            'topic = "b"\ndatabase = {url = "mongodb://h/d", table = "t"}',
        ),
    ],
)
def test_two_recorders_never_share_a_file_or_table(one: str, other: str) -> None:
    """Also where they only could, by what their placeholders become."""
    said = problem(two(one, other))
    assert "[[recorder]] 2" in said
    assert "choose another" in said or "its own" in said


def test_recorders_of_other_topics_may_have_one_folder() -> None:
    """Different topics never share a file, so their paths may look alike."""
    text = two('topic = "a/#"\npath = "r/{topic}.json"', 'topic = "b/#"\npath = "r/{topic}.json"')
    assert len(loads(text).recorder) == 2


def test_a_database_is_known_again_whatever_files_there_are() -> None:
    """Its name and its table, where the configuration has none, do not depend on other recorders."""
    table = 'topic = "plant/#"\n' + PG
    file = 'topic = "b"\npath = "plant.json"'
    alone = loads(f"[[recorder]]\n{table}").recorder[0]
    beside = loads(two(file, table)).recorder
    assert beside[1] == alone
    assert (alone.name, alone.database and alone.database.table) == ("plant", "plant")
    assert beside[0].name == "plant-2"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cr3t%2Fx@db.example.com/messages",
        "postgresql+psycopg://me:${DB_PASSWORD}@db.example.com/messages",
        "mongodb://me:s3cr3t%2Fx@one,two/messages",
        "mysql+pymysql://:s3cr3t%2Fx@db/messages",
    ],
)
def test_a_password_in_an_address_is_a_secret(url: str) -> None:
    """Neither the address nor any text of the configuration shows it, and the log masks it."""
    text = f'[[recorder]]\ntopic = "a"\ndatabase = {{url = "{url}"}}'
    config = loads(text, environ={"DB_PASSWORD": "s3cr3t%2Fx"})
    database = config.recorder[0].database
    assert database is not None and database.password is not None
    assert database.password.reveal() == "s3cr3t/x"
    assert "s3cr3t" not in repr(config) + database.url
    assert database.password in all_secrets(config)


def test_a_wrong_address_is_not_shown() -> None:
    """A password may be in it."""
    for url in ("postgres:me:s3cr3t@h", "postgresql://me:s3cr@3t@h/d", "sqlite://s3cr3t"):
        assert "s3cr3t" not in problem(f'topic = "a"\ndatabase = {{url = "{url}"}}')


def test_a_missing_package_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that could not work is refused before a message comes."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = loads(
        two('topic = "a"\npath = "a.parquet"\nformat = "parquet"', 'topic = "b"\n' + PG)
        + '[[recorder]]\ntopic = "c"\ndatabase = {url = "mongodb://h/d"}\n'
        + '[[recorder]]\ntopic = "d"\npath = "{date}.jsonl"\ncompression = "zstd"'
    )
    said = list(extra_problems(config))
    for number, extra in ((1, "parquet"), (2, "sql"), (3, "mongodb"), (4, "zstd")):
        command = f"pip install 'qlik-mqtt-appliance[{extra}]'"
        assert any(f"[[recorder]] {number} " in one and command in one for one in said)


def test_a_relative_sqlite_file_is_in_the_data_directory(tmp_path: Path) -> None:
    """As every file that is written."""
    text = (
        f"[service]\ndata_dir = '{tmp_path}'\n[[recorder]]\ntopic = 'a'\n"
        "database = {url = 'sqlite:///recordings/messages.db'}"
    )
    database = loads(text).recorder[0].database
    assert database is not None
    assert sqlite_file(database.url) == str(tmp_path / "recordings" / "messages.db")


def test_the_recorders_in_the_example_are_valid() -> None:
    """What is commented out there can be used by removing the signs."""
    text = files("appliance.config").joinpath("example.toml").read_text("utf-8")
    text = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    tables = re.findall(r"^\[\[recorder\]\]\n(?:\w+ = .*\n)+", text, re.M)
    assert len(tables) == 5
    qlik = '[qlik]\nedition = "cloud"\nurl = "https://a.b"\napi_key = "x"\n'
    assert len(loads("".join(tables) + qlik).recorder) == 5


@pytest.mark.parametrize("name", ["installation", "seq", "item", "payload"])
def test_the_keys_of_a_table_are_no_columns_of_ours(name: str) -> None:
    """A value of a message would stand in the place of what makes rows unique."""
    assert f'"{name}"' in problem(f'topic = "a"\n{PG}\nfields = {{{name} = "x"}}')


def test_names_of_metadata_are_free_without_it() -> None:
    """A payload may have a time of its own."""
    assert recorder(f'topic = "a/{{client}}"\n{PG}\nfields = {{time = "ts"}}').levels


def test_what_may_be_a_mistake_is_said() -> None:
    """Files that stay for ever, and a file name that promises another format."""
    grows = 'topic = "a"\npath = "a.json"\nrotate = {size = "1MB"}'
    json_by_default = 'topic = "b"\npath = "b.parquet"'
    said = "\n".join(advice(loads(two(grows, json_by_default))))
    assert "[[recorder]] 1 has `rotate` and no `keep`" in said
    assert "[[recorder]] 2 writes json, and its `path` ends with .parquet: write format" in said
    last = 'topic = "b"\npath = "b.json"\nmode = "latest"\nflatten = true'
    lines = 'topic = "a"\npath = "a.json"\nformat = "jsonl"'
    assert not [each for each in advice(loads(two(last, lines))) if "recorder" in each]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=8)))
def test_any_topic_is_taken_apart_or_refused(levels: list[str]) -> None:
    """A filter stays one with as many levels, and a level with its braces doubled stays itself."""
    written = "/".join(levels)
    try:
        found = read_named(written)
    except ValueError:
        assert "{" in written or "}" in written
    else:
        assert found.topic_filter.count("/") == written.count("/")
        assert all(found.topic_filter.split("/")[at] == "+" for _, at in found.levels)
    doubled = written.replace("{", "{{").replace("}", "}}")
    assert read_named(doubled) == (written, ())


@given(
    st.sampled_from(["postgresql+psycopg", "mysql+pymysql", "mongodb", "mongodb+srv"]),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8),
    st.text(min_size=1, max_size=20),
)
def test_no_password_stays_in_an_address(scheme: str, user: str, password: str) -> None:
    """Whatever characters it has, if it is written as an address has it."""
    head = f"{scheme}://{user}"
    url, secret = without_password(f"{head}:{quote(password, safe='')}@db.example.com:1/m?a=b")
    assert url == f"{head}@db.example.com:1/m?a=b"
    assert secret is not None
    assert secret.reveal() == password
