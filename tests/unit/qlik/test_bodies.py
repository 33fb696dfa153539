"""The end of a request's body is found whatever its chunks, or it is said that there is none."""

import io
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.qlik.simulated import bodies

NEXT = b"GET /qrs/about HTTP/1.1\r\n"


def chunked() -> Message:
    headers = Message()
    headers["Transfer-Encoding"] = "chunked"
    return headers


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    extension=st.sampled_from([b"", b";a", b' ; name="x;y"']),
    trailers=st.lists(st.sampled_from([b"A: 1\r\n", b"Checksum: abc\r\n"]), max_size=3),
    size_form=st.sampled_from([b"%x", b"%X", b"000%x"]),
)
def test_chunks_are_joined_and_what_follows_stays(chunks, extension, trailers, size_form) -> None:
    data = b"".join(size_form % len(each) + extension + b"\r\n" + each + b"\r\n" for each in chunks)
    stream = io.BytesIO(data + b"0" + extension + b"\r\n" + b"".join(trailers) + b"\r\n" + NEXT)
    assert bodies.read(stream, chunked()) == b"".join(chunks)
    assert stream.read() == NEXT


@given(st.binary(max_size=200))
def test_any_other_bytes_are_an_error_or_a_body(data) -> None:
    try:
        assert len(bodies.read(io.BytesIO(data), chunked())) <= len(data)
    except bodies.BodyError as error:
        assert error.status in (400, 413)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_a_length_is_a_number_or_an_error(text) -> None:
    headers = Message()
    headers["Content-Length"] = text
    try:
        assert bodies.declared_length(headers) == int(text)
    except bodies.BodyError as error:
        assert error.status in (400, 413)


def test_trailers_without_an_end_are_given_up() -> None:
    stream = io.BytesIO(b"0\r\n" + b"A: 1\r\n" * 1000 + b"\r\n")
    with pytest.raises(bodies.BodyError, match="Too many trailers"):
        bodies.read(stream, chunked())
