"""How a request lies on a connection: the uwsgi protocol, or HTTP for whoever has no web server in front.

Both turn bytes into one :class:`Request` and the body behind it; from there on the path is the same.
"""

import re
import socket
from typing import Protocol
from urllib.parse import unquote_to_bytes

import h11
import msgspec

from pyemperor.protocol.cgi import body_length, merge_vars
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import MAX_BLOCK, Modifier, PacketParser


class Request(msgspec.Struct, frozen=True):
    """One request, as a handler sees it: ``length`` is that of the body in bytes."""

    modifier1: int
    modifier2: int
    variables: dict[bytes, bytes]
    length: int


class Wire(Protocol):
    """How the head of the request lies on one connection; its body follows as it is."""

    #: Sent with every response.
    headers: tuple[tuple[bytes, bytes], ...]
    #: What came behind the head, once that is complete.
    leftover: bytes

    def feed(self, data: bytes) -> Request | None:
        """Take bytes; the request, once its head is complete. Raises RequestError."""

    def close(self) -> None:
        """The peer has sent its last byte before the head was complete: raises RequestError if it had begun."""

    def interim(self) -> bytes:
        """What must be sent before the client sends the body (``100 Continue``)."""


class UwsgiWire:
    """A uwsgi packet, then the body as it is."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    leftover = b""

    def __init__(self, buffer_size: int) -> None:
        self._parser = PacketParser(buffer_size=buffer_size)
        self.close = self._parser.close

    def feed(self, data: bytes) -> Request | None:
        packet = self._parser.feed(data)
        if packet is None:
            return None
        self.leftover = self._parser.leftover
        if packet.modifier1 == Modifier.PING:
            return Request(packet.modifier1, packet.modifier2, {}, 0)
        variables = merge_vars(packet.vars)
        return Request(packet.modifier1, packet.modifier2, variables, _length(variables))

    def interim(self) -> bytes:
        return b""


def _length(variables: dict[bytes, bytes]) -> int:
    length = body_length(variables)
    if length is None:
        raise RequestError(
            "a chunked body needs a Content-Length here",
            status=411,
            remedy="put nginx in front: it takes the chunks off and says the length",
        )
    return length


class HttpWire:
    """HTTP/1.1 (RFC 9112), one request a connection, turned into what nginx's ``uwsgi_params`` would send."""

    headers: tuple[tuple[bytes, bytes], ...] = ((b"Connection", b"close"),)
    leftover = b""

    def __init__(self, sock: socket.socket) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BLOCK)
        self._sock = sock
        self._size = 0

    def feed(self, data: bytes) -> Request | None:
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
        variables = merge_vars(self._variables(event))
        return Request(Modifier.CGI, 0, variables, _length(variables))

    def _variables(self, request: h11.Request) -> list[tuple[bytes, bytes]]:
        path, _, query = _origin_form(request.target).partition(b"?")
        pairs = [
            (b"REQUEST_METHOD", request.method),
            (b"REQUEST_URI", request.target),
            (b"PATH_INFO", _normalised(unquote_to_bytes(path))),
            (b"QUERY_STRING", query),
            (b"SERVER_PROTOCOL", b"HTTP/" + request.http_version),
            (b"REQUEST_SCHEME", b"http"),
        ]
        if self._sock.family != socket.AF_UNIX:
            host, port = self._sock.getsockname()[:2]
            client, client_port = self._sock.getpeername()[:2]
            pairs += [
                (b"SERVER_ADDR", host.encode()),
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
            pairs.append((b"HTTP_" + key, value))
        return pairs

    def close(self) -> None:
        if self._size:
            raise RequestError("the connection ended inside the request")

    def interim(self) -> bytes:
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""


def _origin_form(target: bytes) -> bytes:
    """``target`` without scheme and host, which a client may write as if to a proxy (RFC 9112 §3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() not in (b"http", b"https"):
        return target
    path = rest[len(re.split(rb"[/?]", rest, maxsplit=1)[0]) :]
    return path if path.startswith(b"/") else b"/" + path


def _normalised(path: bytes) -> bytes:
    """``path`` without dot segments and doubled slashes, as a web server passes it on (RFC 3986 §5.2.4)."""
    if b"//" not in path and b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    trailing = b"/" if segments and segments[-1] in (b"", b".", b"..") and kept else b""
    return b"/" + b"/".join(kept) + trailing
