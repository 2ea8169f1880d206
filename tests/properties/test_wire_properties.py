"""What holds for all bytes: splits do not matter, garbage has one kind of error, parse undoes encode."""

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyemperor.protocol.cgi import (
    base_environment,
    match_mount,
    request_path,
    script_candidates,
    script_environment,
)
from pyemperor.protocol.cgi_response import HeadParser, ResponseHead, encode_head
from pyemperor.protocol.errors import RequestError, ScriptError
from pyemperor.protocol.response import Response, in_one_piece
from pyemperor.protocol.uwsgi import Packet, PacketParser, encode_packet, plain_packet
from pyemperor.protocol.variables import merge_vars

fast = settings(deadline=None, max_examples=150)

names = st.one_of(
    st.sampled_from(
        [b"PATH_INFO", b"HTTP_COOKIE", b"HTTP_PROXY", b"HTTP_X", b"HTTP_HOST", b"LD_PRELOAD", b"UWSGI_FILE"]
    ),
    st.sampled_from([b"CONTENT_LENGTH", b"HTTP_CONTENT_LENGTH", b"HTTP_AUTHORIZATION", b"SSL_X", b"PATH"]),
    st.binary(min_size=1, max_size=20),
)
vars_lists = st.lists(st.tuples(names, st.binary(max_size=40)), max_size=30)
cuts = st.lists(st.integers(0, 400), max_size=8)

good_lines = st.one_of(
    st.sampled_from([b"Content-Type: text/html", b"Status: 404 Not Found", b"Status:201", b"Location: /x"]),
    st.sampled_from([b"Content-Length: 3", b"Content-Length: x", b"Connection: close", b"X-CGI-A: 1"]),
    st.from_regex(rb"[A-Z][a-z-]{0,8}: ?[ -~\x80-\xff]{0,12}", fullmatch=True),
    st.from_regex(rb"X[!#-'a-z]{0,3}: ?[ -~\x80-\xff]{0,12}(\r?\n[ \t][ -~]{0,5}){0,2}", fullmatch=True),
)
lines = st.one_of(
    good_lines,
    st.sampled_from([b"HTTP/1.1 203 Fine", b"HTTP/1.0 100 Continue", b"Status: 103", b"", b" folded"]),
    st.sampled_from([b"no colon", b"\tx: y", b"Transfer-Encoding: chunked", b"HTTP/1.1 abc"]),
    st.binary(max_size=20),
)
ends = st.sampled_from([b"\n", b"\r\n"])
heads = st.tuples(st.lists(st.tuples(good_lines, ends), min_size=1, max_size=8), ends).map(
    lambda parts: b"".join(line + end for line, end in parts[0]) + parts[1]
)
outputs = st.lists(st.tuples(lines, ends), max_size=10).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def pieces(data: bytes, at: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    for start, stop in pairwise(edges):
        yield data[start:stop]


def read_packet(data: bytes, at: list[int], **limits: int) -> tuple[Packet | str | None, bytes]:
    """Parse ``data`` cut ``at``; an error comes back as its text, the body with what was not fed any more."""
    parser = PacketParser(**limits)
    parts = pieces(data, at)
    try:
        for part in parts:
            packet = parser.feed(part)
            if packet is not None:
                return packet, parser.leftover + b"".join(parts)
        return None, b""
    except RequestError as error:
        return f"{error.status} {error}", b""


def read_head(output: bytes, at: list[int], limit: int) -> tuple[ResponseHead | str, bytes]:
    parser = HeadParser(limit=limit)
    parts = pieces(output, at)
    try:
        for part in parts:
            head = parser.feed(part)
            if head is not None:
                return head, parser.leftover + b"".join(parts)
        parser.close()
    except ScriptError as error:
        return f"{error} {error.remedy}", b""


@fast
@given(vars_lists, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=30), cuts)
def test_any_split_of_an_encoded_packet_gives_it_back(
    pairs: list[tuple[bytes, bytes]], modifier1: int, modifier2: int, body: bytes, at: list[int]
) -> None:
    raw = encode_packet(pairs, modifier1=modifier1, modifier2=modifier2)
    assume(raw[:2] != b"\x16\x03" and not raw[:4].isalpha())
    assert read_packet(raw + body, at) == (Packet(modifier1, modifier2, tuple(pairs)), body)


@fast
@given(st.binary(max_size=400) | outputs, cuts, st.integers(0, 300), st.integers(0, 5))
def test_any_bytes_give_the_same_packet_or_error_in_any_split(
    data: bytes, at: list[int], buffer_size: int, max_vars: int
) -> None:
    limits = {"buffer_size": buffer_size, "max_vars": max_vars}
    assert read_packet(data, at, **limits) == read_packet(data, [], **limits)


@fast
@given(st.binary(min_size=1, max_size=80), cuts)
def test_a_damaged_block_is_parsed_to_its_last_byte_or_refused(block: bytes, at: list[int]) -> None:
    raw = bytes((9, len(block), 0, 0)) + block
    packet, body = read_packet(raw, at)
    assert isinstance(packet, str) or (packet is not None and encode_packet(packet.vars) == raw)
    assert body == b""


@fast
@given(vars_lists)
def test_merged_variables_have_no_nul_and_nothing_of_uwsgi(pairs: list[tuple[bytes, bytes]]) -> None:
    try:
        merged = merge_vars([*pairs, (b"REQUEST_METHOD", b"GET")])
    except RequestError:
        return
    assert set(merged) <= {name for name, _ in pairs} | {b"REQUEST_METHOD"}
    for name, value in merged.items():
        assert b"\0" not in name + value
        assert not name.startswith(b"UWSGI_")
        if not name.startswith(b"HTTP_"):
            assert value == [v for k, v in [*pairs, (b"REQUEST_METHOD", b"GET")] if k == name][-1] != b""
    assert merge_vars(list(merged.items())) == merged


ALLOWED = re.compile(
    rb"(?:HTTP|SSL)_[A-Z0-9_]*|(?:AUTH_TYPE|CONTENT_(?:LENGTH|TYPE)|GATEWAY_INTERFACE"
    rb"|PATH(?:_INFO|_TRANSLATED)?|QUERY_STRING|REMOTE_(?:ADDR|HOST|IDENT|USER|PORT)|REQUEST_(?:METHOD|URI|SCHEME|ID)|SCRIPT_(?:NAME|FILENAME)"
    rb"|SERVER_(?:NAME|PORT|PROTOCOL|SOFTWARE|ADDR)|DOCUMENT_(?:ROOT|URI)|HTTPS|REDIRECT_(?:STATUS|URL|QUERY_STRING|REQUEST_METHOD))"
)


@fast
@given(vars_lists, st.binary(max_size=20))
def test_no_packet_puts_another_name_into_an_environment(
    pairs: list[tuple[bytes, bytes]], path_info: bytes
) -> None:
    environment = script_environment(
        dict(pairs),
        base_environment({}, server_software="T/1"),
        script_name=b"/s",
        path_info=path_info,
        script_filename=b"/f/s",
        document_root=b"/f",
    )
    for name in environment:
        assert ALLOWED.fullmatch(name)
    assert not environment.keys() & {b"HTTP_PROXY", b"HTTP_CONTENT_LENGTH", b"HTTP_AUTHORIZATION"}
    assert environment[b"PATH"].startswith(b"/usr/local/sbin:")
    assert environment[b"SCRIPT_FILENAME"] == b"/f/s"
    assert environment.get(b"PATH_INFO", b"") == path_info


segments = st.sampled_from([b"a", b"cgi-bin", b"cgi-binX", b"x.cgi", b"", b"..", b".", b"..."])
paths = st.lists(segments, max_size=6).map(lambda parts: b"/" + b"/".join(parts))


@fast
@given(paths, st.lists(st.sampled_from([b"", b"/a", b"/a/a", b"/cgi-bin", b"/cgi-bin/x.cgi"]), unique=True))
def test_a_mount_is_a_run_of_whole_segments_and_the_longest(path: bytes, mounts: list[bytes]) -> None:
    parts = path.split(b"/")
    holding = [m for m in mounts if parts[: m.count(b"/") + 1] == m.split(b"/")]
    assert match_mount(path, mounts) == max(holding, key=len, default=None)


@fast
@given(paths)
def test_script_and_path_info_always_join_to_the_path(path: bytes) -> None:
    splits = list(script_candidates(path))
    assert all(script + info == path for script, info in splits)
    assert all(info[:1] in (b"", b"/") and not script.endswith(b"/") for script, info in splits)
    assert [script.rpartition(b"/")[2] for script, _ in splits[1:]] == [s for s in path.split(b"/") if s]


@fast
@given(paths)
def test_a_path_that_passes_stays_where_it_is(path: bytes) -> None:
    if {b".", b".."} & set(path.split(b"/")):
        with pytest.raises(RequestError, match="segment"):
            request_path({b"PATH_INFO": path})
    else:
        assert request_path({b"PATH_INFO": path}) == path


@settings(deadline=None, max_examples=400)
@given(outputs | heads, cuts, st.sampled_from([40, 200]))
def test_any_output_gives_the_same_in_any_split(output: bytes, at: list[int], limit: int) -> None:
    assert read_head(output, at, limit) == read_head(output, [], limit)


@fast
@given(st.binary(max_size=300), cuts)
def test_random_output_is_a_head_or_a_script_error(output: bytes, at: list[int]) -> None:
    assert read_head(output, at, 300) == read_head(output, [], 300)


@settings(deadline=None, max_examples=400)
@given(heads, st.sampled_from([b"", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0"]))
def test_what_is_written_is_valid_and_reads_back_the_same(output: bytes, protocol: bytes) -> None:
    head = HeadParser().feed(output)
    assert head is not None
    raw = encode_head(head, protocol)
    assert re.fullmatch(
        rb"HTTP/1\.[01] [2-9][0-9]{2} [^\r\n\0]*\r\n(?:[!-9;-~]+: [\t -~\x80-\xff]*\r\n)*\r\n", raw
    )
    fields = {line.partition(b":")[0].lower() for line in raw.split(b"\r\n")[1:]}
    assert not fields & {b"status", b"connection", b"transfer-encoding", b"x-cgi-a"}
    again = HeadParser().feed(raw + b"body")
    assert again is not None
    assert (again.status, again.headers) == (head.status, head.headers)
    assert again.content_length == head.content_length


@fast
@given(st.one_of(heads, outputs), st.binary(max_size=20), st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b""]))
def test_a_response_in_one_piece_is_the_one_in_many(head: bytes, body: bytes, protocol: bytes) -> None:
    """The quick look says the same as the close one, or nothing."""
    response = Response(b"GET", protocol, head_limit=300)
    try:
        whole = response.feed(head + body)
        response.close()
    except ScriptError:
        whole = None
    quick = in_one_piece(head + body, protocol, 300)
    assert quick in (None, (response.head, response.head_size, whole))
    assert quick is None or not response.surplus


@fast
@given(vars_lists, st.integers(0, 255), st.binary(max_size=3), st.integers(0, 60))
def test_a_plain_packet_is_what_the_parser_finds(
    pairs: list[tuple[bytes, bytes]], modifier: int, more: bytes, at: int
) -> None:
    data = encode_packet(pairs, modifier1=9, modifier2=modifier)
    distinct = len(dict(pairs)) == len(pairs)
    assert plain_packet(data, 9, 65535) == (dict(pairs) if pairs and distinct else None)
    assert plain_packet(data, 5, 65535) is None
    assert plain_packet(data, 9, max(0, len(data) - 5)) is None
    if more:
        assert plain_packet(data + more, 9, 65535) is None
        broken = data[:4] + data[4 + at :][: len(data) - 4]
        broken = broken[:1] + (len(broken) - 4).to_bytes(2, "little") + broken[3:]
        found = plain_packet(broken, 9, 65535)
        try:
            packet = PacketParser().feed(broken)
        except RequestError:
            packet = None
        assert found is None or (packet is not None and found == dict(packet.vars))
