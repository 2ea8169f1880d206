"""How a request lies on a connection: the uwsgi protocol, or HTTP for whoever has no web server in front.

Both turn bytes into one :class:`Request` and the body behind it; from there on the path is the same.

A script learns the length of its input before it starts (RFC 3875 §4.1.2). A body in chunks has none until its
last chunk is here, so that body is taken whole, into a file, and then passed on like any other.
"""

import mmap
import socket
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, cast
from urllib.parse import unquote_to_bytes

import h11
import msgspec

from pyemperor.actors.refusals import no_room
from pyemperor.actors.spool import CHUNK
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.urls import normalised_path, split_target
from pyemperor.protocol.uwsgi import MAX_BLOCK, Modifier, PacketParser
from pyemperor.protocol.variables import body_length, merge_vars

#: Largest body that is taken in chunks, bytes: it needs that much room on the disk.
MAX_CHUNKED = 256 << 20


class Request(msgspec.Struct, frozen=True):
    """One request, as a handler sees it: ``length`` is that of the body in bytes."""

    modifier1: int
    modifier2: int
    variables: dict[bytes, bytes]
    length: int


class Wire(Protocol):
    """How a request lies on one connection, and where its body begins."""

    #: Sent with every response.
    headers: tuple[tuple[bytes, bytes], ...]
    #: What came behind the head once the request is there: the body's start, or all of a body in chunks.
    leftover: bytes
    #: What the head says, while a body in chunks is on its way: the request follows when its last chunk is here.
    announced: Request | None

    def feed(self, data: bytes) -> Request | None:
        """Take bytes; the request, once it can be served. Raises RequestError."""

    def close(self) -> None:
        """The peer has sent its last byte before there was a request: raises RequestError if it had begun."""

    def interim(self) -> bytes:
        """What must be sent before the client sends the body (``100 Continue``)."""


class _Chunks:
    """A body in chunks (RFC 9112 §7.1) on its way into a file; ``http`` has read the head before it."""

    def __init__(self, request: Request, http: h11.Connection, limit: int) -> None:
        self._request = request
        self._http = http
        self._limit = limit
        self._size = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=CHUNK, prefix="pyemperor-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.body = b""

    def feed(self, data: bytes) -> Request | None:
        """Take bytes; the request with the length of :attr:`body` once that is whole. Raises RequestError."""
        try:
            if data:
                self._http.receive_data(data)
            while isinstance(event := self._http.next_event(), h11.Data):
                self._keep(event.data)
        except h11.RemoteProtocolError as error:
            raise RequestError(f"the body of the request is not in chunks: {error}") from None
        return self._whole() if isinstance(event, h11.EndOfMessage) else None

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise RequestError(
                f"the body of the request is too large: without a Content-Length {self._limit} bytes are allowed",
                status=413,
            )
        try:
            self._file.write(data)
        except OSError as error:
            raise no_room(error) from None

    def _whole(self) -> Request:
        if self._size <= CHUNK:
            self._file.seek(0)
            self.body = self._file.read()
        else:
            try:
                self._file.flush()
            except OSError as error:
                raise no_room(error) from None
            # Slices of it copy nothing, and what is written to a script comes from the file.
            self.body = cast(bytes, memoryview(mmap.mmap(self._file.fileno(), self._size, prot=mmap.PROT_READ)))
        self._file.close()
        variables = dict(self._request.variables)
        del variables[b"HTTP_TRANSFER_ENCODING"]
        if self._size:
            variables[b"CONTENT_LENGTH"] = b"%d" % self._size
        return msgspec.structs.replace(self._request, variables=variables, length=self._size)


class _Wire(ABC):
    """What both wires do: after the head, decode the body if it is in chunks."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    leftover = b""
    announced: Request | None = None

    def __init__(self, chunked_limit: int) -> None:
        self._limit = chunked_limit
        self._chunks: _Chunks | None = None

    def feed(self, data: bytes) -> Request | None:
        if self._chunks is None:
            return self._feed_head(data)
        request = self._chunks.feed(data)
        self.leftover = self._chunks.body
        if request:
            self.announced = None
        return request

    @abstractmethod
    def _feed_head(self, data: bytes) -> Request | None: ...

    def _request(
        self, modifiers: tuple[int, int], pairs: Sequence[tuple[bytes, bytes]], http: h11.Connection | None = None
    ) -> Request | None:
        """The request with these variables, unless its body is in chunks: then what follows is decoded."""
        variables = merge_vars(pairs)
        length = body_length(variables)
        request = Request(*modifiers, variables, length or 0)
        if length is not None:
            return request
        coding = variables[b"HTTP_TRANSFER_ENCODING"]
        if coding.strip().lower() != b"chunked":
            raise RequestError(f"this server does not know the transfer coding {coding[:80]!r}", status=501)
        self.announced = request
        self._chunks = _Chunks(request, http or _behind_a_head(), self._limit)
        return self.feed(b"" if http else self.leftover)  # h11 keeps what it has not read yet


def _behind_a_head() -> h11.Connection:
    """An HTTP connection that has read the head of a request, and gets its chunks next."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    http.next_event()
    return http


class UwsgiWire(_Wire):
    """A uwsgi packet, then the body as it is: in chunks only if the web server neither decodes nor measures it."""

    def __init__(self, buffer_size: int, *, chunked_limit: int = MAX_CHUNKED) -> None:
        super().__init__(chunked_limit)
        self._parser = PacketParser(buffer_size=buffer_size)

    def _feed_head(self, data: bytes) -> Request | None:
        packet = self._parser.feed(data)
        if packet is None:
            return None
        self.leftover = self._parser.leftover
        if packet.modifier1 == Modifier.PING:
            return Request(packet.modifier1, packet.modifier2, {}, 0)
        return self._request((packet.modifier1, packet.modifier2), packet.vars)

    def close(self) -> None:
        if self.announced:
            raise _ended()
        self._parser.close()

    def interim(self) -> bytes:
        return b""


class HttpWire(_Wire):
    """HTTP/1.1 (RFC 9112), one request a connection, turned into what nginx's ``uwsgi_params`` would send."""

    headers: tuple[tuple[bytes, bytes], ...] = ((b"Connection", b"close"),)

    def __init__(self, sock: socket.SocketType, *, chunked_limit: int = MAX_CHUNKED) -> None:
        super().__init__(chunked_limit)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BLOCK)
        self._sock = sock
        self._size = 0

    def _feed_head(self, data: bytes) -> Request | None:
        self._size += len(data)
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise RequestError(f"not a valid HTTP request: {error}", status=error.error_status_hint) from None
        if not isinstance(event, h11.Request):
            return None
        self.leftover, _ = self._http.trailing_data
        if self._size - len(self.leftover) > MAX_BLOCK:  # h11 lets through what arrives in one piece
            raise RequestError("the request's head is too large", status=431)
        return self._request((Modifier.CGI, 0), self._variables(event), self._http)

    def _variables(self, request: h11.Request) -> list[tuple[bytes, bytes]]:
        host, target = split_target(request.target)
        path, _, query = target.partition(b"?")
        pairs = [
            (b"REQUEST_METHOD", request.method),
            (b"REQUEST_URI", request.target),
            (b"PATH_INFO", normalised_path(unquote_to_bytes(path))),
            (b"QUERY_STRING", query),
            (b"SERVER_PROTOCOL", b"HTTP/" + request.http_version),
            (b"REQUEST_SCHEME", b"http"),
        ]
        if self._sock.family != socket.AF_UNIX:
            address, port = self._sock.getsockname()[:2]
            client, client_port = self._sock.getpeername()[:2]
            pairs += [
                (b"SERVER_ADDR", address.encode()),
                (b"SERVER_PORT", b"%d" % port),
                (b"REMOTE_ADDR", client.encode()),
                (b"REMOTE_PORT", b"%d" % client_port),
            ]
        chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        for name, value in request.headers:
            key = name.upper().replace(b"-", b"_")
            if b"_" in name or (chunked and key == b"CONTENT_LENGTH"):
                # The first, as in nginx: it could pass for the same field written with "-". The second does not
                # count beside chunks (RFC 9112 §6.3), and to believe it is how requests are smuggled.
                continue
            if key in (b"CONTENT_LENGTH", b"CONTENT_TYPE"):
                pairs.append((key, value))
            pairs.append((b"HTTP_" + key, host or value if key == b"HOST" else value))
        return pairs

    def close(self) -> None:
        if self._size:
            raise _ended()

    def interim(self) -> bytes:
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""


def _ended() -> RequestError:
    return RequestError("the connection ended inside the request")
