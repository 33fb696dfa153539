"""The UI never fails in a storm of keys: a terminal attached.

A file of its own: another worker has the other storm at the same time.
"""

import sys

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
    pytest.mark.timeout(600),
]

if sys.platform != "win32":
    import program_storms


def test_seconds_of_it_end_nothing(tmp_path):
    program_storms.attached(tmp_path, program_storms.SEED, 2)


@pytest.mark.campaign
def test_a_longer_one_ends_nothing(tmp_path):
    program_storms.attached(tmp_path, program_storms.SEED, program_storms.SECONDS)
