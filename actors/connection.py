"""The client's side of one exchange: its request comes in, the response goes out, and its end tells the truth.

A response that has no length ends where the connection does, so a client can tell a whole response from a
broken one only by *how* it ends. On TCP a break is a reset: from the first byte of a response of which more is to
come, any end but :meth:`Connection.finish` is one, also that of this process. A unix socket knows no other reset
than that of unread bytes (unix(7)): so the last bytes of the request are only looked at, and taken when all went
well.
"""

import os
import select
import socket
import struct

from pyemperor.actors.actor import Inbox, Source
from pyemperor.actors.linux import waiting_bytes
from pyemperor.actors.spool import CHUNK
from pyemperor.actors.wires import Request, Wire
from pyemperor.protocol.errors import RequestError

#: Flags of recv() and send(): never wait; and leave there what was read.
TAKE = int(socket.MSG_DONTWAIT)
LOOK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
#: SO_LINGER (socket(7)): what close(2) does to a TCP connection, also when the kernel does it for a dead process.
_RESET, _END = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
#: A TCP state (tcp_states.h): the peer has ended its side, and may or may not read on.
_CLOSE_WAIT = 8


class ClientLeft(Exception):
    """Nobody is there to read the response."""


class Connection:
    """A connection just accepted; nothing here blocks, and what cannot be had now is None or :attr:`pending`."""

    #: What is not over yet.
    open = True
    #: The client has said something.
    begun = False
    request: Request | None = None
    #: Bytes of the request's body that the client has still to send.
    missing = 0
    #: Bytes of the response that the client has not taken yet.
    pending = b""
    #: Bytes that it has taken.
    sent = 0
    #: It takes nothing now of what is spliced.
    full = False
    #: The response is over; what the client still sends is thrown away, until it closes.
    draining = False
    #: Bytes of the request that were looked at and not taken.
    _held = 0
    _breaks = False  # a close is a reset
    _said_all: bool | None = None
    _watched = False
    _non_blocking = False

    def __init__(self, inbox: Inbox, sock: socket.SocketType, wire: Wire) -> None:
        self._inbox = inbox
        self._sock = sock
        self.wire = wire
        self._holds = sock.family == socket.AF_UNIX

    # ---- the request ------------------------------------------------------------------------------------

    def read_request(self) -> Request | None:
        """The request, once its head is there; None before. Raises RequestError for what is none.

        A client that closes without a word has no request: the connection is not open any more.
        """
        data = self._receive(CHUNK, LOOK if self._holds else TAKE)
        if data is None:
            return None
        if not data:
            self.wire.close()
            self.close()
            return None
        self.begun = True
        try:
            self.request = self.wire.feed(data)
        except OSError as error:  # it asks who the peer is
            raise ClientLeft(error.strerror) from None
        if self.request:
            self.missing = max(0, self.request.length - len(self.wire.leftover))
        if self._holds:
            if self.request is not None and not self.missing:
                self._held = len(data)
            else:
                self._sock.recv(len(data), TAKE)
        return self.request

    def looked_at(self, request: Request, size: int) -> None:
        """Go on with a ``request`` that somebody has found in ``size`` bytes; -1: more came, and is taken."""
        self.begun, self.request = True, request
        if self._holds or size < 0:
            self._held = size
        else:
            self._receive(size)

    def ask_for_body(self) -> None:
        """Send what a client may wait for before it sends its body: no part of the response. Raises ClientLeft."""
        before = self.sent
        self.send(self.wire.interim())
        self.sent = before

    def first_body(self) -> bytes:
        """The part of the body that came with the head."""
        assert self.request is not None
        data, self.wire.leftover = self.wire.leftover[: self.request.length], b""
        return data

    def read_body(self) -> bytes:
        """The next bytes of the body, b"" if there are none now. Raises RequestError if it ends too early."""
        if self._holds and self.missing == 1:
            data = self._receive(1, LOOK)
            self._held = 1 if data else 0
        else:
            data = self._receive(min(CHUNK, self.missing - self._holds))
        if data == b"":
            missing = self.missing
            raise RequestError(f"the connection ended inside the body of the request: {missing} bytes are missing")
        self.missing -= len(data or b"")
        return data or b""

    def _receive(self, size: int, flags: int = TAKE) -> bytes | None:
        try:
            return self._sock.recv(size, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ClientLeft(error.strerror) from None

    # ---- the response -----------------------------------------------------------------------------------

    @property
    def needs_unread(self) -> bool:
        """Whether it can be broken only while bytes of the request are unread (unix(7))."""
        return self._holds

    def send(self, data: bytes = b"", *, more: bool = False) -> int:
        """Send ``data`` after what is pending; the number of bytes taken now. Raises ClientLeft.

        ``more`` says that this is not yet the end of the response.
        """
        before = self.sent
        self.pending += data
        if more and not self._breaks:
            self._linger(_RESET)
        try:
            while self.pending:
                taken = self._sock.send(self.pending, TAKE)
                self.sent += taken
                self.pending = self.pending[taken:]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ClientLeft(error.strerror) from None
        if self.pending and not self._breaks:
            self._linger(_RESET)
        return self.sent - before

    def _linger(self, how: bytes) -> None:
        if not self._holds:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
        self._breaks = how is _RESET

    def splice(self, pipe: int, most: int) -> int | None:
        """Move at most ``most`` bytes from ``pipe`` to the client within the kernel; raises ClientLeft.

        0 at the end of the pipe; None when there is nothing in it now, or the client is :attr:`full`.
        """
        fd = self._sock.fileno()
        if not self._non_blocking:  # splice(2) has no flag for that
            os.set_blocking(fd, False)
            self._non_blocking = True
        try:
            moved = os.splice(pipe, fd, most, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except BlockingIOError:
            self.full = waiting_bytes(pipe) > 0
            return None
        except OSError as error:
            raise ClientLeft(error.strerror) from None
        self.sent += moved
        return moved

    # ---- the end ----------------------------------------------------------------------------------------

    def left(self, mask: int) -> bool:
        """Say whether an event ``mask`` means that the client has left, after it had made its request."""
        end = mask & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP)
        return bool(end) and self.request is not None and not self.draining

    def watch(self, source: Source, *, more: bool, early: bool, leaving: bool) -> None:
        """Wait for what the client can do next, and tell ``source``.

        ``more`` says whether bytes of the body are wanted, ``early`` whether what is pending must not be sent
        yet, ``leaving`` whether it matters that the client leaves.
        """
        if not self.open:
            return
        mask = select.EPOLLOUT if self.full or (self.pending and not early) else 0
        if more or self.draining or self.request is None:
            mask |= select.EPOLLIN
        elif leaving and not self.missing and not self._holds and not self._has_said_all():
            # A unix peer's end is always reported (EPOLLHUP), that of a TCP peer only so.
            mask |= select.EPOLLRDHUP
        if leaving or self._watched or mask & (select.EPOLLIN | select.EPOLLOUT):
            self._watched = True  # most requests are over before anybody waits for their client
            self._inbox.watch(self._sock.fileno(), mask, source)

    def _has_said_all(self) -> bool:
        """Whether a TCP client ended its side right behind its request: it may well wait for the answer.

        Whoever does so later has left. So this is asked as soon as it matters, and then known.
        """
        if self._said_all is None:
            state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            self._said_all = state[0] == _CLOSE_WAIT
        return self._said_all

    def finish(self) -> None:
        """The response is complete: close in a way that lets the client read it.

        To close before the client has sent all it wants would reset the connection. So what is there is read,
        and if there may be more, only our side is shut, and the connection drains.
        """
        try:
            if self._breaks:
                self._linger(_END)
            last = self._receive(CHUNK)
            whole = self.request is not None and not self.missing
            if last == b"" or (whole and len(last or b"") <= self._held):
                self.close()
            else:
                self._sock.shutdown(socket.SHUT_WR)
                self.draining = True
        except (ClientLeft, OSError):
            self.close()

    def drain(self) -> None:
        """Throw away what came; close at its end."""
        try:
            if self._receive(CHUNK) == b"":
                self.close()
        except ClientLeft:
            self.close()

    def cut(self) -> None:
        """End a response that had begun so that the client sees it broken, not complete."""
        if self.open:
            self._linger(_RESET)
        self.close()

    def close(self) -> None:
        """Close, at once."""
        if self.open:
            self.open = self.draining = self.full = False
            self.pending = b""
            if self._watched:
                self._inbox.unwatch(self._sock.fileno())
            self._sock.close()
