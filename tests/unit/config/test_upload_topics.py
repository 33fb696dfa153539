"""Uploads that would go round for ever are told before they run."""

import pytest

from appliance.config.reading import loads
from appliance.config.upload_topics import upload_advice, uploaded_topic

HEAD = """
[service]
name = "plant"
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "cloud"
url = "https://x.eu.qlikcloud.com"
api_key = "abc"
"""


def recorder(topic: str, path: str, *, upload: bool = True) -> str:
    table = f'[[recorder]]\ntopic = "{topic}"\npath = "{path}"\nformat = "csv"\n'
    return table + ('rotate = {every = "1m"}\nupload = {}\n' if upload else "")


TRIGGER = '[[trigger]]\ntopic = "plant/recorders/{}/uploaded"\ntask = {{app = "Sales"}}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (recorder("line/#", "a.csv") + TRIGGER.format("a"), []),
        (recorder("#", "a.csv"), ['1 `topic` "#" takes the messages of its own uploads, so']),
        (recorder("#", "a.csv", upload=False), []),
        (
            recorder("plant/tasks/+/last", "a.csv") + TRIGGER.format("+"),
            ["uploads and the outcomes of its reload"],
        ),
        (recorder("plant/tasks/+/last", "a.csv"), []),
        (
            recorder("plant/recorders/b/uploaded", "a.csv")
            + recorder("plant/recorders/a/+", "b.csv"),
            ["[[recorder]] 1", "[[recorder]] 2"],
        ),
        (
            recorder("line/#", "recording.csv") + TRIGGER.format("recordings"),
            ['did you mean "plant/recorders/recording/uploaded"?'],
        ),
        (
            recorder("line/#", "one/a.csv") + recorder("other/#", "two/a.csv"),
            ["files of [[recorder]] 1 go to the same folder"],
        ),
        (TRIGGER.format("a"), ["no [[recorder]] with `upload` publishes there"]),
    ],
)
def test_rounds_and_names_that_nothing_has_are_told(text: str, said: list[str]) -> None:
    """Only where an upload leads to itself; a trigger alone is what uploads are for."""
    found = list(upload_advice(loads(HEAD + text)))
    assert len(found) == len(said)
    assert all(part in one for part, one in zip(said, found, strict=True))


@pytest.mark.parametrize(("space", "count"), [("Production data", 1), ("", 0)])
def test_the_simulated_tenant_has_no_space(space: str, count: int) -> None:
    """A configuration for a tenant that is tried with ``edition = "simulated"``."""
    text = (
        '[qlik]\nedition = "simulated"\n[[recorder]]\ntopic = "a"\npath = "a.qvd"\nformat = "qvd"\n'
        f'upload = {{space = "{space}"}}\n'
    )
    found = list(upload_advice(loads(text)))
    assert len(found) == count
    assert all("leave `space` out" in each for each in found)


def test_a_name_is_one_level_of_the_topic() -> None:
    """Whatever characters it has."""
    assert uploaded_topic("plant", "a/b+#") == "plant/recorders/a_b__/uploaded"
