"""Promises about the end of a recording after a power cut."""

import random

import pytest

from appliance.recorders.unfinished import SECTOR_BYTES, is_own

CLOSING = b"\n]"


def torn(rng, start, batches, blanks):
    """A disk's mixture of the states between writes: each sector is of any of them."""
    states = [CLOSING + b" " * blanks]
    body = b""
    for batch in batches:
        body += batch
        states.append(body + CLOSING + b" " * blanks)
    size = max(map(len, states))
    found = b""
    while len(found) < size:
        end = len(found) + SECTOR_BYTES - (start + len(found)) % SECTOR_BYTES
        state = rng.choice([*states, b"\0" * size])
        part = state[len(found) : end]
        found += part.ljust(min(end, size) - len(found), rng.choice([b" ", b"\0"]))
    return found, body


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_old_and_new_sectors_is_the_recorder_s_own(seed):
    rng = random.Random(seed)
    start = rng.randrange(2000)
    batches = [
        b"".join(b',\n  {"n": %d}' % rng.randrange(10**9) for _ in range(rng.randrange(1, 80)))
        for _ in range(3)
    ]
    found, body = torn(rng, start, batches, rng.randrange(900))
    assert is_own(found, body, start, (CLOSING,))


@pytest.mark.parametrize("at", [0, 300, 511, 512, 1500])
def test_one_word_of_somebody_else_is_noticed(at):
    body = b"".join(b',\n  {"n": %d}' % n for n in range(200))
    found = body[:at] + b"hello" + body[at + 5 :] + CLOSING
    assert not is_own(found, body, 100, (CLOSING,))
    assert not is_own(body + CLOSING + b"hello", body, 100, (CLOSING,))
