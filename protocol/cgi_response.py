"""CGI, the response's side (RFC 3875 §6): a script's output in, an HTTP response head out.

Read tolerantly, write strictly: any line ends, order and repetition that scripts get away with elsewhere
are taken and noted; what leaves is a valid HTTP/1.x head in which only end-to-end header fields are left.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from typing import NoReturn

from pyemperor.protocol.errors import ScriptError

#: Longest header block of a script, bytes (uWSGI's ``cgi-buffer-size``).
MAX_HEAD = 65536

#: nginx reads a response head into one buffer of a memory page unless `uwsgi_buffer_size` says otherwise.
_NGINX_BUFFER = 4096

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

# RFC 9110 §7.6.1, and Proxy-* and X-CGI-* (RFC 3875 §6.3.5): they speak to the server, not to the client.
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"))
_DROPPED_PREFIXES = (b"proxy-", b"x-cgi-")
# One of each at most: the CGI fields (RFC 3875 §6.3), and the field that says where the response ends.
_SINGLE = frozenset((b"status", b"location", b"content-type", b"content-length"))
_WRITTEN_BY_US = frozenset((b"status", b"content-length"))

# A 204 has no Content-Length (RFC 9110 §8.6), and a 205 no content (§15.3.6).
_LENGTHS = {204: None, 205: 0}

_BLANK_LINE = re.compile(rb"\n\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)")
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_STATUS = re.compile(rb"([1-9][0-9]{2})(?:[ \t]+(.*))?")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? +([1-9][0-9]{2}(?: .*)?)")


class Kind(StrEnum):
    """The four responses of RFC 3875 §6.2."""

    DOCUMENT = "document"
    #: Only a ``Location`` that is a path: the server is asked for the response of that path (§6.2.2).
    LOCAL_REDIRECT = "local redirect"
    CLIENT_REDIRECT = "client redirect"
    CLIENT_REDIRECT_DOCUMENT = "client redirect with document"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of a script's response, cleaned: what :func:`encode_head` writes, and what was found.

    ``headers`` keeps the script's order and spelling; ``Status`` is not among them, ``Content-Length`` comes
    last. ``reason`` is empty if the script gave none. ``notes`` are for the log: what was dropped, and why.
    """

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    kind: Kind = Kind.DOCUMENT
    location: bytes | None = None
    content_length: int | None = None
    notes: tuple[str, ...] = ()
    #: The script made its whole response itself, status line included (RFC 3875 §5).
    nph: bool = False


class HeadParser:
    """Turn a script's output, in pieces of any size, into one :class:`ResponseHead`.

    ``limit`` bounds the header block in bytes. Once :meth:`feed` has returned a head, :attr:`leftover` holds
    the bytes behind it: the body begins there. Interim responses (1xx) are passed over.
    """

    __slots__ = ("_limit", "_pending", "_searched", "leftover")

    def __init__(self, *, limit: int = MAX_HEAD) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._searched = 0
        self.leftover = b""

    def feed(self, data: bytes | bytearray | memoryview) -> ResponseHead | None:
        """Take the next bytes; return the head once it is complete, ``None`` while more are needed.

        Raises :class:`ScriptError` for what is no CGI response, naming the line.
        """
        whole: bytes | bytearray
        if self._pending or not isinstance(data, bytes):
            self._pending += data
            whole = self._pending
        else:  # the usual case: one read brings all of it
            whole = data
        start = 0
        while blank := self._blank_line(whole, start):
            head = _parsed(bytes(whole[start : blank.start()]))
            if head.status >= 200:
                self.leftover = bytes(whole[blank.end() :])
                self._pending.clear()
                return head
            start = blank.end()
            self._searched = 0
        self._searched = max(0, len(whole) - start - 2)
        if whole is data:
            self._pending += data[start:]
        else:
            del self._pending[:start]
        return None

    def _blank_line(self, data: bytes | bytearray, start: int) -> "re.Match[bytes] | None":
        """Find the end of the header block that begins at ``start``; refuse what is none."""
        if data.startswith((b"\n", b"\r\n"), start):
            raise ScriptError("the script's output begins with a blank line: it has no header")
        blank = _BLANK_LINE.search(data, start + self._searched)
        if (blank.end() if blank else len(data)) - start > self._limit:
            raise ScriptError(
                f"the script's header is larger than {self._limit} bytes",
                remedy="does the script print its body without a header? If not, raise `cgi-buffer-size`",
            )
        return blank

    def close(self) -> NoReturn:
        """Say that the output has ended before :meth:`feed` returned a head: raises :class:`ScriptError`."""
        if not self._pending:
            raise ScriptError("the script ended without sending a response")
        parse_head(bytes(self._pending).rstrip(b"\r\n"))  # to name a line that is no header says more
        raise ScriptError("the script's output ended before the blank line that closes the header")


#: Most scripts print the same few headers again and again; those that are long enough to carry data do not.
_REMEMBERED = 256


def _parsed(block: bytes) -> ResponseHead:
    return _remembered(block) if len(block) <= _REMEMBERED else parse_head(block)


def parse_head(block: bytes) -> ResponseHead:
    """Parse a whole header block, without the blank line, or raise :class:`ScriptError`.

    The first ``Status``, ``Location`` and ``Content-Type`` count. A ``Content-Length`` that is no number, or
    repeated with another value, is dropped: the end of the output then ends the body. A transfer coding is
    refused, since without its header field the client would take the coded bytes for the body.
    """
    _refuse_controls(block)
    lines = block.split(b"\n")
    nph_status = _nph_status(lines[0]) if lines[0].startswith(b"HTTP/") else None
    fields = _split_fields(lines, 0 if nph_status is None else 1)

    single = {} if nph_status is None else {b"status": nph_status}
    notes: list[str] = []
    headers = _select(fields, single, notes)
    location = single.get(b"location")
    status, reason = _status(single.get(b"status"), location)
    length = _content_length(single.get(b"content-length"), notes)
    if status in _LENGTHS:
        length = _LENGTHS[status]
    if length is not None:
        headers.append((b"Content-Length", b"%d" % length))
    if len(block) > _NGINX_BUFFER:
        notes.append(f"the header has {len(block)} bytes: nginx needs a larger `uwsgi_buffer_size`")

    kind = Kind.DOCUMENT
    if location is not None and 300 <= status <= 399:
        kind = Kind.CLIENT_REDIRECT_DOCUMENT if b"content-type" in single else Kind.CLIENT_REDIRECT
        if len(fields) == 1 and not nph_status and _is_local(location):
            kind = Kind.LOCAL_REDIRECT
    return ResponseHead(
        status, reason, tuple(headers), kind, location, length, tuple(notes), nph_status is not None
    )


def _is_local(location: bytes) -> bool:
    """Whether it is a path and perhaps a query (§6.2.2); only a client knows what to do with a fragment."""
    return location.startswith(b"/") and not location.startswith(b"//") and b"#" not in location


_remembered = lru_cache(maxsize=128)(parse_head)


def encode_head(head: ResponseHead, protocol: bytes, extra: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return ``head`` as HTTP: status line, header fields, blank line, CRLF throughout (RFC 9112 §3, §4).

    ``protocol`` is the request's ``SERVER_PROTOCOL``; from HTTP/1.1 on the answer is HTTP/1.1, since that is
    the newest version that can be written like this. A local redirect goes out as the 302 that it says.
    ``extra`` header fields are the server's own.
    """
    version = b"HTTP/1.0" if protocol < b"HTTP/1.1" else b"HTTP/1.1"
    reason = head.reason or _REASONS.get(head.status, b"")
    lines = [b"%b %d %b" % (version, head.status, reason)]
    lines += [b"%b: %b" % field for field in (*head.headers, *extra)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def error_response(
    status: int,
    problem: str,
    remedy: str = "",
    *,
    protocol: bytes = b"HTTP/1.1",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return a whole response in plain text: status, problem, and the remedy if the client may see it.

    ``headers`` are added to it (``Retry-After``, ``Allow``). Its ``Content-Length`` lets nginx deliver it
    even while the request's body is still arriving.
    """
    reason = _REASONS.get(status, b"")
    paragraphs = [f"{status} {reason.decode('ascii')}".rstrip(), problem, remedy]
    body = "\n\n".join(filter(None, paragraphs)).encode("utf-8", "backslashreplace") + b"\n"
    fields = (
        (b"Content-Type", b"text/plain; charset=utf-8"),
        *headers,
        (b"Content-Length", b"%d" % len(body)),
    )
    return encode_head(ResponseHead(status, reason, fields), protocol) + body


def _nph_status(line: bytes) -> bytes:
    """Return status and reason of a script that makes its whole response itself (§5, non-parsed header)."""
    found = _STATUS_LINE.fullmatch(line.rstrip(b"\r"))
    if found is None:
        raise _bad_line(1, line, "is no HTTP status line")
    return found[1]


def _split_fields(lines: list[bytes], first: int) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(lines[first:], first + 1):
        name, colon, value = line.partition(b":")
        if colon and name and not name.translate(None, _TOKEN):
            fields.append((name, value.strip(b" \t\r")))
        elif fields and line[:1] in (b" ", b"\t"):  # obs-fold, RFC 9112 §5.2: one space, not a line end
            name, value = fields[-1]
            fields[-1] = (name, (value + b" " + line.strip(b" \t\r")).strip())
        elif not colon and line:
            raise _bad_line(number, line, "is no header: it has no colon")
        else:
            wrong = name.translate(None, _TOKEN)[:1]
            raise _bad_line(number, line, f"has {wrong!r} in its name" if wrong else "has no name")
    return fields


def _select(
    fields: list[tuple[bytes, bytes]], single: dict[bytes, bytes], notes: list[str]
) -> list[tuple[bytes, bytes]]:
    """Return the fields that go to the client; put those that count once into ``single``, by lower name."""
    headers: list[tuple[bytes, bytes]] = []
    for field in fields:
        name, value = field[0].lower(), field[1]
        if name in _SINGLE:
            if name not in single:
                if value or name == b"status":  # no value is no field (RFC 3875 §6.3)
                    single[name] = value
                if value and name not in _WRITTEN_BY_US:
                    headers.append(field)
            elif value != single[name]:
                notes.append(f"{_text(field[0])} is repeated: {value[:80]!r} is ignored")
                if name == b"content-length":
                    single[name] += b", " + value
        elif name == b"transfer-encoding" and value.lower() != b"identity":
            raise ScriptError(
                f"the script sent Transfer-Encoding: {_text(value)}",
                remedy="print the body as it is: transfer codings are the web server's (RFC 3875 §6.3.4)",
            )
        elif name not in _HOP_BY_HOP and not name.startswith(_DROPPED_PREFIXES):
            headers.append(field)
    return headers


def _refuse_controls(block: bytes) -> None:
    found = _CONTROL.search(block)
    if found:
        number = block.count(b"\n", 0, found.start()) + 1
        line = block.split(b"\n")[number - 1]
        raise _bad_line(number, line, f"has the control character 0x{found[0][0]:02x}")


def _bad_line(number: int, line: bytes, why: str) -> ScriptError:
    # The line itself goes to the log only: it may be a traceback, with paths and values in it.
    return ScriptError(f"line {number} of the script's header {why}", remedy=f"the line is {line[:200]!r}")


def _content_length(value: bytes | None, notes: list[str]) -> int | None:
    if value is None:
        return None
    if value.isdigit() and len(value) <= 18:
        return int(value)
    notes.append(f"Content-Length is dropped, it is not one number: {value[:80]!r}")
    return None


def _status(value: bytes | None, location: bytes | None) -> tuple[int, bytes]:
    """Return status and reason (RFC 3875 §6.3.3): without ``Status`` 200, or 302 beside a ``Location``."""
    if value is None:
        return (200, b"") if location is None else (302, b"")
    match = _STATUS.fullmatch(value)
    if match is None:
        raise ScriptError(
            f"the script sent Status: {_text(value)}",
            remedy="print three digits from 100 to 999 and a reason, such as `Status: 404 Not Found`",
        )
    return int(match[1]), match[2] or b""


def _text(raw: bytes) -> str:
    return raw[:80].decode("utf-8", "backslashreplace")
