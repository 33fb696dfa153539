"""Which of the appliance's own messages lists leave out."""

import pytest

from appliance.config.upload_topics import uploaded_topic
from appliance.matching import is_own_news
from appliance.model import Message


@pytest.mark.parametrize(
    ("topic", "client", "is_left_out"),
    [
        ("plant/status", "$plant", True),
        ("plant/tasks/8d31c0f8/last", "$plant", True),
        (uploaded_topic("plant", "sensors"), "$plant", False),
        ("other/tasks/8d31c0f8/last", "$plant", False),
        ("plant/status", "press", False),
    ],
)
def test_status_and_outcomes_are_left_out_and_uploads_are_shown(
    topic: str, client: str, is_left_out: bool
) -> None:
    """The row of an upload has what no panel has: the file, and beside it the reload."""
    assert is_own_news(Message(1, 0, topic, b"", client_id=client), "plant/") == is_left_out
