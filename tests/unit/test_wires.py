"""Wires: bytes of a connection to one request, whatever the pieces they come in."""

import itertools
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.wires import HttpWire, Request, UwsgiWire, Wire
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import encode_packet

GET = b"GET /a/b?c=d HTTP/1.1\r\nHost: h:8\r\nX-One: 1\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n"
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
    wire = UwsgiWire(65535)
    assert fed(wire, encode_packet([*pairs, (b"CONTENT_LENGTH", b"8")]) + b"5\r\nhello").length == 8
    assert wire.leftover == b"5\r\nhello"
    assert wire.announced is None


def test_a_body_that_is_still_in_chunks_gets_its_length() -> None:
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"PATH_INFO", b"/a"), (b"HTTP_TRANSFER_ENCODING", b"Chunked")]
    wire = UwsgiWire(65535)
    packet = encode_packet(pairs, modifier1=5, modifier2=7)
    assert wire.feed(packet + b"5\r\nhel") is None
    assert wire.announced
    variables = {b"REQUEST_METHOD": b"POST", b"PATH_INFO": b"/a", b"CONTENT_LENGTH": b"8"}
    assert wire.feed(b"lo\r\n3;x=y\r\nyou\r\n0\r\nT: u\r\n\r\nbehind") == Request(5, 7, variables, 8)
    assert (wire.leftover, bool(wire.announced)) == (b"helloyou", False)


def test_other_codings_are_unknown() -> None:
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"gzip, chunked")]
    assert refused(UwsgiWire(65535), encode_packet(pairs)).status == 501


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


def test_the_host_of_a_target_counts(tcp: socket.socket) -> None:
    request = b"GET http://h.example:81/p HTTP/1.1\r\nHost: other\r\n\r\n"
    assert fed(HttpWire(tcp), request).variables[b"HTTP_HOST"] == b"h.example:81"


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


@pytest.mark.parametrize("length", [b"", b"Content-Length: 4\r\n"])
def test_chunks_become_a_body_with_a_length(tcp: socket.socket, length: bytes) -> None:
    wire = HttpWire(tcp)
    request = fed(wire, CHUNKED % length + b"5\r\nhello\r\n0\r\n\r\n")
    assert (request.length, request.variables[b"CONTENT_LENGTH"], wire.leftover) == (5, b"5", b"hello")
    assert b"HTTP_TRANSFER_ENCODING" not in request.variables


def test_no_chunk_is_no_body(tcp: socket.socket) -> None:
    wire = HttpWire(tcp)
    request = fed(wire, CHUNKED % b"" + b"0\r\n\r\n")
    assert (request.length, b"CONTENT_LENGTH" in request.variables, wire.leftover) == (0, False, b"")


def test_a_large_body_in_chunks_lies_in_a_file(tcp: socket.socket) -> None:
    body = bytes(range(256)) * 4096
    wire = HttpWire(tcp)
    assert wire.feed(CHUNKED % b"" + b"%x\r\n" % len(body) + body[:70000]) is None
    request = fed(wire, body[70000:] + b"\r\n0\r\n\r\n")
    assert request.length == len(body)
    read, write = os.pipe()
    with open(read, "rb") as pipe:
        assert os.write(write, wire.leftover[1 << 16 : 1 << 17]) == 1 << 16
        os.close(write)
        assert pipe.read() == body[1 << 16 : 1 << 17]
    assert bytes(wire.leftover) == body


def test_chunks_are_limited(tcp: socket.socket) -> None:
    sent = CHUNKED % b"" + b"5\r\nhello\r\n"
    wire = HttpWire(tcp, chunked_limit=9)
    assert wire.feed(sent) is None
    assert refused(wire, b"5\r\nworld\r\n").status == 413
    assert fed(HttpWire(tcp, chunked_limit=5), sent + b"0\r\n\r\n").length == 5


@pytest.mark.parametrize("body", [b"hello\r\n", b"-5\r\n", b"5\r\nhello!!", b"0x5\r\n", b"5 5\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("http", [False, True])
def test_what_is_no_chunk(tcp: socket.socket, body: bytes, http: bool) -> None:
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]
    wire, head = (HttpWire(tcp), CHUNKED % b"") if http else (UwsgiWire(65535), encode_packet(pairs))
    assert wire.feed(head) is None
    error = refused(wire, body)
    assert (error.status, "not in chunks" in str(error)) == (400, True)


@pytest.mark.parametrize("http", [False, True])
def test_an_end_inside_the_chunks(tcp: socket.socket, http: bool) -> None:
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]
    wire, head = (HttpWire(tcp), CHUNKED % b"") if http else (UwsgiWire(65535), encode_packet(pairs))
    assert wire.feed(head + b"5\r\nhello\r\n") is None
    with pytest.raises(RequestError, match="inside the request"):
        wire.close()


def test_100_continue_is_asked_for_before_the_first_chunk(tcp: socket.socket) -> None:
    wire = HttpWire(tcp)
    assert wire.interim() == b""
    assert wire.feed(CHUNKED % b"Expect: 100-continue\r\n") is None
    assert wire.announced
    assert wire.interim().startswith(b"HTTP/1.1 100 ")
    assert wire.interim() == b""
    assert fed(wire, b"1\r\nx\r\n0\r\n\r\n").length == 1


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


@given(
    body=st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    cuts=st.sets(st.integers(1, 200), max_size=8).map(sorted),
    http=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_chunks_in_pieces_make_no_difference(body: list[bytes], cuts: list[int], http: bool) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in body) + b"0\r\n\r\n"
    pairs = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire: Wire = HttpWire(ours) if http else UwsgiWire(65535)
        data = (CHUNKED % b"" if http else encode_packet(pairs)) + chunks
        edges = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
        requests = [wire.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    assert requests[:-1] == [None] * (len(requests) - 1)
    assert requests[-1] is not None
    assert (requests[-1].length, wire.leftover) == (len(b"".join(body)), b"".join(body))
