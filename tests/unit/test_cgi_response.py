"""The response head: reader, writer, and the words for what is wrong with a script's output."""

import pytest

from pyemperor.protocol.cgi_response import (
    HeadParser,
    Kind,
    ResponseHead,
    encode_head,
    error_response,
    parse_head,
)
from pyemperor.protocol.errors import ScriptError


def read(output: bytes, *, limit: int = 65536) -> ResponseHead:
    head = HeadParser(limit=limit).feed(output)
    assert head is not None
    return head


def refusal(output: bytes) -> ScriptError:
    """Return the error that ``output`` causes, at the latest when the script ends."""
    parser = HeadParser()
    try:
        assert parser.feed(output) is None
        parser.close()
    except ScriptError as error:
        return error


def test_the_usual_head() -> None:
    parser = HeadParser()
    head = parser.feed(b"Content-Type: text/plain\r\n\r\nhello")
    assert head == ResponseHead(200, b"", ((b"Content-Type", b"text/plain"),))
    assert parser.leftover == b"hello"


def test_a_body_of_blank_lines_is_kept() -> None:
    parser = HeadParser()
    assert parser.feed(b"A: b\n\n\n\r\n\n") is not None
    assert parser.leftover == b"\n\r\n\n"


def test_one_byte_at_a_time() -> None:
    parser = HeadParser()
    output = b"Status: 404 Not Found\r\nContent-Type: text/plain\n\r\n"
    for at in range(len(output) - 1):
        assert parser.feed(output[at : at + 1]) is None
    head = parser.feed(output[-1:])
    assert head is not None
    assert (head.status, head.reason, parser.leftover) == (404, b"Not Found", b"")


def test_a_short_head_after_a_long_interim_response_in_pieces() -> None:
    parser = HeadParser()
    assert parser.feed(b"Status: 103 Early Hints\nLink: </style.css>") is None
    head = parser.feed(b"\n\nA: b\n\nbody")
    assert head is not None
    assert (head.headers, parser.leftover) == (((b"A", b"b"),), b"body")


def test_a_long_head_in_pieces_after_a_short_interim_response() -> None:
    parser = HeadParser()
    assert parser.feed(b"Status: 103") is None
    assert parser.feed(b"\n\nA: " + b"b" * 40 + b"\n") is None
    head = parser.feed(b"\nbody")
    assert head is not None
    assert (head.headers, parser.leftover) == (((b"A", b"b" * 40),), b"body")


@pytest.mark.parametrize(
    ("line", "value"),
    [(b"X-A:v", b"v"), (b"X-A: v", b"v"), (b"X-A: \t v \t", b"v"), (b"X-A:", b""), (b"X-A: a:b", b"a:b")],
)
def test_spaces_around_a_value_do_not_count(line: bytes, value: bytes) -> None:
    assert read(line + b"\r\n\n").headers == ((b"X-A", value),)


def test_other_headers_repeat_in_order() -> None:
    head = read(b"Set-Cookie: a=1\nContent-Type: t/p\nset-cookie: b=2\n\n")
    assert head.headers == ((b"Set-Cookie", b"a=1"), (b"Content-Type", b"t/p"), (b"set-cookie", b"b=2"))
    assert head.notes == ()


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        (b"Status: 404 Not Here\n\n", 404, b"Not Here"),
        (b"Status:404\n\n", 404, b""),
        (b"status: 100 x\n\nStatus: 201\n\n", 201, b""),
        (b"Status: 999 Odd  one \n\n", 999, b"Odd  one"),
        (b"Location: http://x/\n\n", 302, b""),
        (b"Location: http://x/\nStatus: 303 See Other\n\n", 303, b"See Other"),
        (b"Status: 303 See Other\nLocation: http://x/\n\n", 303, b"See Other"),
        (b"Location:\n\n", 200, b""),
    ],
)
def test_status(output: bytes, status: int, reason: bytes) -> None:
    head = read(output)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize("value", [b"abc", b"", b"99", b"099", b"1000", b"20", b"200OK", b"-200", b"2 00"])
def test_a_status_that_is_none(value: bytes) -> None:
    error = refusal(b"Status: " + value + b"\n\n")
    assert error.status == 502
    assert f"Status: {value.decode()}" in str(error)
    assert "three digits" in error.remedy


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (b"Content-Type: t/p\n\n", Kind.DOCUMENT),
        (b"Status: 304\n\n", Kind.DOCUMENT),
        (b"Status: 201\nLocation: /new\nContent-Type: t/p\n\n", Kind.DOCUMENT),
        (b"Location: /other?q=1\n\n", Kind.LOCAL_REDIRECT),
        (b"Location: //example.org/\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: other\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: /other#part\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: /other\nSet-Cookie: a=b\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: /other\nStatus: 302\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: http://example.org/\n\n", Kind.CLIENT_REDIRECT),
        (b"HTTP/1.1 302 Found\nLocation: /x\n\n", Kind.CLIENT_REDIRECT),
        (b"Location: http://x/\nStatus: 302 Found\nContent-Type: t/h\n\n", Kind.CLIENT_REDIRECT_DOCUMENT),
        (b"Location: /x\nContent-Type: t/h\n\n", Kind.CLIENT_REDIRECT_DOCUMENT),
    ],
)
def test_kinds(output: bytes, kind: Kind) -> None:
    assert read(output).kind is kind


def test_the_location_is_kept_for_a_local_redirect() -> None:
    head = read(b"Location: /other?q=1\n\n")
    assert head.location == b"/other?q=1"
    assert encode_head(head, b"HTTP/1.1") == b"HTTP/1.1 302 Found\r\nLocation: /other?q=1\r\n\r\n"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "ended without sending a response"),
        (b"Status: 103 Early Hints\n\n", "ended without sending a response"),
        (b"\nbody", "begins with a blank line"),
        (b"\r\nbody", "begins with a blank line"),
        (b"Content-Type: text/plain", "ended before the blank line"),
        (b"Content-Type: text/plain\r\n", "ended before the blank line"),
        (b"Traceback (most recent call last)\n", "line 1 of the script's header is no header: it has"),
        (b"A: b\nhello world\n\n", "line 2 of the script's header is no header"),
        (b"A: b\n folded\nhello\n\n", "line 3 of the script's header is no header"),
        (b" folded: first\nA: b\n\n", "line 1 of the script's header has b' ' in its name"),
        (b"Content Type: x\n\n", "line 1 of the script's header has b' ' in its name"),
        (b"A: b\r\nContent-Type : x\n\n", "line 2 of the script's header has b' ' in its name"),
        (b"\xc3\xa9: x\n\n", "has b'\\xc3' in its name"),
        (b": x\n\n", "line 1 of the script's header has no name"),
        (b"A: b\nB: c\x01d\n\n", "line 2 of the script's header has the control character 0x01"),
        (b"A: b\0\n\n", "has the control character 0x00"),
        (b"A: b\x7f\n\n", "has the control character 0x7f"),
        (b"A: b\rX: y\n\n", "has the control character 0x0d"),
        (b"HTTP/1.1 OK\n\n", "line 1 of the script's header is no HTTP status line"),
        (b"HTTP/1.1 099 x\n\n", "is no HTTP status line"),
        (b"HTTP/1.1 200 OK\nno colon\n\n", "line 2 of the script's header is no header"),
        (b"Transfer-Encoding: chunked\n\n", "sent Transfer-Encoding: chunked"),
        (b"x" * 65537, "larger than 65536 bytes"),
    ],
)
def test_what_is_no_response(output: bytes, words: str) -> None:
    error = refusal(output)
    assert error.status == 502
    assert words in str(error)


def test_the_bad_line_goes_to_the_log_not_to_the_client() -> None:
    error = refusal(b'  File "/srv/secret.py", line 1\n')
    assert "secret" not in str(error)
    assert "/srv/secret.py" in error.remedy


def test_the_limit_is_the_size_that_still_passes() -> None:
    output = b"A: " + b"v" * 95 + b"\n\n"
    assert read(output + b"body" * 1000, limit=100)
    with pytest.raises(ScriptError, match="larger than 99 bytes") as caught:
        HeadParser(limit=99).feed(output)
    assert "`cgi-buffer-size`" in caught.value.remedy


def test_a_folded_value_becomes_one_line() -> None:
    head = read(b"Content-Type: text/html;\r\n\t charset=utf-8\r\nX: a\n  b: c\n \n\n")
    assert head.headers == ((b"Content-Type", b"text/html; charset=utf-8"), (b"X", b"a b: c"))


@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Proxy-Authenticate", "PROXY-x", "TE", "Trailer", "Upgrade", "X-CGI-Y"],
)
def test_what_is_not_for_the_client_is_dropped(name: str) -> None:
    assert read(b"%b: v\nA: b\n\n" % name.encode()).headers == ((b"A", b"b"),)


def test_transfer_encoding_identity_is_dropped() -> None:
    assert read(b"Transfer-Encoding: Identity\nA: b\n\n").headers == ((b"A", b"b"),)


def test_the_first_of_repeated_cgi_fields_counts_and_the_log_hears_of_it() -> None:
    head = read(b"Status: 404\nContent-Type: a/b\nSTATUS: 200\ncontent-type: c/d\nStatus: 404\n\n")
    assert (head.status, head.headers) == (404, ((b"Content-Type", b"a/b"),))
    assert head.notes == (
        "STATUS is repeated: b'200' is ignored",
        "content-type is repeated: b'c/d' is ignored",
    )


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"Content-Length: 5\n", 5),
        (b"Content-Length: 5\nContent-Length: 5\n", 5),
        (b"Content-Length: 0\n", 0),
        (b"Content-Length:\n", None),
    ],
)
def test_content_length(fields: bytes, length: int | None) -> None:
    head = read(b"A: b\n" + fields + b"\n")
    assert head.content_length == length
    assert head.headers[1:] == (() if length is None else ((b"Content-Length", b"%d" % length),))
    assert head.notes == ()


@pytest.mark.parametrize("value", [b"x", b"-1", b"5, 5", b"5\nContent-Length: 6", b"9" * 19])
def test_a_content_length_that_is_not_one_number_is_dropped(value: bytes) -> None:
    head = read(b"A: b\nContent-Length: " + value + b"\n\n")
    assert (head.content_length, head.headers) == (None, ((b"A", b"b"),))
    assert any("Content-Length is dropped" in note for note in head.notes)


def test_a_head_too_large_for_nginx_is_noted() -> None:
    assert read(b"A: " + b"v" * 4000 + b"\n\n").notes == ()
    (note,) = read(b"A: " + b"v" * 4100 + b"\n\n").notes
    assert "`uwsgi_buffer_size`" in note


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 203 Fine\r\n", 203, b"Fine"),
        (b"HTTP/1.0 204\n", 204, b""),
        (b"HTTP/2 200 \n", 200, b""),
    ],
)
def test_a_status_line_makes_it_nph(line: bytes, status: int, reason: bytes) -> None:
    head = read(line + b"A: b\nStatus: 500\n\n")
    assert (head.status, head.reason, head.headers) == (status, reason, ((b"A", b"b"),))
    assert read(line + b"\n").headers == ()


@pytest.mark.parametrize(
    ("protocol", "version"),
    [(b"", b"1.0"), (b"HTTP/1.0", b"1.0"), (b"HTTP/1.1", b"1.1"), (b"HTTP/2.0", b"1.1")],
)
def test_the_version_of_the_answer(protocol: bytes, version: bytes) -> None:
    head = parse_head(b"Content-Type: text/plain")
    assert encode_head(head, protocol) == b"HTTP/%b 200 OK\r\nContent-Type: text/plain\r\n\r\n" % version


def test_the_servers_own_fields_come_last() -> None:
    raw = encode_head(parse_head(b"A: b\nContent-Length: 5"), b"HTTP/1.1", [(b"X-Accel-Buffering", b"no")])
    assert raw == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nX-Accel-Buffering: no\r\n\r\n"


def test_a_status_that_nobody_knows_has_no_reason() -> None:
    assert encode_head(parse_head(b"Status: 299"), b"HTTP/1.1") == b"HTTP/1.1 299 \r\n\r\n"


def test_error_response() -> None:
    body = b"502 Bad Gateway\n\nthe script ended without sending a response\n"
    assert error_response(502, "the script ended without sending a response") == (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def test_error_response_with_remedy_and_headers() -> None:
    headers = [(b"Retry-After", b"1")]
    raw = error_response(503, "busy \udcff", "try later", protocol=b"HTTP/1.0", headers=headers)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 1\r\n" in head
    assert head.endswith(b"Content-Length: %d" % len(body))
    assert body == b"503 Service Unavailable\n\nbusy \\udcff\n\ntry later\n"


def test_an_error_response_reads_back() -> None:
    head = read(error_response(404, "no such script"))
    assert (head.status, head.reason) == (404, b"Not Found")
