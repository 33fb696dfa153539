"""Bodies that are read from a file while they are sent."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.qlik.bodies import PIECE, Body, FileChangedError, form
from appliance.qlik.simulated.data_files import _parts
from appliance.qlik.simulated.messages import Request


@given(
    before=st.binary(max_size=50),
    size=st.integers(0, 3 * PIECE),
    after=st.binary(max_size=50),
    skipped=st.integers(0, 10),
)
def test_a_body_is_its_parts_in_small_pieces(
    before: bytes, size: int, after: bytes, skipped: int
) -> None:
    """Its length is known before, and no piece is larger than one read."""
    content = bytes(number % 251 for number in range(size))
    file = io.BytesIO(b"x" * skipped + content + b"behind")
    file.seek(skipped)
    body = Body(file, size, before=before, after=after, kind="text/plain")
    length, pieces = len(body), list(body)
    assert b"".join(pieces) == before + content + after
    assert length == len(before) + size + len(after)
    assert max(map(len, pieces), default=0) <= PIECE
    assert body.read() == b""


@given(content=st.binary(max_size=300), name=st.text(max_size=20))
def test_a_form_has_the_file_unchanged(content: bytes, name: str) -> None:
    """Whatever bytes it has, also line ends at its end."""
    body = form({"name": name}, io.BytesIO(content), len(content))
    sent = b"".join(body)
    request = Request("POST", "/", {}, {"content-type": body.kind}, sent)
    parts = _parts(request)
    assert parts["File"] == content
    assert set(parts) == {"Json", "File"}


def test_a_file_that_became_shorter_ends_the_body_with_an_error() -> None:
    """So that the connection is broken off rather than filled with something else."""
    body = Body(io.BytesIO(b"12"), 3, kind="text/plain")
    assert body.read() == b"12"
    with pytest.raises(FileChangedError):
        body.read()
