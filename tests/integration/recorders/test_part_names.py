"""Complete files on every system: names, restarts and readers, without a package that reads them."""

import re
import sys

from recorders_rig import Plant

from appliance.config.tables import RotateConfig

QVD = ("t", "rec/one.qvd", {"format": "qvd", "rotate": RotateConfig(messages=3)})


def rows(path):
    return int(re.search(rb"<NoOfRecords>(\d+)</NoOfRecords>", path.read_bytes())[1])


def test_a_reader_that_has_files_open_hinders_nothing(tmp_path):
    """Also on Windows, where a file that is open can't be replaced: no name is used twice."""
    folder = tmp_path / "rec"
    with Plant(tmp_path, QVD) as plant:
        plant.publish({"n": 1}, {"n": 2}, {"n": 3})
        first = folder / "one-000000000001-000000000003.qvd"
        plant.until(lambda _: first.exists())
        with first.open("rb") as held:
            plant.publish({"n": 4}, {"n": 5}, {"n": 6}, {"n": 7})
            plant.settle()
            assert held.read(5) == b"<?xml"
    with Plant(tmp_path, QVD) as plant:
        plant.publish({"n": 8})
    assert {path.name: rows(path) for path in folder.iterdir()} == {
        "one-000000000001-000000000003.qvd": 3,
        "one-000000000004-000000000006.qvd": 3,
        "one-000000000007-000000000007.qvd": 1,
        "one-000000000008-000000000008.qvd": 1,
    }


def test_a_part_that_another_program_holds_open_waits_for_it(tmp_path):
    """A virus scanner looks at the file before it has its name: it gets it once that is done."""
    with Plant(tmp_path, QVD) as plant:
        plant.publish({"n": 1}, {"n": 2})
        plant.until(lambda states: states[0].recorded == 2)
        with (tmp_path / "rec/.one.qvd.part").open("rb"):
            plant.publish({"n": 3})
            if sys.platform == "win32":
                plant.until(lambda states: states[0].health.level == "bad")
        plant.until(lambda states: states[0].health.level == "ok" and states[0].recorded == 3)
        plant.until(lambda _: len(list((tmp_path / "rec").iterdir())) == 1)
    (path,) = (tmp_path / "rec").iterdir()
    assert (path.name, rows(path)) == ("one-000000000001-000000000003.qvd", 3)
