"""The uwsgi protocol byte by byte: golden packets, and the faults of others that must not come back."""

import struct

import pytest

from pyemperor.actors.wires import UwsgiWire
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import MAX_BLOCK, PONG, Packet, PacketParser, encode_packet
from pyemperor.protocol.variables import body_length, merge_vars

GOLDEN = bytes.fromhex(
    "09 2b 00 00"  # modifier1 9, 43 bytes, modifier2 0
    "0e 00 52 45 51 55 45 53 54 5f 4d 45 54 48 4f 44 03 00 47 45 54"  # REQUEST_METHOD=GET
    "09 00 50 41 54 48 5f 49 4e 46 4f 02 00 2f 78"  # PATH_INFO=/x
    "01 00 41 02 00 ff 0a"  # any bytes are a value
)
GOLDEN_VARS = ((b"REQUEST_METHOD", b"GET"), (b"PATH_INFO", b"/x"), (b"A", b"\xff\n"))


def test_golden_packet() -> None:
    """uwsgi protocol, packet: u8, u16 little endian, u8, then (u16, key, u16, value) without padding."""
    assert len(GOLDEN) == 4 + 43
    assert PacketParser().feed(GOLDEN) == Packet(9, 0, GOLDEN_VARS)
    assert encode_packet(GOLDEN_VARS, modifier1=9) == GOLDEN


def test_against_struct() -> None:
    """uwsgi protocol: the header as C declares it, packed and little endian on every machine."""
    raw = encode_packet([(b"KEY", b"v" * 300)], modifier1=173, modifier2=5)
    assert struct.unpack_from("<BHB", raw) == (173, 2 + 3 + 2 + 300, 5)
    assert struct.unpack_from("<H3sH", raw, 4) == (3, b"KEY", 300)


def test_ping_is_answered_with_pong() -> None:
    """uwsgi protocol, modifier 100: request 64 00 00 00, reply 64 00 00 01 as uWSGI 2.0.21 sends it."""
    assert PacketParser().feed(b"\x64\x00\x00\x00") == Packet(100, 0, ())
    assert bytes.fromhex("64000001") == PONG


def test_body_prefix_of_the_same_read_is_kept() -> None:
    """uwsgi protocol: the body follows the block unframed, often in the same read; none of it is lost."""
    parser = PacketParser()
    parser.feed(GOLDEN[:-1])
    assert parser.feed(GOLDEN[-1:] + b"\x09\x00\x00\x00first bytes of the body") is not None
    assert parser.leftover == b"\x09\x00\x00\x00first bytes of the body"


def test_duplicates_keep_their_order() -> None:
    """nginx before 1.23.0 sends one var per repeated header field; both are on the wire, in order."""
    pairs = ((b"HTTP_COOKIE", b"a=1"), (b"HTTP_X", b""), (b"HTTP_COOKIE", b"b=2"))
    packet = PacketParser().feed(encode_packet(pairs))
    assert packet is not None
    assert packet.vars == pairs


def test_keys_are_case_sensitive() -> None:
    """uwsgi protocol: keys are bytes and nothing folds their case."""
    packet = PacketParser().feed(encode_packet([(b"path_info", b"a"), (b"PATH_INFO", b"b")]))
    assert packet is not None
    assert dict(packet.vars) == {b"path_info": b"a", b"PATH_INFO": b"b"}


def test_default_takes_all_that_nginx_can_send() -> None:
    """unbit/uwsgi #1164: buffer-size 4096, uWSGI's default, turns big cookies into a 502; ours is 65535."""
    pairs = ((b"REQUEST_METHOD", b"GET"), (b"HTTP_COOKIE", b"c" * 60_000))
    assert PacketParser().feed(encode_packet(pairs)) == Packet(9, 0, pairs)


def test_more_than_128_vars() -> None:
    """uWSGI closes without a response from 129 pairs on (max-vars 64); nginx allows 1000 client headers."""
    pairs = tuple((b"HTTP_X%d" % n, b"v") for n in range(1000))
    assert PacketParser().feed(encode_packet(pairs)) == Packet(9, 0, pairs)


def test_key_longer_than_the_block_does_not_desynchronise() -> None:
    """uWSGI skips 2 bytes and reads on when a key overruns the block; here it is a 400 at once."""
    with pytest.raises(RequestError, match="points outside the var block of 5 bytes") as caught:
        PacketParser().feed(b"\x09\x05\x00\x00\xf4\x01KEY")
    assert caught.value.status == 400


def test_oversize_is_answered_with_the_directive() -> None:
    """uWSGI resets on `invalid request block size` and nginx shows a bare 502; the client gets a 431 here."""
    with pytest.raises(RequestError) as caught:
        PacketParser(buffer_size=4096).feed(b"\x00\x01\x10\x00")
    assert caught.value.status == 431
    assert "`buffer-size` to 4097" in caught.value.remedy


def test_plain_http_does_not_wait_for_21573_bytes() -> None:
    """'GET ' read as a packet announces 21573 bytes: uWSGI waits 4 s for them and closes in silence."""
    with pytest.raises(RequestError, match="the request is HTTP"):
        PacketParser().feed(b"GET / HTTP/1.0\r\n\r\n")


def test_uwsgi_magic_variables_are_ignored() -> None:
    """UWSGI_FILE, UWSGI_SETENV and UWSGI_POSTFILE act on uWSGI's worker: whoever may connect may run code."""
    magic = [
        (b"UWSGI_FILE", b"exec://id"),
        (b"UWSGI_SETENV", b"LD_PRELOAD=/x"),
        (b"UWSGI_POSTFILE", b"/etc/passwd"),
    ]
    assert merge_vars([(b"REQUEST_METHOD", b"GET"), *magic]) == {b"REQUEST_METHOD": b"GET"}


def test_nginx_sends_the_clients_transfer_encoding_for_a_body_it_has_decoded() -> None:
    """uWSGI 2.1-dev believes it and hands the script 0 of 120 bytes; CONTENT_LENGTH wins."""
    sent = [
        (b"REQUEST_METHOD", b"POST"),
        (b"CONTENT_LENGTH", b"120"),
        (b"HTTP_TRANSFER_ENCODING", b"chunked"),
    ]
    assert body_length(merge_vars(sent)) == 120


def test_a_body_is_chunked_only_where_no_length_says_otherwise() -> None:
    """RFC 3875 §4.2: such a body has to be decoded, and its length found, before the script starts."""
    sent = [(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b""), (b"HTTP_TRANSFER_ENCODING", b"Chunked")]
    assert body_length(merge_vars(sent)) is None
    assert body_length(merge_vars(sent[:2])) == 0
    wire = UwsgiWire(MAX_BLOCK)
    assert wire.feed(encode_packet(sent) + b"3\r\nabc\r\n") is None
    request = wire.feed(b"2\r\nde\r\n0\r\n\r\n")
    assert request is not None
    assert (request.variables[b"CONTENT_LENGTH"], wire.leftover) == (b"5", b"abcde")


@pytest.mark.parametrize("length", [b"5abc", b"-5", b"+5", b"5 ", b"0x5", b"5,5", b"1_0", b"\xd9\xa5"])
def test_content_length_is_digits_only(length: bytes) -> None:
    """uWSGI takes leading digits: `5abc` is 5, `-5` is 5; a request of unclear length is a 400 here."""
    with pytest.raises(RequestError, match="CONTENT_LENGTH is not a number") as caught:
        merge_vars([(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", length)])
    assert caught.value.status == 400


def test_content_length_does_not_wrap() -> None:
    """uWSGI's content-length parser wraps at 64 bits; a length that large is a 413."""
    with pytest.raises(RequestError) as caught:
        merge_vars([(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b"18446744073709551621")])
    assert caught.value.status == 413
