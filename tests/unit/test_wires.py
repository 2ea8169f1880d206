"""Wires: bytes of a connection to one request, whatever the pieces they come in."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.wires import HttpWire, Request, UwsgiWire, Wire
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import encode_packet

GET = b"GET /a/b?c=d HTTP/1.1\r\nHost: h:8\r\nX-One: 1\r\n\r\n"
PACKET = encode_packet([(b"REQUEST_METHOD", b"GET"), (b"PATH_INFO", b"/a/b"), (b"CONTENT_LENGTH", b"3")])


@pytest.fixture(scope="module")
def tcp() -> Iterator[socket.socket]:
    """The server's end of a real connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        yield accepted


def fed(wire: Wire, data: bytes) -> Request:
    request = wire.feed(data)
    assert request is not None
    return request


def refused(wire: Wire, data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        wire.feed(data)
    return caught.value


# ---- uwsgi ----------------------------------------------------------------------------------------------


def test_a_packet() -> None:
    wire = UwsgiWire(65535)
    request = fed(wire, PACKET + b"abcdef")
    assert request == Request(9, 0, request.variables, 3)
    assert request.variables == {b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/a/b", b"CONTENT_LENGTH": b"3"}
    assert wire.leftover == b"abcdef"
    assert wire.interim() == b""
    assert wire.headers == ()


def test_a_ping_needs_no_variables() -> None:
    assert fed(UwsgiWire(65535), bytes((100, 0, 0, 0))) == Request(100, 0, {}, 0)


def test_modifiers_are_passed_on() -> None:
    packet = encode_packet([(b"REQUEST_METHOD", b"GET")], modifier1=5, modifier2=7)
    request = fed(UwsgiWire(65535), packet)
    assert (request.modifier1, request.modifier2) == (5, 7)


def test_a_chunked_body_is_taken_where_the_front_says_its_length() -> None:
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]
    assert fed(UwsgiWire(65535), encode_packet([*pairs, (b"CONTENT_LENGTH", b"8")])).length == 8
    assert refused(UwsgiWire(65535), encode_packet(pairs)).status == 411


# ---- HTTP -----------------------------------------------------------------------------------------------


def test_a_request_looks_as_if_it_came_from_nginx(tcp: socket.socket) -> None:
    host, port = tcp.getsockname()
    client, client_port = tcp.getpeername()
    assert fed(HttpWire(tcp), GET).variables == {
        b"REQUEST_METHOD": b"GET",
        b"REQUEST_URI": b"/a/b?c=d",
        b"PATH_INFO": b"/a/b",
        b"QUERY_STRING": b"c=d",
        b"SERVER_PROTOCOL": b"HTTP/1.1",
        b"REQUEST_SCHEME": b"http",
        b"SERVER_ADDR": host.encode(),
        b"SERVER_PORT": b"%d" % port,
        b"REMOTE_ADDR": client.encode(),
        b"REMOTE_PORT": b"%d" % client_port,
        b"HTTP_HOST": b"h:8",
        b"HTTP_X_ONE": b"1",
    }


def test_a_unix_socket_has_no_addresses() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        variables = fed(HttpWire(ours), GET).variables
    assert not {b"REMOTE_ADDR", b"SERVER_PORT"} & variables.keys()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a%20b%2Fc?x=%2F?y", b"/a b/c", b"x=%2F?y"),
        (b"/a/./b//c/../d", b"/a/b/d", b""),
        (b"/a/..", b"/", b""),
        (b"/a/b/..", b"/a/", b""),
        (b"/a/.", b"/a/", b""),
        (b"/../../x", b"/x", b""),
        (b"/%2e%2e/%2E./x", b"/x", b""),
        (b"/..a/.b", b"/..a/.b", b""),
        (b"/%c3%bc", "/ü".encode(), b""),
        (b"http://h.example/p?q", b"/p", b"q"),
        (b"http://h.example", b"/", b""),
        (b"http://h.example?q", b"/", b"q"),
    ],
)
def test_targets(tcp: socket.socket, target: bytes, path: bytes, query: bytes) -> None:
    variables = fed(HttpWire(tcp), b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target).variables
    assert (variables[b"PATH_INFO"], variables.get(b"QUERY_STRING", b"")) == (path, query)
    assert variables[b"REQUEST_URI"] == target


def test_fields_with_underscores_cannot_pass_for_others(tcp: socket.socket) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX_Real_Ip: evil\r\nX-Real-Ip: good\r\n\r\n"
    assert fed(HttpWire(tcp), request).variables[b"HTTP_X_REAL_IP"] == b"good"


def test_a_body_follows_as_it_is(tcp: socket.socket) -> None:
    wire = HttpWire(tcp)
    request = fed(wire, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab\r\n")
    assert request.length == 9
    assert wire.leftover == b"ab\r\n"


def test_100_continue_is_for_those_who_wait(tcp: socket.socket) -> None:
    waiting, other = HttpWire(tcp), HttpWire(tcp)
    fed(waiting, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    fed(other, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    assert waiting.interim().startswith(b"HTTP/1.1 100 ")
    assert other.interim() == b""


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"])
def test_chunks_need_a_front(tcp: socket.socket, length: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\n" % length
    error = refused(HttpWire(tcp), head)
    assert error.status == 411
    assert "nginx" in error.remedy


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_head_that_is_too_large(tcp: socket.socket, pieces: int) -> None:
    wire = HttpWire(tcp)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + bytes(b"y" * 65536) + b"\r\n\r\n"
    if pieces == 2:
        assert wire.feed(head[:40000]) is None
        head = head[40000:]
    assert refused(wire, head).status == 431


def test_a_large_body_behind_a_small_head_is_not_too_large(tcp: socket.socket) -> None:
    body = bytes(100_000)
    wire = HttpWire(tcp)
    fed(wire, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + body)
    assert wire.leftover == body


def test_an_end_before_the_request(tcp: socket.socket) -> None:
    wire = HttpWire(tcp)
    wire.close()  # a connection without a word is no error
    assert wire.feed(GET[:10]) is None
    with pytest.raises(RequestError, match="inside the request"):
        wire.close()


# ---- both -----------------------------------------------------------------------------------------------


@given(cuts=st.sets(st.integers(1, len(PACKET) + 2), max_size=8).map(sorted), http=st.booleans())
@settings(deadline=None, max_examples=100)
def test_pieces_make_no_difference(cuts: list[int], http: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        whole: Wire = HttpWire(ours) if http else UwsgiWire(65535)
        wire: Wire = HttpWire(ours) if http else UwsgiWire(65535)
        head, body = GET if http else PACKET, b"abc"
        expected = fed(whole, head + body)
        found = None
        behind = b""
        for start, end in zip([0, *cuts], [*cuts, len(head + body)], strict=True):
            piece = (head + body)[start:end]
            if found is None:
                found = wire.feed(piece)
                behind = wire.leftover
            else:
                behind += piece
        assert found == expected
        assert behind == whole.leftover == body
