"""A script's output becomes a response: a valid head, and of the body what belongs to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.protocol.cgi_response import Kind
from pyemperor.protocol.errors import ScriptError
from pyemperor.protocol.response import Response, in_one_piece

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
        (b"GET", b"Status: 204 No Content\nContent-Length: 9\n\n"),
        (b"GET", b"Status: 205 Reset Content\nContent-Length: 9\n\n"),
        (b"GET", b"Status: 304 Not Modified\nContent-Length: 9\n\n"),
        (b"GET", b"Location: /there\n\n"),
    ],
)
def test_a_response_without_body(method: bytes, head: bytes) -> None:
    it = response(method)
    assert it.feed(head + b"surplus").endswith(b"\r\n\r\n")
    assert it.feed(b"more") == b""
    assert (it.left, it.surplus) == (0, False)
    it.close()


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        (b"GET", b"204", None),
        (b"GET", b"205", b"0"),
        (b"GET", b"304", b"9"),
        (b"HEAD", b"200", b"9"),
        (b"HEAD", b"204", None),
        (b"GET", b"200", b"9"),
    ],
)
def test_where_a_content_length_means_something(method: bytes, status: bytes, length: bytes | None) -> None:
    sent = response(method).feed(b"Status: " + status + b"\nContent-Length: 9\n\n")
    assert (b"\r\nContent-Length: " + (length or b"") + b"\r\n" in sent) == (length is not None)
    assert sent.count(b"Content-Length") == (length is not None)


def test_a_205_says_that_nothing_follows() -> None:
    assert b"\r\nContent-Length: 0\r\n" in response().feed(b"Status: 205\n\n")


def test_the_limit_of_the_head() -> None:
    output = b"A: " + b"v" * 95 + b"\n\n"
    assert Response(b"GET", b"HTTP/1.1", head_limit=100).feed(output)
    with pytest.raises(ScriptError, match="larger than 99 bytes"):
        Response(b"GET", b"HTTP/1.1", head_limit=99).feed(output)


@pytest.mark.parametrize(
    ("output", "noted"), [(b"HTTP/1.1 203 Fine\nA: b\n\n", False), (b"Status: 203 Fine\nA: b\n\n", True)]
)
def test_a_name_that_promises_a_status_line(output: bytes, noted: bool) -> None:
    it = Response(b"GET", b"HTTP/1.1", nph=True)
    assert it.feed(output) == b"HTTP/1.1 203 Fine\r\nA: b\r\n\r\n"
    assert it.head is not None
    assert any("nph-" in note for note in it.head.notes) == noted
    other = Response(b"GET", b"HTTP/1.1")
    other.feed(output)
    assert other.head is not None
    assert other.head.notes == ()


def test_a_local_redirect_is_known_before_it_is_sent() -> None:
    it = response()
    assert it.feed(b"Location: /there?x=1\n") == b""
    sent = it.feed(b"\nsurplus")
    assert it.head is not None
    assert (it.head.kind, it.head.location) == (Kind.LOCAL_REDIRECT, b"/there?x=1")
    assert sent == b"HTTP/1.1 302 Found\r\nLocation: /there?x=1\r\nConnection: close\r\n\r\n"
    assert it.left == 0


def test_nginx_follows_a_local_redirect_and_no_other() -> None:
    local = Response(b"GET", b"HTTP/1.1", accel=True).feed(b"Location: /there?x=1\n\n")
    assert local == b"HTTP/1.1 302 Found\r\nLocation: /there?x=1\r\nX-Accel-Redirect: /there?x=1\r\n\r\n"
    for output in (b"Location: http://h/\n\n", b"Location: /a\nContent-Type: t/p\n\n", b"Location: /a#b\n\n"):
        assert b"X-Accel" not in Response(b"GET", b"HTTP/1.1", accel=True).feed(output)


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


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("body", [b"", b"hello", b"\n\nhello\r\n\r\n"])
def test_a_plain_response_is_found_in_one_look(end: bytes, body: bytes) -> None:
    length = b"Content-Length: %d" % len(body)
    for lines in ([b"Content-Type: text/plain"], [b"Status: 404 No", b"X: y"], [b"X: y", length]):
        found = in_one_piece(end.join([*lines, b"", b""]) + body, b"HTTP/1.1", 100)
        assert found is not None
        head, size, response = found
        assert response[size:] == body
        assert response.startswith(b"HTTP/1.1 %d " % head.status)


@pytest.mark.parametrize(
    "output",
    [
        b"", b"\n\n", b"X: y", b"X: y\n", b"\nX: y\n\n", b"no header\n\n", b"Location: /here\n\n",
        b"Status: 204\n\n", b"Status: 103\n\nX: y\n\n", b"HTTP/1.1 200 OK\n\n", b"Status: 200\nStatus: 404\n\n",
        b"Content-Length: 3\n\nmore", b"Content-Length: 3\n\nle", b"X: " + b"y" * 200 + b"\n\n",
    ],
)  # fmt: skip
def test_what_is_not_plain_takes_a_closer_look(output: bytes) -> None:
    assert in_one_piece(output, b"HTTP/1.1", 100) is None
