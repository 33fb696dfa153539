"""A path with placeholders: no topic leads out of its folder, and no two topics share a file."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.config.named_levels import read_named
from appliance.config.path_placeholders import (
    LONGEST_NAME,
    PathTemplate,
    may_be_same,
    read_template,
)
from appliance.config.reading import loads
from appliance.errors import ConfigError
from appliance.recorders.paths import PathMaker, is_device, safe

NOON_NS = 1_764_417_600_000_000_000
"""2025-11-29, 12:00 UTC."""
DATA = str(Path("/srv/data").absolute())
FORBIDDEN_ON_WINDOWS = set('<>:"/\\|?*') | {chr(n) for n in range(32)} | {"\x7f"}

TOPICS = st.text(
    st.one_of(
        st.sampled_from("abABkKsSiI/.~%+_- 017"),
        st.sampled_from("ßſKÅÅµμıİǰʼnςσΣΐüÜéfifl²①가가\u0308\u0301\u200d\ufeff\u202e"),
        st.sampled_from("\\:*?\"<>|\n\x01\x7f$'"),
        st.characters(codec="utf-8", exclude_characters="\0+#"),
    ),
    min_size=1,
    max_size=60,
)
NASTY = [
    "..", ".", "/", "//", "../../etc/passwd", "..\\..\\x", "C:\\x", "C:", "a:b", "con", "NUL.x",
    "com1", "COM¹", "lpt9.txt", "a.", "a ", " a", ".a", "~", "%", "%2f", "$MFT", "a" * 70000,
]  # fmt: skip


def made(path: str, topic: str, topic_filter: str = "#", at_ns: int = NOON_NS) -> Path:
    levels = dict(read_named(topic_filter).levels)
    template = read_template(str(Path(DATA) / path), DATA, levels)
    maker = PathMaker(template, levels)
    return maker.path(topic, maker.period(at_ns))


def names_below(path: Path, folder: str) -> tuple[str, ...]:
    return path.relative_to(Path(DATA) / folder).parts


def as_file_system(name: str) -> str:
    """What two names have in common that a file system takes for one."""
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFKD", folded).upper().casefold().rstrip(". ")


@given(TOPICS)
@example("..")
def test_a_topic_makes_one_name_that_every_system_takes(topic: str) -> None:
    (name,) = names_below(made("recordings/{topic}", topic), "recordings")
    assert name not in {"", ".", ".."}
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert not FORBIDDEN_ON_WINDOWS & set(name)
    assert not is_device(name)
    assert len(name.encode()) <= LONGEST_NAME
    assert PureWindowsPath(name).parts == PurePosixPath(name).parts == (name,)


@pytest.mark.parametrize("topic", NASTY)
@pytest.mark.parametrize("path", ["r/{topic}", "r/{topic}.jsonl", "r/{level}/{topic}.csv"])
def test_known_ways_out_stay_in_the_folder(path: str, topic: str) -> None:
    names = names_below(made(path, topic, "{level}/#"), "r")
    assert len(names) == path.count("/")
    for name in names:
        assert not is_device(name)
        assert not FORBIDDEN_ON_WINDOWS & set(name)
        assert name.strip(". ") == name
        assert len(name.encode()) <= LONGEST_NAME


def variants(topic: str) -> set[str]:
    """Texts that a file system may take for the same name."""
    found = {topic, topic.lower(), topic.upper(), topic.title(), topic.swapcase(), topic.casefold()}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        found |= {unicodedata.normalize(form, each) for each in found}
    return found | {each + end for each in found for end in (".", " ")} - {""}


@given(TOPICS)
@example("straße/Strasse")
@example("\u212b\u00e5a\u030a")
@example("가")
@example("\u1100\u1161")
def test_topics_that_a_file_system_could_mix_up_get_different_files(topic: str) -> None:
    topics = sorted(variants(topic))
    names = {as_file_system(made("r/{topic}.jsonl", each).name) for each in topics}
    assert len(names) == len(topics)


@given(st.tuples(TOPICS, TOPICS), st.tuples(TOPICS, TOPICS))
@example(("a_b", "c"), ("a", "b_c"))
@example(("", "a"), ("a", ""))
@example(("a~1", "b"), ("A", "b"))
def test_levels_in_one_name_are_told_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    def name(levels: tuple[str, str]) -> str:
        topic = "/".join(level.replace("/", "_") for level in levels)
        return as_file_system(made("r/{line}_{sensor}.csv", topic, "{line}/{sensor}").name)

    same = [level.replace("/", "_") for level in one] == [lv.replace("/", "_") for lv in other]
    assert (name(one) == name(other)) == same


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_long_values_are_told_apart(one: str, other: str) -> None:
    names = [safe(each.replace("\ud800", ""), 40) for each in (f"x{one}", f"x{other}")]
    assert (as_file_system(names[0]) == as_file_system(names[1])) == (one == other)
    assert all(len(name.encode()) <= 40 for name in names)


def test_usual_topics_stay_readable() -> None:
    assert made("r/{topic}.jsonl", "plant/line 7/temp_1").name == "plant+line 7+temp_1.jsonl"
    assert made("r/{topic}.jsonl", "plant/Line7").name == "plant+Line7~20.jsonl"
    assert made("r/{topic}.jsonl", "öfen/düse").name == "öfen+düse.jsonl"


def test_date_and_hour_are_those_of_the_message_in_utc() -> None:
    path = made("r/{date}/{hour}_{line}.jsonl", "plant/press", "plant/{line}")
    assert names_below(path, "r") == ("2025-11-29", "12_press.jsonl")
    day_ns = 86_400_000_000_000
    early = made("r/{date}.jsonl", "x", at_ns=-day_ns)
    late = made("r/{date}.jsonl", "x", at_ns=2**63 - 1)
    assert (early.name, late.name) == ("1969-12-31.jsonl", "2262-04-11.jsonl")


def test_no_topic_has_the_file_of_others() -> None:
    levels = dict(read_named("{line}/{sensor}").levels)
    template = read_template(str(Path(DATA) / "r/{line}_{sensor}.csv"), DATA, levels)
    assert PathMaker(template, levels).path_of_others(0).name == "~others_~others.csv"
    assert made("r/{line}_{sensor}.csv", "~others/~others", "{line}/{sensor}").name[0] == "%"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("r/{Topic}.csv", "did you mean {topic}?"),
        ("r/{sensr}.csv", "did you mean {sensor}?"),
        ("r/{machine}.csv", "plant/{machine}/#"),
        ("r/{line}{sensor}.csv", "write {line}_{sensor}"),
        ("r/{line}x{sensor}.csv", "write {line}_{sensor}"),
        ("r/{line}/../{sensor}.csv", 'leave it out'),
        ("{topic}.csv", "recordings/{topic}.jsonl"),
        ("../{topic}/x.csv", "recordings/{topic}.jsonl"),
        ("r/" + "x" * 170 + "{topic}.csv", "too little room"),
    ],
)  # fmt: skip
def test_a_path_that_can_t_be_taken_is_explained(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        made(path, "plant/a/b", "plant/{line}/{sensor}")
    assert said in str(raised.value)


def test_braces_in_the_data_directory_or_around_no_name_are_no_placeholders() -> None:
    folder = str(Path("/srv/{topic}/data").absolute())
    template = read_template(str(Path(folder) / "r/{1}-{topic}.csv"), folder, ())
    path = PathMaker(template, {}).path("x", 0)
    assert path == Path(folder) / "r" / "{1}-x.csv"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("r/{topic}.csv", "r/x.csv", True),
        ("r/{topic}.csv", "r/X.CSV", True),
        ("r/{topic}.csv", "r/x.json", False),
        ("r/{topic}.csv", "s/x.csv", False),
        ("r/{topic}.csv", "r/s/x.csv", False),
        ("r/{topic}", "r/s/x.csv", True),
        ("r/{topic}.csv", "r/{line}.csv", True),
        ("r/a-{topic}.csv", "r/b-{topic}.csv", False),
        ("r/a-{topic}.csv", "r/{line}-b.csv", True),
        ("r/{date}/{topic}.csv", "r/{topic}/x.csv", True),
        ("r/x.csv", "r/x.csv", True),
        ("r/x.csv", "r/y.csv", False),
    ],
)
def test_paths_that_could_meet_are_found(one: str, other: str, *, is_same: bool) -> None:
    def read(path: str) -> PathTemplate | str:
        whole = str(Path(DATA) / path)
        return read_template(whole, DATA, ("line",)) if "{" in path else whole

    assert may_be_same(read(one), read(other)) == is_same
    assert may_be_same(read(other), read(one)) == is_same


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["r/{sensr}.csv"], "did you mean {sensor}?"),
        (["r/{topic}.csv", "r/x.csv"], "may write the same file for some topic"),
        (["r/{topic}.csv", "r/{sensor}.csv"], "may write the same file for some topic"),
        (["logs/{topic}.csv"], "a file of the appliance itself"),
        (["keys/{topic}.txt"], "for some topic is the file of [access] `users_file`"),
    ],
)
def test_paths_that_a_topic_could_misuse_are_refused(paths: list[str], said: str) -> None:
    folder = Path(DATA).as_posix()
    text = f'[service]\ndata_dir = "{folder}"\n[access]\nusers_file = "{folder}/keys/u.txt"\n'
    for path in paths:
        text += f'[[recorder]]\ntopic = "plant/{{sensor}}"\npath = "{path}"\nformat = "csv"\n'
    with pytest.raises(ConfigError) as raised:
        loads(text)
    assert said in str(raised.value)
