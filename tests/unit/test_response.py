"""A script's output becomes a response: a valid head, and of the body what belongs to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.protocol.errors import ScriptError
from pyemperor.protocol.response import Response

HEAD = b"Content-Type: text/plain\n\n"


def response(method: bytes = b"GET") -> Response:
    return Response(method, b"HTTP/1.1", ((b"Connection", b"close"),))


def test_a_document() -> None:
    it = response()
    assert it.feed(HEAD[:10]) == b""
    assert it.head is None
    sent = it.feed(HEAD[10:] + b"body")
    assert sent == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nbody"
    assert (it.head_size, it.left) == (len(sent) - 4, None)
    assert it.feed(b" goes on") == b" goes on"
    it.close()


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", HEAD),
        (b"HEAD", b"Content-Length: 9\n\n"),
        (b"GET", b"Status: 204 No Content\n\n"),
        (b"GET", b"Status: 304 Not Modified\nContent-Length: 9\n\n"),
    ],
)
def test_a_response_without_body(method: bytes, head: bytes) -> None:
    it = response(method)
    assert it.feed(head + b"surplus").endswith(b"\r\n\r\n")
    assert it.feed(b"more") == b""
    assert (it.left, it.surplus) == (0, False)
    it.close()


def test_not_more_than_announced() -> None:
    it = response()
    assert it.feed(b"Content-Length: 5\n\nabc").endswith(b"abc")
    assert (it.left, it.surplus) == (2, False)
    assert it.feed(b"defg") == b"de"
    assert (it.left, it.surplus) == (0, True)
    it.close()


def test_less_than_announced_is_not_whole() -> None:
    it = response()
    it.feed(b"Content-Length: 5\n\nabc")
    with pytest.raises(ScriptError, match="2 bytes before the end"):
        it.close()


@pytest.mark.parametrize("output", [b"", HEAD[:-1], b"no header"])
def test_an_end_inside_the_head_is_not_whole(output: bytes) -> None:
    it = response()
    it.feed(output)
    with pytest.raises(ScriptError):
        it.close()


@given(
    body=st.binary(max_size=30),
    length=st.none() | st.integers(0, 30),
    cuts=st.lists(st.integers(0, 70), max_size=6).map(sorted),
)
@settings(deadline=None, max_examples=200)
def test_pieces_make_no_difference(body: bytes, length: int | None, cuts: list[int]) -> None:
    output = (b"" if length is None else b"Content-Length: %d\n" % length) + HEAD + body
    whole, pieces = response(), response()
    expected = whole.feed(output)
    sent = b"".join(pieces.feed(output[i:j]) for i, j in zip([0, *cuts], [*cuts, None], strict=True))
    assert sent == expected
    assert expected.endswith(body if length is None else body[:length])
    assert (pieces.left, pieces.surplus) == (whole.left, whole.surplus)
