"""Requests over real connections, for the loads of a scenario: one :class:`Client` a request, none blocks."""

import errno
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from pyemperor.actors.actor import Inbox
from pyemperor.cli.traffic import Turn
from pyemperor.cli.verdict import NO_ANSWER
from pyemperor.protocol.load import Load
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.scenario import Front
from pyemperor.protocol.uwsgi import encode_packet
from pyemperor.protocol.values import Address

#: Seconds until a client looks again whether a full backlog has room: a blocking connect(2) waits for it.
_FULL = 0.005
_CHUNK = 65536
#: What a body is sent as, as by curl --data.
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Nudge:
    """Some time has passed: call :meth:`Client.nudge`."""

    client: "Client"


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is over: its status, "0" when there was no answer, no whole one, or none in time."""

    client: "Client"
    status: str


@dataclass(frozen=True, slots=True)
class Door:
    """Where the requests to a vassal go in, and whether it speaks uwsgi there or HTTP."""

    address: Address
    uwsgi: bool

    @classmethod
    def of(cls, vassal: Vassal, front: Front) -> "Door":
        """Through the web server in front, if there is one; else by HTTP, if the vassal speaks it."""
        if front.kind != "none":
            return cls(front.listen, uwsgi=False)
        if vassal.http_socket:
            return cls(vassal.http_socket[0], uwsgi=False)
        return cls(vassal.socket[0], uwsgi=True)

    def request(self, load: Load, conversation: h11.Connection) -> bytes:
        """The bytes of a request of ``load``; ``conversation`` is told, so that it can read the answer."""
        body = load.body.encode()
        fields = [("Host", "localhost"), ("Connection", "close"), ("User-Agent", "pyemperor-load")]
        if body:
            fields += [("Content-Type", _FORM), ("Content-Length", str(len(body)))]
        head = conversation.send(h11.Request(method=load.method, target=load.path, headers=fields)) or b""
        http = head + (conversation.send(h11.Data(data=body)) or b"" if body else b"")
        conversation.send(h11.EndOfMessage())
        return encode_packet(_variables(load, len(body))) + body if self.uwsgi else http


def _variables(load: Load, length: int) -> list[tuple[bytes, bytes]]:
    """What nginx's uwsgi_params would send."""
    path, _, query = load.path.partition("?")
    variables = {
        "QUERY_STRING": query,
        "REQUEST_METHOD": load.method,
        "CONTENT_TYPE": _FORM if length else "",
        "CONTENT_LENGTH": str(length) if length else "",
        "REQUEST_URI": load.path,
        "PATH_INFO": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "SERVER_PORT": "80",
        "SERVER_NAME": "localhost",
        "HTTP_HOST": "localhost",
    }
    return [(name.encode(), value.encode()) for name, value in variables.items()]


class Client:
    """One request on a connection of its own. Its end is delivered to the inbox: :class:`Finished`.

    What moves it on (:meth:`connect`, :meth:`nudge`, readiness) gives messages for that inbox.
    """

    def __init__(self, inbox: Inbox, door: Door, turn: Turn, load: Load, now: float) -> None:
        self.turn = turn
        self.began = now
        self._inbox = inbox
        self._door = door
        self._deadline = now + load.timeout
        self._timer = inbox.after(load.timeout, Nudge(self))
        self._conversation = h11.Connection(h11.CLIENT)
        self._unsent = door.request(load, self._conversation)
        self._status = NO_ANSWER
        self._sock: socket.socket | None = None
        self._over = False

    def connect(self) -> Iterable[object]:
        """Connect, or have that tried again soon."""
        address = self._door.address
        try:
            sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # as a client sees it: no descriptors left, no request
            return self._finish(NO_ANSWER)
        error = sock.connect_ex(_where(address))
        if error in (0, errno.EINPROGRESS):
            self._sock = sock
            self._inbox.watch(sock.fileno(), select.EPOLLIN | select.EPOLLOUT, self._ready)
            return ()
        sock.close()
        if error != errno.EAGAIN:
            return self._finish(NO_ANSWER)
        self._inbox.after(_FULL, Nudge(self))
        return ()

    def nudge(self, now: float) -> Iterable[object]:
        """Give up when it is time; else try to connect again."""
        if self._over:
            return ()
        if now >= self._deadline:
            return self._finish(NO_ANSWER)
        return () if self._sock else self.connect()

    def _ready(self, mask: int) -> Iterable[object]:
        assert self._sock is not None
        try:
            if mask & select.EPOLLOUT:
                self._send(self._sock)
            return self._receive(self._sock) if mask & ~select.EPOLLOUT else ()
        except (OSError, h11.RemoteProtocolError):
            return self._finish(NO_ANSWER)

    def _send(self, sock: socket.socket) -> None:
        try:
            self._unsent = self._unsent[sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent = b""  # it may have answered before it closed
        if not self._unsent:
            self._inbox.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def _receive(self, sock: socket.socket) -> Iterable[object]:
        try:
            self._conversation.receive_data(sock.recv(_CHUNK))
        except BlockingIOError:
            return ()
        while True:
            event = self._conversation.next_event()
            if isinstance(event, h11.Response):
                self._status = str(event.status_code)
            elif isinstance(event, h11.EndOfMessage):
                return self._finish(self._status)
            elif isinstance(event, h11.ConnectionClosed):
                return self._finish(NO_ANSWER)
            elif not isinstance(event, h11.Event):
                return ()

    def _finish(self, status: str) -> Iterable[object]:
        self.close()
        return (Finished(self, status),)

    def close(self) -> None:
        """Hang up, whatever the state."""
        self._over = True
        self._timer.cancel()
        if self._sock:
            self._inbox.unwatch(self._sock.fileno())
            self._sock.close()


def _family(address: Address) -> int:
    if address.kind == "unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _where(address: Address) -> str | tuple[str, int]:
    if address.kind == "unix":
        return "\0" + address.path[1:] if address.path.startswith("@") else address.path
    return address.host or "127.0.0.1", address.port
