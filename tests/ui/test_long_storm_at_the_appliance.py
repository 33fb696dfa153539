"""The UI never fails in five minutes of a storm of keys.

A file of its own: another worker has the other storm at the same time.
"""

import sys

import pytest

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
    pytest.mark.timeout(600),
]

if sys.platform != "win32":
    import program_storms


def test_a_long_storm_ends_nothing(tmp_path):
    program_storms.at_the_appliance(tmp_path, program_storms.SEED, 300)
