"""The uwsgi protocol: a request packet in, a :class:`Packet` out, and back.

A packet is a header of 4 bytes, ``modifier1`` u8, ``datasize`` u16 little endian, ``modifier2`` u8, and
``datasize`` bytes. For a request these are the var block, repeated (u16 length, key, u16 length, value),
and the request body follows unframed. The answer has no frame at all: HTTP until the connection closes.
"""

from collections.abc import Iterable
from enum import IntEnum

import msgspec

from pyemperor.protocol.errors import RequestError

#: A var block cannot be longer: its size is sent in 16 bits.
MAX_BLOCK = 65535
#: Keys and values allowed in one packet; nginx accepts 1000 header fields from a client.
MAX_VARS = 1000

_HEADER = 4


class Modifier(IntEnum):
    """The values of ``modifier1`` that have a meaning here, or that a web server may send."""

    WSGI = 0
    PSGI = 5
    LUA = 6
    RACK = 7
    JVM = 8
    CGI = 9
    PHP = 14
    SPOOL = 17
    EVAL = 22
    WSGI_SCRIPT_NAME = 30
    PING = 100
    ECHO = 101
    SIGNAL = 110
    CACHE = 111
    RPC = 173
    CLOSE = 200
    RESPONSE = 255


#: The answer to a packet with :attr:`Modifier.PING`: the same modifier, no warning text, modifier2 1.
PONG = bytes((Modifier.PING, 0, 0, 1))


class Packet(msgspec.Struct, frozen=True):
    """One request packet; ``vars`` keeps the order on the wire and every duplicate."""

    modifier1: int
    modifier2: int
    vars: tuple[tuple[bytes, bytes], ...]


class PacketParser:
    """Turn the bytes of a connection, in pieces of any size, into one :class:`Packet`.

    ``buffer_size`` (uWSGI's ``buffer-size``, bytes) bounds the var block, never the body that follows.
    Once :meth:`feed` has returned a packet, :attr:`leftover` holds the bytes behind it: the body's start.
    """

    __slots__ = ("_buffer_size", "_max_vars", "_pending", "leftover")

    def __init__(self, *, buffer_size: int = MAX_BLOCK, max_vars: int = MAX_VARS) -> None:
        self._buffer_size = buffer_size
        self._max_vars = max_vars
        self._pending = bytearray()
        self.leftover = b""

    def feed(self, data: bytes | bytearray | memoryview) -> Packet | None:
        """Take the next bytes; return the packet once it is complete, ``None`` while more are needed.

        Raises :class:`RequestError`: 431 for a block or a number of vars over the limit, as soon as that
        is known; 400 for bytes that are not a uwsgi packet.
        """
        whole: bytes | bytearray
        if self._pending or not isinstance(data, bytes):
            self._pending += data
            whole = self._pending
        else:  # the usual case: one read brings all of it
            whole = data
        end = self._end_of_packet(whole)
        if not end:
            if whole is data:
                self._pending += data
            return None
        modifier1, modifier2, block = whole[0], whole[3], bytes(whole[_HEADER:end])
        self.leftover = bytes(whole[end:])
        self._pending.clear()
        return Packet(modifier1, modifier2, tuple(parse_vars(block, self._max_vars)))

    def close(self) -> None:
        """Say that the peer has sent its last byte.

        Raises :class:`RequestError` 400 inside a packet; a connection without a byte is no error, since
        monitors open and close one just to see whether somebody listens.
        """
        if self._pending:
            raise RequestError(
                f"the connection ended after {len(self._pending)} bytes, inside the uwsgi packet",
                remedy="the web server gave up, or the peer does not speak uwsgi",
            )

    def _end_of_packet(self, data: bytes | bytearray) -> int:
        """Return the length of the packet, 0 while it is incomplete; refuse it as early as possible."""
        if len(data) < _HEADER:
            return 0
        if data[0] in _FOREIGN_FIRST_BYTES:
            _refuse_other_protocols(bytes(data[:_HEADER]))
        size = data[1] | data[2] << 8
        if size > self._buffer_size:
            raise RequestError(
                f"the request header block is too large: {size} bytes, {self._buffer_size} are allowed",
                remedy=f"raise `buffer-size` to {size} or more (the protocol's limit is {MAX_BLOCK})",
                status=431,
            )
        end = _HEADER + size
        return end if len(data) >= end else 0


def plain_packet(data: bytes, modifier1: int, buffer_size: int) -> dict[bytes, bytes] | None:
    """The variables of a request that ``data`` is, neither more nor less, with none twice; None for anything else.

    What it is, and what is wrong with it, :class:`PacketParser` finds out.
    """
    size = len(data) - _HEADER
    if not 0 < size <= buffer_size or data[0] != modifier1 or data[1] | data[2] << 8 != size:
        return None
    try:
        pairs = parse_vars(data[_HEADER:])
    except RequestError:
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def parse_vars(block: bytes, max_vars: int = MAX_VARS) -> list[tuple[bytes, bytes]]:
    """Split a var block into (key, value) pairs, in order, duplicates kept.

    Raises :class:`RequestError`: 400 for an empty key or a length that points outside the block, 431 for
    more than ``max_vars`` pairs.
    """
    pairs: list[tuple[bytes, bytes]] = []
    end = len(block)
    at = 0
    try:
        # A length outside the block ends in IndexError, except the last value's: that one shows in `at`.
        while at < end:
            start = at + 2
            stop = start + (block[at] | block[at + 1] << 8)
            if start == stop:
                raise RequestError(f"invalid uwsgi packet: empty key at byte {at} of the var block")
            value = stop + 2
            at = value + (block[stop] | block[stop + 1] << 8)
            pairs.append((block[start:stop], block[value:at]))
    except IndexError:
        raise _overrun(pairs, end) from None
    if at != end:
        raise _overrun(pairs[:-1], end)
    if len(pairs) > max_vars:
        raise RequestError(
            f"the request has {len(pairs)} variables and header fields, {max_vars} are allowed",
            remedy="limit the client's header fields in the web server (nginx: `max_headers`)",
            status=431,
        )
    return pairs


def encode_packet(
    pairs: Iterable[tuple[bytes, bytes]], *, modifier1: int = Modifier.CGI, modifier2: int = 0
) -> bytes:
    """Return the packet for ``pairs``, in their order; the caller appends the body.

    Raises :class:`ValueError` for what cannot be sent: an empty key, more than 65535 bytes, a modifier
    that is no byte.
    """
    parts: list[bytes] = []
    for key, value in pairs:
        if not key:
            raise ValueError("a key of a uwsgi packet cannot be empty")
        if len(key) > MAX_BLOCK or len(value) > MAX_BLOCK:
            raise ValueError(f"{key[:40]!r}: key or value is longer than {MAX_BLOCK} bytes")
        parts += len(key).to_bytes(2, "little"), key, len(value).to_bytes(2, "little"), value
    block = b"".join(parts)
    if len(block) > MAX_BLOCK:
        raise ValueError(f"the var block has {len(block)} bytes, a uwsgi packet holds {MAX_BLOCK}")
    return bytes((modifier1, len(block) & 255, len(block) >> 8, modifier2)) + block


def _overrun(pairs: list[tuple[bytes, bytes]], end: int) -> RequestError:
    where = f"after {pairs[-1][0][:64]!r}" if pairs else "at its start"
    return RequestError(
        f"invalid uwsgi packet: a length points outside the var block of {end} bytes, {where}",
        remedy="the web server sent a broken packet (nginx: is a `uwsgi_param` name longer than 255 bytes?)",
    )


#: The first 4 bytes of an HTTP request line. None of their first letters is a modifier in use.
_HTTP = frozenset(
    (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PROP", b"PRI ")
)
_TLS_HANDSHAKE = b"\x16\x03"
_FOREIGN_FIRST_BYTES = frozenset(text[0] for text in _HTTP) | {_TLS_HANDSHAKE[0]}


def _refuse_other_protocols(start: bytes) -> None:
    if start in _HTTP:
        raise RequestError(
            "this socket speaks the uwsgi protocol, and the request is HTTP",
            remedy="use `uwsgi_pass` instead of `proxy_pass` in nginx, or `http-socket` for an HTTP listener",
        )
    if start.startswith(_TLS_HANDSHAKE):
        raise RequestError(
            "this socket speaks the plain uwsgi protocol, and the peer began a TLS handshake",
            remedy="use `uwsgi_pass uwsgi://` instead of `suwsgi://` in nginx",
        )
