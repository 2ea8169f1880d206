"""The uwsgi packet: parser, encoder, limits and the words of their errors."""

import pytest

from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import (
    MAX_BLOCK,
    PONG,
    Modifier,
    Packet,
    PacketParser,
    encode_packet,
    parse_vars,
)

REQUEST = (
    (b"QUERY_STRING", b""),
    (b"REQUEST_METHOD", b"POST"),
    (b"CONTENT_LENGTH", b"5"),
    (b"PATH_INFO", b"/cgi-bin/hello"),
    (b"HTTP_COOKIE", b"a=1"),
    (b"HTTP_COOKIE", b"b=2"),
)


def test_a_whole_packet_in_one_read() -> None:
    parser = PacketParser()
    assert parser.feed(encode_packet(REQUEST, modifier1=9)) == Packet(9, 0, REQUEST)
    assert parser.leftover == b""


def test_the_body_that_came_with_it_is_left_over() -> None:
    parser = PacketParser()
    assert parser.feed(encode_packet(REQUEST) + b"hello") is not None
    assert parser.leftover == b"hello"


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_bytes_like_object_is_taken(wrap: type[bytes]) -> None:
    parser = PacketParser()
    packet = parser.feed(wrap(encode_packet(REQUEST, modifier2=7) + b"body"))
    assert packet == Packet(9, 7, REQUEST)
    assert type(parser.leftover) is bytes
    assert parser.leftover == b"body"
    assert packet is not None
    assert all(type(part) is bytes for pair in packet.vars for part in pair)


def test_one_byte_at_a_time() -> None:
    parser = PacketParser()
    raw = encode_packet(REQUEST)
    for at in range(len(raw) - 1):
        assert parser.feed(raw[at : at + 1]) is None
    assert parser.feed(raw[-1:]) == Packet(9, 0, REQUEST)


def test_a_parser_can_take_the_next_packet() -> None:
    parser = PacketParser()
    assert parser.feed(encode_packet(REQUEST, modifier1=0)[:9]) is None
    assert parser.feed(encode_packet(REQUEST, modifier1=0)[9:] + PONG) == Packet(0, 0, REQUEST)
    assert parser.feed(parser.leftover) == Packet(100, 1, ())


def test_buffer_size_is_the_size_that_still_passes() -> None:
    raw = encode_packet(REQUEST)
    assert PacketParser(buffer_size=len(raw) - 4).feed(raw) is not None
    with pytest.raises(RequestError) as caught:
        PacketParser(buffer_size=len(raw) - 5).feed(raw)
    assert caught.value.status == 431
    assert f"{len(raw) - 4} bytes, {len(raw) - 5} are allowed" in str(caught.value)
    assert f"raise `buffer-size` to {len(raw) - 4}" in caught.value.remedy


def test_an_oversize_packet_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(RequestError, match="40000 bytes, 32768 are allowed"):
        PacketParser(buffer_size=32768).feed(b"\x09\x40\x9c\x00")


def test_the_body_does_not_count_against_buffer_size() -> None:
    raw = encode_packet(REQUEST)
    assert PacketParser(buffer_size=len(raw) - 4).feed(raw + bytes(100_000)) is not None


def test_max_vars_is_the_number_that_still_passes() -> None:
    raw = encode_packet([(b"HTTP_X", b"")] * 10)
    assert PacketParser(max_vars=10).feed(raw) is not None
    with pytest.raises(RequestError, match="10 variables and header fields, 9 are allowed") as caught:
        PacketParser(max_vars=9).feed(raw)
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\x00\x00\x01\x00v", "empty key at byte 0"),
        (b"\x01\x00K\x01\x00V\x00\x00\x00\x00", "empty key at byte 6"),
        (b"\x01", "at its start"),
        (b"\xf4\x01KEY", "at its start"),
        (b"\x01\x00K", "at its start"),
        (b"\x01\x00K\x01", "at its start"),
        (b"\x01\x00K\x02\x00V", "at its start"),
        (b"\x01\x00K\x01\x00V\x05\x00AB", "after b'K'"),
        (b"\x01\x00K\x01\x00V\x01\x00L\x09\x00W", "after b'K'"),
    ],
)
def test_a_broken_block_is_a_400_that_says_where(block: bytes, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_vars(block)
    assert caught.value.status == 400
    assert words in str(caught.value)


def test_a_value_may_be_empty_even_the_last() -> None:
    assert parse_vars(b"\x01\x00A\x00\x00\x01\x00B\x00\x00") == [(b"A", b""), (b"B", b"")]


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1\r\n", b"HEAD / H", b"POST", b"PUT /x", b"DELETE /", b"OPTIONS *", b"PATCH /"]
)
def test_http_on_the_uwsgi_socket_is_recognised(line: bytes) -> None:
    parser = PacketParser()
    assert parser.feed(line[:3]) is None
    with pytest.raises(RequestError, match="speaks the uwsgi protocol") as caught:
        parser.feed(line[3:])
    assert caught.value.status == 400
    assert "`http-socket`" in caught.value.remedy
    assert "`uwsgi_pass`" in caught.value.remedy


def test_tls_on_the_uwsgi_socket_is_recognised() -> None:
    with pytest.raises(RequestError, match="TLS handshake"):
        PacketParser().feed(bytes.fromhex("16030102000100"))


@pytest.mark.parametrize("first", [ord("G"), ord("H"), ord("P"), 22])
def test_a_packet_whose_modifier_is_such_a_letter_still_parses(first: int) -> None:
    assert PacketParser().feed(encode_packet(REQUEST, modifier1=first)) == Packet(first, 0, REQUEST)


def test_close_inside_a_packet_is_an_error_and_before_it_is_not() -> None:
    parser = PacketParser()
    parser.close()
    parser.feed(b"\x09\x10\x00")
    with pytest.raises(RequestError, match="ended after 3 bytes"):
        parser.close()


def test_close_after_a_packet_is_no_error() -> None:
    parser = PacketParser()
    assert parser.feed(encode_packet(REQUEST)[:6]) is None
    assert parser.feed(encode_packet(REQUEST)[6:]) is not None
    parser.close()


def test_the_largest_packet() -> None:
    pairs = ((b"K", bytes(MAX_BLOCK - 5)),)
    raw = encode_packet(pairs, modifier1=Modifier.WSGI)
    assert raw[:4] == b"\x00\xff\xff\x00"
    assert PacketParser().feed(raw) == Packet(0, 0, pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"", b"v")],
        [(b"K" * 65536, b"")],
        [(b"K", bytes(65536))],
        [(b"K", bytes(65531))],
        [(b"K", bytes(40000)), (b"L", bytes(40000))],
    ],
)
def test_what_no_packet_can_hold_is_not_encoded(pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match=r"empty|longer|holds"):
        encode_packet(pairs)


@pytest.mark.parametrize("modifiers", [{"modifier1": 256}, {"modifier1": -1}, {"modifier2": 256}])
def test_a_modifier_is_one_byte(modifiers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="range"):
        encode_packet([], **modifiers)
