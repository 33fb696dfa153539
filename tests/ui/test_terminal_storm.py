"""The UI never fails in a storm of keys: half a minute at the appliance, half a minute attached."""

import sys

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
    pytest.mark.timeout(600),
]

if sys.platform != "win32":
    import program_storms


@pytest.mark.parametrize("where", ["at_the_appliance", "attached"])
def test_a_storm_ends_nothing(where, tmp_path):
    getattr(program_storms, where)(tmp_path, program_storms.SEED, 30)
