"""The names that files get in Qlik Cloud."""

from pathlib import Path

import pytest

from appliance.config.tables import RecorderConfig, TopicFilter, UploadConfig, WritePath
from appliance.recorders.upload_names import remote_name

DATA = Path("/srv/appliance/data")


@pytest.mark.parametrize(
    ("path", "file", "series", "upload", "name"),
    [
        ("r/a.qvd", "r/a-01-02.qvd", "r/a.qvd", {}, "a-01-02.qvd"),
        ("r/a.qvd", "r/a-01-02.qvd", "r/a.qvd", {"folder": "/x/y/"}, "x/y/a-01-02.qvd"),
        ("r/a.qvd", "r/a-01-02.qvd", "r/a.qvd", {"replace": True}, "a.qvd"),
        (
            "r/{line}/a.qvd",
            "r/7/a-01-02.qvd",
            "r/7/a.qvd",
            {"folder": "x", "replace": True},
            "x/7/a.qvd",
        ),
        (
            "r/{date}/{topic}.csv",
            "r/2026-11-29/plant+7-01.csv",
            "r/2026-11-29/plant+7.csv",
            {},
            "2026-11-29/plant+7-01.csv",
        ),
    ],
)
def test_folders_of_placeholders_are_folders_there(
    path: str, file: str, series: str, upload: dict[str, object], name: str
) -> None:
    """Fixed folders are not; with `replace` the numbers of messages are left out."""
    config = RecorderConfig(
        topic=TopicFilter("plant/{line}"),
        path=WritePath(DATA / path),
        upload=UploadConfig(**upload),  # type: ignore[arg-type]
    )
    assert remote_name(config, DATA / file, DATA / series, DATA) == name


def test_a_compressed_file_keeps_its_ending_when_it_replaces_another() -> None:
    """Or the tenant would take it for what it is not."""
    config = RecorderConfig(
        topic=TopicFilter("plant/#"),
        path=WritePath(DATA / "a.csv"),
        compression="gzip",
        upload=UploadConfig(replace=True),
    )
    found = remote_name(config, DATA / "a-01.csv.gz", DATA / "a.csv", DATA)
    assert found == "a.csv.gz"
