"""The fuzzer's targets on random bytes, and on everything that was ever found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_protocol import POST, TARGETS, WORDS

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
#: What a fuzzer has found goes here; so far that is what others were caught by.
FOUND = [
    ("packet", b"\0\0\0\x09\x05\x00\x00\xf4\x01KEY"),  # uWSGI reads on in the middle of a key
    ("packet", b"\0\0\0GET / HTTP/1.0\r\n\r\n"),  # uWSGI waits for 21573 bytes
    ("variables", b"REQUEST_METHOD=GET\nPATH_INFO=/lf.cgi\0.txt"),  # uWSGI runs lf.cgi
    ("variables", b"REQUEST_METHOD=GET\nPATH_INFO=/x\nQUERY_STRING=-s\nHTTP_PROXY=evil"),  # php-cgi, httpoxy
    ("variables", b"REQUEST_METHOD=POST\nPATH_INFO=/x\nCONTENT_LENGTH=5\nHTTP_CONTENT_LENGTH=6"),  # smuggling
    ("output", b"\x01\x02\x09Location: /a\rSet-Cookie: b=1\n\n"),  # a response split
    ("output", b"\x0c\x1a\x1bStatus: 103\n\nHTTP/1.1 100 x\r\n\r\nStatus: 204\nContent-Length: 5\n\nhello"),
    ("output", b"\0\0\0Content-Length: 5\nContent-Length: 6\nTransfer-Encoding: identity\n\nhello!"),
    ("redirect", b"/%2e%2e/%2e%2e/etc/passwd%00"),
    ("redirect", b"//evil.example/?-s"),
    ("uwsgi", b"\x40\x4a\x50" + POST + b"5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\nbehind"),
    ("uwsgi", b"\0\0\0" + POST + b"ffffffffffffffff0\r\nhello"),  # a size that wraps
    ("http", b"\x10\x40\x41POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n"),
    ("http", b"\x04\x05\x06GET http://a/%00 HTTP/1.1\r\nHost: b\r\n\r\n"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes(name: str) -> None:
    start = b"" if name in ("variables", "redirect") else bytes(3)
    pieces = st.sampled_from(WORDS[name]) | st.binary(max_size=6)
    cuts = st.binary(min_size=len(start), max_size=len(start))

    @settings(deadline=None, max_examples=200)
    @given(st.tuples(cuts, st.lists(pieces, max_size=12)).map(lambda made: made[0] + b"".join(made[1])))
    def fuzz(data: bytes) -> None:
        TARGETS[name](data)

    fuzz()


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_stays_away(name: str, data: bytes) -> None:
    TARGETS[name](data)
