"""What must hold for all bytes that strangers send, as targets for a fuzzer.

Run it by itself, where atheris is installed: a target, the folder that keeps what was tried, and libFuzzer's
arguments::

    python tests/fuzz/fuzz_protocol.py output /tmp/corpus -max_total_time=60

The suite runs the same targets on random bytes, and on all that was ever found (``test_fuzz_protocol.py``).
Each takes bytes whose beginning says where the rest is cut into pieces, since pieces must make no difference.
"""

import importlib
import re
import socket
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from pyemperor.actors.wires import HttpWire, Request, UwsgiWire, Wire
from pyemperor.protocol.cgi import MAX_PATH, base_environment, request_path, script_environment, search_words
from pyemperor.protocol.errors import RequestError, ScriptError
from pyemperor.protocol.redirects import redirected
from pyemperor.protocol.response import Response
from pyemperor.protocol.uwsgi import PacketParser, encode_packet
from pyemperor.protocol.variables import merge_vars

HEAD = re.compile(rb"HTTP/1\.[01] [2-9][0-9]{2} [^\r\n\0]*\r\n(?:[!-9;-~]+: [\t -~\x80-\xff]*\r\n)*\r\n")
BASE = base_environment({}, server_software="PyEmperor/1")
POST = encode_packet(
    [(b"REQUEST_METHOD", b"POST"), (b"PATH_INFO", b"/x"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]
)
#: What their input is made of, for a start.
WORDS: dict[str, list[bytes]] = {
    "packet": [POST, b"\x09\x2b\x00\x00", b"\x0e\x00REQUEST_METHOD\x03\x00GET", b"\x01\x00A\x00\x00", b"\xff"],
    "variables": [
        *(b"REQUEST_METHOD=GET\n", b"PATH_INFO=/", b"QUERY_STRING=", b"HTTP_PROXY=", b"UWSGI_FILE=", b"\n"),
        *(b"CONTENT_LENGTH=", b"HTTP_CONTENT_LENGTH=", b"HTTP_HOST=", b"SERVER_NAME=", b"..", b"=", b"-s", b"%3B"),
    ],
    "output": [
        *(b"Status: ", b"200 OK", b"\n", b"\r\n", b"\n\n", b"Content-Length: ", b"5", b"Location: ", b"/x", b"\r"),
        *(b"HTTP/1.1 ", b"103", b"204", b"Transfer-Encoding: ", b"Connection: close", b" folded", b"X-Hidden: "),
    ],
    "redirect": [b"/", b"..", b"%2e", b"%00", b"?", b"#", b"//", b"a", b"-s+b", b"%0a"],
    "uwsgi": [POST, POST[:4], b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"T: u\r\n", b"ffffffff\r\n", b";x=y"],
    "http": [
        *(b"POST /a/../b?c HTTP/1.1\r\n", b"GET * HTTP/1.0\r\n", b"Host: h\r\n", b"\r\n"),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"%00"),
    ],
}


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the data that is meant, whole and in at most four pieces."""
    cuts, whole = data[:3], data[3:]
    edges = [0, *sorted(min(at, len(whole)) for at in cuts), len(whole)]
    return whole, [whole[start:stop] for start, stop in pairwise(edges)]


def fuzz_packet(data: bytes) -> None:
    """A uwsgi packet: any split gives the same, and what was read is written again as it was."""

    def read(pieces: list[bytes]) -> object:
        parser = PacketParser(buffer_size=4096)
        rest = iter(pieces)
        try:
            for piece in rest:
                packet = parser.feed(piece)
                if packet is not None:
                    return packet, parser.leftover + b"".join(rest)
            parser.close()
        except RequestError as error:
            return error.status
        return None

    whole, pieces = cut(data)
    found = read([whole])
    assert found == read(pieces) or (isinstance(found, int) and whole == b"")
    if isinstance(found, tuple):
        packet, body = found
        again = encode_packet(packet.vars, modifier1=packet.modifier1, modifier2=packet.modifier2)
        assert again + body == whole


def fuzz_variables(data: bytes) -> None:
    """A var block: what reaches a script can be an environment, and has nothing in it that may not pass."""
    pairs = [(name, value) for name, _, value in (line.partition(b"=") for line in data.split(b"\n")) if name]
    try:
        variables = merge_vars(pairs)
        request_path(variables)
    except RequestError:
        return
    check_environment(variables)


def check_environment(variables: dict[bytes, bytes]) -> None:
    """Assert that ``posix_spawn`` takes the environment and the arguments of a request, and a script may."""
    for allowed in ((), (b"*",)):
        environment = script_environment(
            variables,
            BASE,
            script_name=b"/s",
            path_info=b"",
            script_filename=b"/f/s",
            document_root=b"/f",
            allowed=allowed,
        )
        for name, value in environment.items():
            assert name
            assert b"=" not in name
            assert b"\0" not in name + value
        assert not environment.keys() & {b"HTTP_PROXY", b"http_proxy", b"PATH_INFO", b"PATH_TRANSLATED"}
        assert not any(name.startswith(b"UWSGI_") for name in environment)
        assert environment[b"SCRIPT_FILENAME"] == b"/f/s"
        assert environment[b"REDIRECT_STATUS"] == b"200" or allowed
    for word in search_words(variables):
        assert word
        assert not word.startswith(b"-")
        assert not re.search(rb"[\0-\x1f\x7f]|(?<!\\)(?:\\\\)*[;&|<>`$()'\"*?~^{}\[\]]", word)


def fuzz_output(data: bytes) -> None:
    """A script's output: any split gives the same, and only a valid head without what is not the client's."""

    def sent(pieces: list[bytes]) -> bytes | str:
        response = Response(b"GET", b"HTTP/1.1", head_limit=300, accel=True)
        encoded = b""
        try:
            for piece in pieces:
                encoded += response.feed(piece)
            response.close()
        except ScriptError as error:
            return f"{encoded!r} {error.status} {error} {error.remedy}"
        assert response.head is not None
        head = HEAD.match(encoded)
        assert head is not None
        assert head.end() == response.head_size
        names = {line.partition(b":")[0].lower() for line in head[0].split(b"\r\n")[1:]}
        assert not names & {b"status", b"connection", b"transfer-encoding", b"upgrade"}
        if response.head.content_length is not None:
            assert len(encoded) - head.end() <= response.head.content_length
        return encoded

    whole, pieces = cut(data)
    assert sent([whole]) == sent(pieces)


def fuzz_redirect(data: bytes) -> None:
    """A location: the request for it is one that could have come from outside."""
    before = {b"REQUEST_METHOD": b"POST", b"PATH_INFO": b"/old", b"CONTENT_LENGTH": b"3", b"QUERY_STRING": b"q"}
    try:
        after = redirected(before, data)
    except ScriptError:
        return
    if b"\0" in data:  # no header field has one
        return
    assert merge_vars(list(after.items())) == after
    assert b"CONTENT_LENGTH" not in after
    if len(after[b"PATH_INFO"]) <= MAX_PATH:
        assert request_path(after) == after[b"PATH_INFO"]
        check_environment(after)


def fuzz_uwsgi(data: bytes) -> None:
    """A connection that speaks uwsgi: any split gives the same request."""
    fuzz_wire(lambda: UwsgiWire(4096, chunked_limit=50), data)


def fuzz_http(data: bytes) -> None:
    """A connection that speaks HTTP: any split gives the same request."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fuzz_wire(lambda: HttpWire(ours, chunked_limit=50), data)


def fuzz_wire(make: Callable[[], Wire], data: bytes) -> None:
    """Assert that a wire makes the same of its bytes, however they are cut."""

    def read(pieces: list[bytes]) -> tuple[object, bytes]:
        wire = make()
        rest = iter([piece for piece in pieces if piece])
        try:
            for piece in rest:
                request = wire.feed(piece)
                if request is not None:
                    return request, (bytes(wire.leftover) + b"".join(rest))[: request.length]
            wire.close()
        except RequestError as error:
            return error.status, b""
        return None, b""

    whole, pieces = cut(data)
    found = read([whole])
    assert found == read(pieces)
    request, body = found
    if isinstance(request, Request):
        assert request.length >= 0
        assert request.variables.get(b"CONTENT_LENGTH", b"0").lstrip(b"0") == (b"%d" % request.length).lstrip(b"0")
        assert b"\0" not in b"".join((*request.variables, *request.variables.values()))
    else:
        assert body == b""


#: By name: what a fuzzer can be let loose on.
TARGETS: dict[str, Callable[[bytes], None]] = {
    "packet": fuzz_packet,
    "variables": fuzz_variables,
    "output": fuzz_output,
    "redirect": fuzz_redirect,
    "uwsgi": fuzz_uwsgi,
    "http": fuzz_http,
}


def main() -> None:
    """Fuzz the target that the first argument names, from the words it is made of."""
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target and a folder; targets are {', '.join(TARGETS)}")
    name, folder, *arguments = sys.argv[1:]
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    corpus, dictionary = Path(folder), Path(f"{folder}.dict")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, word in enumerate((*WORDS[name], bytes(3) + b"".join(WORDS[name]))):
        (corpus / f"word-{number}").write_bytes(word)
    words = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[name] if len(word) <= 64)
    dictionary.write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    atheris.Setup([sys.argv[0], f"-dict={dictionary}", *arguments, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
